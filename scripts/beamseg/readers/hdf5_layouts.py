"""Where HDF5 files of beamlines keep a reconstructed volume: which data set, which axes, which voxel size."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import InputError
from .source import Linked, ReadOptions, is_beside, sizes_um, to_micrometres

NABU = "reconstruction/results/data"
NABU_OPTIONS = "reconstruction/configuration/processing_options/reconstruction"
APS_PIXEL = "measurement/instrument/detection_system/objective/resolution"
HTTOMO_MARK = "data_dims/detector_x_y"
IN_MICROMETRES = ("voxel_size_um", "element_size_um")
WITH_UNIT = ("voxel_size", "pixel_size", "element_size")
ANGLES = {"rotation_angle", "theta", "angle", "angles"}
# Savu calls the vertical axis voxel_y, as its detector does; a slice is voxel_x by voxel_z.
SAVU = {"voxel_x": "y", "voxel_y": "z", "voxel_z": "x"}
MOST_SOFT = 64
"""Soft links on the way to a name; HDF5 itself gives up after 16."""


@dataclass(frozen=True)
class Inside:
    """An HDF5 file, open for reading, that is not left by a link to another one unless the settings allow that."""

    path: Path
    """The scan, as it was given."""
    file: h5py.File
    options: ReadOptions

    def get(self, name: str, group: h5py.Group | None = None) -> Any:
        """What is at a name, from the root or from a group; None if nothing is.

        Raises
        ------
        Linked
            With `external_links: none`, if it lies in another file, or takes its values from one.
        """
        start = self.file if group is None else group
        if self.options.external_links == "none":
            self._refuse_links(start, name, set())
        return start.get(name)

    def _refuse_links(self, start: h5py.Group, name: str, seen: set[str]) -> None:
        """Parts of a virtual data set that lie in the same file may themselves lead to others."""
        if found := link_out(start, name):
            place, link = found
            raise self._linked(f"{place} is a link to {link.path} in {link.filename}", [link.filename])
        data = start.get(name)
        if not isinstance(data, h5py.Dataset) or data.name in seen:
            return
        seen.add(data.name)
        sources = data.virtual_sources() if data.is_virtual else []
        others = [source.file_name for source in sources if source.file_name != "."]
        others = list(dict.fromkeys([*others, *(part for part, *_ in data.external or ())]))
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise self._linked(f"{data.name} takes its values from {others[0]}{more}", others)
        for source in sources:
            self._refuse_links(self.file, source.dset_name, seen)

    def _linked(self, found: str, names: Sequence[str]) -> Linked:
        folder = self.path.parent
        files = [next(filter(Path.exists, (folder / name, folder / Path(name).name)), folder / name) for name in names]
        value = "beside" if all(map(is_beside(self.path), files)) else "any"
        whole = any(not data.is_virtual and data.external is None for data in candidates(self.file))
        return Linked(
            self.path,
            found,
            "voxels in the file itself, as long as `ingest.external_links` is none",
            f"if you trust where the scan comes from, set `ingest: {{external_links: {value}}}` in config.yaml"
            + (", or name a data set of the file itself in the column `dataset`" if whole else "")
            + "; labels, truths and movies have to be whole in one file",
            files,
        )


def link_out(group: h5py.Group, name: str) -> tuple[str, h5py.ExternalLink] | None:
    """The first link to another file on the way to a name, and where it is; soft links are gone along, it is not."""
    steps, soft = _steps(name), 0
    here = group.file["/"] if name.startswith("/") else group
    while steps:
        step, *steps = steps
        link = here.get(step, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return f"{here.name.rstrip('/')}/{step}", link
        if isinstance(link, h5py.SoftLink):
            soft += 1
            if soft > MOST_SOFT:
                return None
            here = here.file["/"] if link.path.startswith("/") else here
            steps = _steps(link.path) + steps
            continue
        found = None if link is None else here.get(step)
        if not isinstance(found, h5py.Group):
            return None
        here = found
    return None


def _steps(name: str) -> list[str]:
    return [step for step in name.split("/") if step not in ("", ".")]


def find(scan: Inside) -> str:
    """Name of the data set that a layout leads to, else of the only 3-D one; raises InputError where it is unclear."""
    path, file = scan.path, scan.file
    for layout in LAYOUTS:
        name = layout(scan)
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


def _exchange(scan: Inside) -> str | None:
    """Data Exchange (TomoPy, tomocupy)."""
    return "/exchange/data" if isinstance(scan.get("exchange/data"), h5py.Dataset) else None


def _httomo(scan: Inside) -> str | None:
    marked = scan.get(HTTOMO_MARK) is not None
    return "/data" if marked and isinstance(scan.get("data"), h5py.Dataset) else None


def _nabu(scan: Inside) -> str | None:
    """Nabu and tomoscan: the result of one entry; of several, the user must say which."""
    file = scan.file
    names = [f"/{entry}/{NABU}" for entry in file if isinstance(scan.get(f"{entry}/{NABU}"), h5py.Dataset)]
    if len(names) > 1:
        raise InputError(
            scan.path,
            f"{len(names)} 3-D data sets: {listed([file[name] for name in names])}",
            "one, or a name",
            "name it in the column `dataset` of the sample table",
        )
    return names[0] if names else None


def _nexus(scan: Inside) -> str | None:
    """The signal that @default leads to; without it, of the one final result (Savu), else of the one NXdata volume."""
    file = scan.file
    group, where = file, ""
    for _ in range(8):
        if "default" not in group.attrs:
            break
        name = _text(group.attrs["default"])
        step = scan.get(name, group)
        if not isinstance(step, h5py.Group):
            raise InputError(
                scan.path,
                f"@default of {group.name} names {name!r}, which is no group",
                "a NeXus group",
                "name the data set in the column `dataset` of the sample table",
            )
        group, where = step, f"{where}/{name}"
    found = _signal_of(scan, group, where)
    if found is not None:
        return found
    finals = [
        signal
        for entry in file
        if isinstance(scan.get(entry), h5py.Group)
        for name in file[entry]
        if name.startswith("final_result") and isinstance(scan.get(f"{entry}/{name}"), h5py.Group)
        if (signal := _signal_of(scan, file[f"{entry}/{name}"], f"/{entry}/{name}")) and file[signal].ndim == 3
    ]
    if len(finals) == 1:
        return finals[0]
    signals: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and _text(item.attrs.get("NX_class", "")) == "NXdata":
            signal = _signal_of(scan, item, f"/{name}")
            if signal is not None and file[signal].ndim == 3:
                signals.append(signal)

    file.visititems(visit)
    return signals[0] if len(signals) == 1 else None


LAYOUTS: tuple[Callable[[Inside], str | None], ...] = (_exchange, _httomo, _nabu, _nexus)


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode() if isinstance(value, bytes) else str(value)


def _signal_of(scan: Inside, group: h5py.Group, where: str) -> str | None:
    """Name of a group's signal as reached by `where`: a linked group's own name is that in its own file."""
    if "signal" in group.attrs:
        name = _text(group.attrs["signal"])
        return f"{where}/{name}" if isinstance(scan.get(name, group), h5py.Dataset) else None
    for name in group:
        item = scan.get(name, group)
        if isinstance(item, h5py.Dataset) and _text(item.attrs.get("signal", "")) == "1":
            return f"{where}/{name}"
    return None


def refuse_projections(scan: Inside, data: h5py.Dataset) -> None:
    """Raise InputError for raw projections.

    Their signs: flat and dark fields beside them, a list of as many angles or image keys as there are images, an axis
    of angles, and, in files of HTTomo, images that are no squares seen from as many angles.
    """
    signs = []
    if data.name.startswith("/exchange/"):
        signs += [f"/{name}" for name in ("exchange/data_white", "exchange/data_dark") if scan.get(name)]
    for name in ("theta", "rotation_angle", "image_key"):
        beside = scan.get(name, data.parent)
        if isinstance(beside, h5py.Dataset) and beside.shape == data.shape[:1]:
            signs.append(str(beside.name))
    angles = scan.get("angles")
    if _httomo(scan) == data.name and isinstance(angles, h5py.Dataset):
        signs += ["/angles"] if angles.shape == data.shape[:1] and data.shape[0] != data.shape[2] else []
    signs += [f"an axis {name!r}" for name in axis_names(data) if name in ANGLES]
    if signs:
        raise InputError(
            scan.path,
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


def axes_of(scan: Inside, data: h5py.Dataset) -> str:
    """Order of the stored axes: by their names, by HTTomo's layout (the vertical axis is the second), else zyx."""
    names = [name.split(".")[0].lower() for name in axis_names(data)]
    if set(names) == set(SAVU):
        return "".join(SAVU[name] for name in names)
    letters = "".join(m[1] if (m := re.fullmatch(r"(?:.*_)?([zyx])", name)) else "?" for name in names)
    if set(letters) == set("zyx"):
        return letters
    return "yzx" if data.name == "/data" and scan.get(HTTOMO_MARK) is not None else "zyx"


