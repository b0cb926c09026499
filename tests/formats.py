"""Writers of scans in the formats that the readers know: what the tests of readers share."""

from __future__ import annotations

import struct
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


def write_dm4(path: Path, stored: np.ndarray, units: Sequence[str] = ("nm",) * 3, scale: float = 0.5) -> Path:
    """An array (z, y, x) or (y, x) as Gatan's program leaves it: a thumbnail, then the image with its calibration."""
    types = {"i2": (1, 2), "u2": (10, 4), "f4": (2, 6), "u1": (6, 8), "c8": (3, 6)}

    def number(value: float, kind: int = 5) -> bytes:
        return b"%%%%" + struct.pack(">QQ", 1, kind) + struct.pack("<f" if kind == 6 else "<I", value)

    def array(content: bytes, count: int, kind: int) -> bytes:
        return b"%%%%" + struct.pack(">QQQQ", 3, 20, kind, count) + content

    def entry(name: str, value: Any) -> bytes:
        body = group(value) if isinstance(value, list) else value
        mark = 20 if isinstance(value, list) else 21
        return struct.pack(">BH", mark, len(name)) + name.encode() + struct.pack(">Q", len(body)) + body

    def group(entries: list[tuple[str, Any]]) -> bytes:
        return struct.pack(">bbQ", 1, 0, len(entries)) + b"".join(entry(*pair) for pair in entries)

    def image(voxels: np.ndarray, code: int, kind: int, sizes: Sequence[int], named: Sequence[str]) -> Any:
        calibrated = [("Origin", number(0, 6)), ("Scale", number(scale, 6))]
        axes = [("", [*calibrated, ("Units", array(u.encode("utf-16-le"), len(u), 4))]) for u in named]
        dimensions = [("", number(n)) for n in sizes]
        data = array(voxels.tobytes(), voxels.nbytes // {4: 2, 6: 4, 8: 1, 5: 4, 2: 2}[kind], kind)
        content = [("Calibrations", [("Dimension", axes)]), ("Data", data), ("DataType", number(code))]
        return ("", [("ImageData", [*content, ("Dimensions", dimensions)])])

    code, kind = types[stored.dtype.str[1:]]
    thumbnail = image(np.zeros((8, 8), np.uint32), 23, 5, (8, 8), ("", ""))
    whole = image(stored, code, kind, stored.shape[::-1], units[: stored.ndim])
    body = group([("ImageList", [thumbnail, whole])])
    path.write_bytes(struct.pack(">IQI", 4, len(body), 1) + body)
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
