"""Where HDF5 files of beamlines keep a reconstructed volume: which data set, which axes, which voxel size."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import InputError
from .source import sizes_um, to_micrometres

NABU = "reconstruction/results/data"
NABU_OPTIONS = "reconstruction/configuration/processing_options/reconstruction"
APS_PIXEL = "measurement/instrument/detection_system/objective/resolution"
HTTOMO_MARK = "data_dims/detector_x_y"
IN_MICROMETRES = ("voxel_size_um", "element_size_um")
WITH_UNIT = ("voxel_size", "pixel_size", "element_size")
ANGLES = {"rotation_angle", "theta", "angle", "angles"}
# Savu calls the vertical axis voxel_y, as its detector does; a slice is voxel_x by voxel_z.
SAVU = {"voxel_x": "y", "voxel_y": "z", "voxel_z": "x"}


def find(path: Path, file: h5py.File) -> str:
    """Name of the data set that a layout leads to, else of the only 3-D one; raises InputError where it is unclear."""
    for layout in LAYOUTS:
        name = layout(path, file)
        if name is not None:
            return name
    found = candidates(file)
    if len(found) == 1:
        return str(found[0].name)
    if not found:
        raise InputError(path, "no 3-D numeric data set", "one", "give a file that holds a reconstructed volume")
    raise InputError(
        path,
        f"{len(found)} 3-D data sets: {listed(found)}",
        "one, or a name",
        "name it in the column `dataset` of the sample table",
    )


def candidates(file: h5py.File) -> list[h5py.Dataset]:
    """The 3-D numeric data sets of a file with more than one voxel, each once, in order of name."""
    found: dict[Any, h5py.Dataset] = {}

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "uifbc" and item.size > 1:
            found.setdefault(hash(item.id), item)

    file.visititems(visit)
    return sorted(found.values(), key=lambda item: item.name)


def listed(found: Sequence[h5py.Dataset]) -> str:
    """Name, shape and type of each, on one line."""
    return ", ".join(f"{item.name} {item.shape} {item.dtype.name}" for item in found) or "(none)"


def _exchange(path: Path, file: h5py.File) -> str | None:
    """Data Exchange (TomoPy, tomocupy)."""
    return "/exchange/data" if isinstance(file.get("exchange/data"), h5py.Dataset) else None


def _httomo(path: Path, file: h5py.File) -> str | None:
    return "/data" if HTTOMO_MARK in file and isinstance(file.get("data"), h5py.Dataset) else None


def _nabu(path: Path, file: h5py.File) -> str | None:
    """Nabu and tomoscan: the result of one entry; of several, the user must say which."""
    names = [f"/{entry}/{NABU}" for entry in file if isinstance(file.get(f"{entry}/{NABU}"), h5py.Dataset)]
    if len(names) > 1:
        raise InputError(
            path,
            f"{len(names)} 3-D data sets: {listed([file[name] for name in names])}",
            "one, or a name",
            "name it in the column `dataset` of the sample table",
        )
    return names[0] if names else None


def _nexus(path: Path, file: h5py.File) -> str | None:
    """The signal that @default leads to; without it, of the one final result (Savu), else of the one NXdata volume."""
    group, where = file, ""
    for _ in range(8):
        if "default" not in group.attrs:
            break
        name = _text(group.attrs["default"])
        step = group.get(name)
        if not isinstance(step, h5py.Group):
            raise InputError(
                path,
                f"@default of {group.name} names {name!r}, which is no group",
                "a NeXus group",
                "name the data set in the column `dataset` of the sample table",
            )
        group, where = step, f"{where}/{name}"
    found = _signal_of(group, where)
    if found is not None:
        return found
    finals = [
        signal
        for entry in file
        if isinstance(file.get(entry), h5py.Group)
        for name in file[entry]
        if name.startswith("final_result") and isinstance(file.get(f"{entry}/{name}"), h5py.Group)
        if (signal := _signal_of(file[f"{entry}/{name}"], f"/{entry}/{name}")) and file[signal].ndim == 3
    ]
    if len(finals) == 1:
        return finals[0]
    signals: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and _text(item.attrs.get("NX_class", "")) == "NXdata":
            signal = _signal_of(item, f"/{name}")
            if signal is not None and file[signal].ndim == 3:
                signals.append(signal)

    file.visititems(visit)
    return signals[0] if len(signals) == 1 else None


LAYOUTS: tuple[Callable[[Path, h5py.File], str | None], ...] = (_exchange, _httomo, _nabu, _nexus)


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode() if isinstance(value, bytes) else str(value)


def _signal_of(group: h5py.Group, where: str) -> str | None:
    """Name of a group's signal as reached by `where`: a linked group's own name is that in its own file."""
    if "signal" in group.attrs:
        name = _text(group.attrs["signal"])
        return f"{where}/{name}" if isinstance(group.get(name), h5py.Dataset) else None
    for name in group:
        item = group.get(name)
        if isinstance(item, h5py.Dataset) and _text(item.attrs.get("signal", "")) == "1":
            return f"{where}/{name}"
    return None


def refuse_projections(path: Path, file: h5py.File, data: h5py.Dataset) -> None:
    """Raise InputError for raw projections.

    Their signs: flat and dark fields beside them, a list of as many angles or image keys as there are images, an axis
    of angles, and, in files of HTTomo, images that are no squares seen from as many angles.
    """
    signs = []
    if data.name.startswith("/exchange/"):
        signs += [f"/{name}" for name in ("exchange/data_white", "exchange/data_dark") if name in file]
    for name in ("theta", "rotation_angle", "image_key"):
        beside = data.parent.get(name)
        if isinstance(beside, h5py.Dataset) and beside.shape == data.shape[:1]:
            signs.append(str(beside.name))
    angles = file.get("angles")
    if _httomo(path, file) == data.name and isinstance(angles, h5py.Dataset):
        signs += ["/angles"] if angles.shape == data.shape[:1] and data.shape[0] != data.shape[2] else []
    signs += [f"an axis {name!r}" for name in axis_names(data) if name in ANGLES]
    if signs:
        raise InputError(
            path,
            f"raw projections (the file holds {signs[0]})",
            "reconstructed slices",
            "reconstruct the scan first (TomoPy, algotom, httomo …) and give the result",
        )


def axis_names(data: h5py.Dataset) -> list[str]:
    """Names of the three axes by an attribute `axes` of the data set (`z:y:x`) or its group, else an empty list."""
    for holder in (data, data.parent):
        if "axes" not in holder.attrs:
            continue
        value = holder.attrs["axes"]
        names = [_text(name) for name in value] if np.ndim(value) else re.split(r"[:,\s]+", _text(value).strip("[]"))
        if len(names) == 3:
            return [name.strip() for name in names]
    return []


def axes_of(file: h5py.File, data: h5py.Dataset) -> str:
    """Order of the stored axes: by their names, by HTTomo's layout (the vertical axis is the second), else zyx."""
    names = [name.split(".")[0].lower() for name in axis_names(data)]
    if set(names) == set(SAVU):
        return "".join(SAVU[name] for name in names)
    letters = "".join(m[1] if (m := re.fullmatch(r"(?:.*_)?([zyx])", name)) else "?" for name in names)
    if set(letters) == set("zyx"):
        return letters
    return "yzx" if data.name == "/data" and HTTOMO_MARK in file else "zyx"


