"""beamseg: segmentation of reconstructed volumes without labels, a module per stage of the workflow."""

__version__ = "0.1.0"
