"""beamseg: segmentation of reconstructed volumes without labels, a module per stage of the workflow."""

import os

# Before any library loads OpenMP: spinning threads slow whoever shares the machine, twentyfold as measured.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Before h5py: network file systems often refuse locks.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

__version__ = "0.1.0"
