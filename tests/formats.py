"""Writers of scans in the formats that the readers know: what the tests of readers share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import mrcfile
import numpy as np
import tifffile
import zarr


def write_mrc(path: Path, stored: np.ndarray, voxel_angstrom: float | Sequence[float] = 0.0, **fields: Any) -> Path:
    """The array (sections, rows, columns) as it lies in an MRC file; `fields` are of the header."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(stored)
        if np.any(voxel_angstrom):
            file.voxel_size = voxel_angstrom
        for name, value in fields.items():
            file.header[name] = value
    return path


def write_stack(folder: Path, volume: np.ndarray, name: str = "s_{}.tif", start: int = 0, **options: Any) -> Path:
    """A TIFF per slice."""
    folder.mkdir(parents=True)
    for z, plane in enumerate(volume, start=start):
        tifffile.imwrite(folder / name.format(z), plane, **options)
    return folder


def write_png_stack(folder: Path, volume: np.ndarray) -> Path:
    """A PNG per slice."""
    folder.mkdir(parents=True)
    for z, plane in enumerate(volume):
        (folder / f"p_{z:03d}.png").write_bytes(imagecodecs.png_encode(plane))
    return folder


def write_ome_zarr(
    folder: Path,
    levels: Sequence[np.ndarray],
    version: str = "0.5",
    axes: Sequence[str] = ("z", "y", "x"),
    unit: str = "micrometer",
    scales: Sequence[Sequence[float]] | None = None,
    whole: Sequence[float] | None = None,
    **options: Any,
) -> Path:
    """A multiscale image; `scales` are of the levels, `whole` that of the image."""
    image: dict[str, Any] = {
        "axes": [
            {"name": a, "type": "space" if a in "zyx" else "other"} | ({"unit": unit} if a in "zyx" else {})
            for a in axes
        ],
        "datasets": [],
    }
    group = zarr.open_group(folder, mode="w", zarr_format=2 if version == "0.4" else 3)
    for number, data in enumerate(levels):
        array = group.create_array(str(number), shape=data.shape, dtype=data.dtype, chunks=data.shape, **options)
        array[...] = data
        scale = list(scales[number]) if scales else [1.0 * 2**number] * data.ndim
        image["datasets"].append(
            {"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    if whole:
        image["coordinateTransformations"] = [{"type": "scale", "scale": list(whole)}]
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": version, **image}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return folder


def write_raw(path: Path, stored: np.ndarray) -> Path:
    """The voxels and nothing else."""
    path.write_bytes(np.ascontiguousarray(stored).tobytes())
    return path


def write_mhd(path: Path, volume: np.ndarray, spacing: Sequence[float] | None = None, **fields: Any) -> Path:
    """A MetaImage header and its voxels, (z, y, x)."""
    kind = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "u2": "MET_USHORT", "f4": "MET_FLOAT"}[volume.dtype.str[1:]]
    raw = write_raw(path.with_suffix(".raw"), volume)
    lines = ["ObjectType = Image", "NDims = 3", "DimSize = " + " ".join(map(str, volume.shape[::-1]))]
    if spacing is not None:
        lines.append("ElementSpacing = " + " ".join(map(str, spacing)))
    lines += [f"ElementType = {kind}", *(f"{key} = {value}" for key, value in fields.items())]
    path.write_text("\n".join([*lines, f"ElementDataFile = {raw.name}", ""]))
    return path


def write_nhdr(path: Path, volume: np.ndarray, *lines: str) -> Path:
    """A NRRD header and its voxels, (z, y, x); `lines` are further fields."""
    kind = {"u1": "uint8", "u2": "uint16", "f4": "float"}[volume.dtype.str[1:]]
    raw = write_raw(path.with_suffix(".raw"), volume)
    sizes = " ".join(map(str, volume.shape[::-1]))
    head = ["NRRD0004", "# made by a test", f"type: {kind}", "dimension: 3", f"sizes: {sizes}", "encoding: raw"]
    path.write_text("\n".join([*head, "endian: little", *lines, f"data file: {raw.name}", ""]))
    return path


def write_vol(path: Path, volume: np.ndarray, voxel_um: str = "0.65", order: str = "LOWBYTEFIRST") -> Path:
    """Voxels and the text file that PyHST leaves beside them."""
    write_raw(path, volume)
    z, y, x = volume.shape
    path.with_name(path.name + ".info").write_text(
        f"! PyHST_SLAVE VOLUME INFO FILE\nNUM_X =  {x}\nNUM_Y =  {y}\nNUM_Z =  {z}\nvoxelSize =  {voxel_um}\n"
        f"BYTEORDER = {order}\n"
    )
    return path