def voxel_size(path: Path, file: h5py.File, data: h5py.Dataset) -> tuple[list[float] | None, list[str]]:
    """(size along the stored axes in micrometres or None, warnings).

    From attributes of the data set, the spacing of its NeXus axes, the options that Nabu keeps, or the objective's
    pixel (APS, tomocupy), which is multiplied by the binning of the reconstruction.
    """
    for name in (*IN_MICROMETRES, *WITH_UNIT):
        if name not in data.attrs:
            continue
        value = np.asarray(data.attrs[name], dtype=float).ravel()
        size = [float(v) for v in (np.repeat(value, 3) if value.size == 1 else value)]
        if len(size) != 3 or not all(np.isfinite(v) and v > 0 for v in size):
            raise InputError(
                path,
                f"attribute {name} of {data.name} is {value.tolist()}",
                "a positive number, or three in the order of the axes",
                "mend the attribute, or give `voxel_size_um` in the sample table",
            )
        unit = "µm" if name in IN_MICROMETRES else _unit(data, f"{name}_")
        return sizes_um(size, unit)
    spacing = _axes_spacing(data)
    if spacing is not None:
        return spacing
    options = file.get(data.name.removesuffix(NABU) + NABU_OPTIONS) if data.name.endswith(NABU) else None
    for name in ("voxel_size_cm", "pixel_size_cm"):
        if isinstance(options, h5py.Group) and isinstance(options.get(name), h5py.Dataset):
            value = np.asarray(options[name][()], dtype=float).ravel()
            return sizes_um([float(v) for v in (np.repeat(value, 3) if value.size == 1 else value)], "cm")
    pixel = file.get(APS_PIXEL)
    if isinstance(pixel, h5py.Dataset) and pixel.dtype.kind in "uif" and data.name == "/exchange/data":
        binning = re.search(r"--binning[= ](\d)", _text(data.attrs.get("command", "")))
        value = float(np.ravel(pixel[()])[0]) * 2 ** int(binning[1] if binning else 0)
        return sizes_um([value] * 3, _unit(pixel))
    return None, []


def _unit(item: h5py.Dataset, prefix: str = "") -> str:
    """Attribute `units` or `unit`, without the end marks that some programs write."""
    for name in (f"{prefix}units", f"{prefix}unit"):
        if name in item.attrs:
            return _text(item.attrs[name]).rstrip("\0").strip()
    return ""


def _axes_spacing(data: h5py.Dataset) -> tuple[list[float] | None, list[str]] | None:
    steps, units = [], []
    for name, n in zip(axis_names(data), data.shape, strict=False):
        axis = data.parent.get(name)
        if not isinstance(axis, h5py.Dataset) or axis.shape != (n,) or n < 2 or axis.dtype.kind not in "uif":
            return None
        steps.append(abs(float(axis[n - 1]) - float(axis[0])) / (n - 1))
        units.append(_unit(axis))
    if len(steps) != 3 or any(to_micrometres(1, unit) is None for unit in units):
        return None
    return sizes_um(steps, units)
