"""MRC2014, as IMOD and ChimeraX read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from ..provenance import atomic_path
from .labels import Labels

UINT16 = 6
LITTLE_ENDIAN = (0x44, 0x44, 0, 0)
ANGSTROM_PER_UM = 1e4


def write(labels: Labels, path: Path) -> None:
    """Write mode 6 (uint16) with the voxel size in ångström and the origin at the first voxel.

    Bytes (mode 0) would be half the size, but the format has them signed and programs differ over it: 255 might come
    back as -1. The first row of a section is its lowest, as the format defines, so that a viewer of MRC shows row 0
    of the scan at the top, as viewers of TIFF do.
    """
    counts = np.zeros(256, np.int64)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(bytes(HEADER_DTYPE.itemsize))
        for _, block in labels.blocks("mrc"):
            counts += np.bincount(block.ravel(), minlength=256)
            for plane in block:
                file.write(np.ascontiguousarray(plane[::-1], dtype="<u2").data)
        file.seek(0)
        file.write(_header(labels, counts).tobytes())


def _header(labels: Labels, counts: np.ndarray) -> np.ndarray:
    depth, height, width = labels.shape
    values = np.arange(256)
    mean = float(counts @ values / counts.sum())
    header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
    for axis, n in (("x", width), ("y", height), ("z", depth)):
        header[f"n{axis}"] = header[f"m{axis}"] = n
    if labels.voxel_size_um is not None:
        for axis, n, size in zip("zyx", labels.shape, labels.voxel_size_um, strict=True):
            header["cella"][axis] = n * float(size) * ANGSTROM_PER_UM
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90
    header["mode"] = UINT16
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"] = values[counts > 0][[0, -1]]
    header["dmean"] = mean
    header["rms"] = float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum()))
    header["ispg"] = 1  # a volume
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = LITTLE_ENDIAN
    lines = [f"beamseg {row['id']}: {row['name']}".encode("ascii", "replace")[:80] for row in labels.table[:10]]
    header["nlabl"] = len(lines)
    header["label"][: len(lines)] = lines
    return header