def voxel_size(scan: Inside, data: h5py.Dataset) -> tuple[list[float] | None, list[str]]:
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
                scan.path,
                f"attribute {name} of {data.name} is {value.tolist()}",
                "a positive number, or three in the order of the axes",
                "mend the attribute, or give `voxel_size_um` in the sample table",
            )
        unit = "µm" if name in IN_MICROMETRES else _unit(data, f"{name}_")
        return sizes_um(size, unit)
    spacing = _axes_spacing(scan, data)
    if spacing is not None:
        return spacing
    options = scan.get(data.name.removesuffix(NABU) + NABU_OPTIONS) if data.name.endswith(NABU) else None
    for name in ("voxel_size_cm", "pixel_size_cm"):
        if isinstance(options, h5py.Group) and isinstance(scan.get(name, options), h5py.Dataset):
            value = np.asarray(options[name][()], dtype=float).ravel()
            return sizes_um([float(v) for v in (np.repeat(value, 3) if value.size == 1 else value)], "cm")
    pixel = scan.get(APS_PIXEL)
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


def _axes_spacing(scan: Inside, data: h5py.Dataset) -> tuple[list[float] | None, list[str]] | None:
    steps, units = [], []
    for name, n in zip(axis_names(data), data.shape, strict=False):
        axis = scan.get(name, data.parent)
        if not isinstance(axis, h5py.Dataset) or axis.shape != (n,) or n < 2 or axis.dtype.kind not in "uif":
            return None
        steps.append(abs(float(axis[n - 1]) - float(axis[0])) / (n - 1))
        units.append(_unit(axis))
    if len(steps) != 3 or any(to_micrometres(1, unit) is None for unit in units):
        return None
    return sizes_um(steps, units)
