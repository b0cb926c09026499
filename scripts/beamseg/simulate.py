"""The embedded scans: a specimen made of formulas, measured and reconstructed as a beamline does it."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.transform import iradon, radon

from beamseg.errors import InputError
from beamseg.progress import Progress
from beamseg.provenance import atomic_path
from beamseg.specimens import SPECIMENS


def make_sample(settings: dict[str, Any]) -> Any:
    """Draw the specimen that `specimen` names, as formulas; it lies inside the reconstruction circle.

    Parameters
    ----------
    settings : dict
        The section `phantom` of the configuration.
    """
    return SPECIMENS[settings["specimen"]].make(settings)


def draw_slice(sample: Any, settings: dict[str, Any], index: int) -> tuple[np.ndarray, np.ndarray]:
    """One slice of the specimen.

    Parameters
    ----------
    sample : object
        From `make_sample`.
    settings : dict
        The section `phantom`.
    index : int
        The slice, 0 … nz - 1.

    Returns
    -------
    attenuation : ndarray, float32, (y, x)
        Linear attenuation coefficient in 1/mm, or grey level where that is imaged, with partial volume at the borders.
    truth : ndarray, uint8, (y, x)
        Index into the specimen's classes, by the phase that fills most of the voxel.
    """
    return SPECIMENS[settings["specimen"]].draw(sample, settings, index)


def detector_gain(settings: dict[str, Any], index: int) -> np.ndarray:
    """Gain of a detector row after flat-field correction, float (x,): what it lacks to 1 becomes a ring."""
    rng = np.random.default_rng([settings["seed"], 2, index])
    return 1 + settings["rings"] * rng.normal(size=settings["size"][2])


def measure_slice(attenuation: np.ndarray, settings: dict[str, Any], index: int) -> np.ndarray:
    """Parallel-beam projections of one slice, with noise, and their filtered back-projection.

    Parameters
    ----------
    attenuation : ndarray, float32, (y, x)
        In 1/mm.
    settings : dict
        The section `phantom`.
    index : int
        The slice; with the seed it fixes noise and gain, so slices may be made in any order.

    Returns
    -------
    ndarray, float32, (y, x)
        Reconstructed attenuation in 1/mm; 0 outside the circle.

    Notes
    -----
    A path of length integral p is measured as p - hardening * p**2, the second order of the beam-hardening
    polynomial; counts are Poisson of dose * gain * exp(-path).
    """
    rng = np.random.default_rng([settings["seed"], 1, index])
    wedge = settings["missing_wedge"]
    angles = wedge / 2 + np.linspace(0.0, 180.0 - wedge, settings["angles"], endpoint=wedge > 0)
    step_mm = settings["voxel_size_um"] * 1e-3
    path = radon(attenuation, angles, circle=True).astype(np.float64) * step_mm
    path -= settings["hardening"] * path**2
    transmitted = gaussian_filter(np.exp(-path), (settings["blur"], 0))
    counts = rng.poisson(settings["dose"] * detector_gain(settings, index)[:, None] * transmitted)
    sinogram = -np.log(np.maximum(counts, 1) / settings["dose"])
    return iradon(sinogram / step_mm, angles, filter_name="shepp-logan", circle=True).astype(np.float32)


def _make_slice(task: tuple[Any, dict[str, Any], int]) -> tuple[np.ndarray, np.ndarray]:
    sample, settings, index = task
    attenuation, truth = draw_slice(sample, settings, index)
    measure = SPECIMENS[settings["specimen"]].measure or measure_slice
    return measure(attenuation, settings, index), truth


def _slices(settings: dict[str, Any], workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reconstructed slice and truth, in order of z, whatever the number of workers."""
    depth = settings["size"][0]
    tasks = zip(repeat(make_sample(settings)), repeat(settings), range(depth), strict=False)
    workers = min(workers, depth)
    if workers == 1:
        yield from map(_make_slice, tasks)
        return
    # Spawned, not forked: the parent may hold open files and threads.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_make_slice, tasks, chunksize=4)


def _check(settings: dict[str, Any]) -> None:
    depth, height, width = settings["size"]
    if height != width:
        raise InputError(
            "phantom.size",
            f"slices of {height} x {width} pixels",
            "square slices: parallel-beam projections turn about the slice's centre",
            f"set size to [{depth}, {width}, {width}]",
        )
    specimen = SPECIMENS[settings["specimen"]]
    phases = specimen.attenuations(settings)
    if not min(phases.values()) > 0 or list(phases.values()) != sorted(set(phases.values())):
        raise InputError(
            f"phantom.{specimen.section}",
            ", ".join(f"{name} {value}" for name, value in phases.items()) + ("" if specimen.measure else " 1/mm"),
            f"0 < {' < '.join(phases)}, the order of the class names",
            "mend the grey levels" if specimen.measure else "mend the attenuations",
        )
    if specimen.measure:
        return
    longest = max(phases.values()) * width * settings["voxel_size_um"] * 1e-3
    if settings["hardening"] * 2 * longest >= 1:
        raise InputError(
            "phantom.hardening",
            f"{settings['hardening']} with paths up to {longest:.2f}",
            "a measured path that grows with the true one: hardening * 2 * path below 1",
            f"set hardening below {0.5 / longest:.3f}, or lower the attenuations",
        )


def _describe(file: h5py.File, data: h5py.Dataset, settings: dict[str, Any]) -> None:
    """What a Data Exchange file says of itself: the components, the data's meaning, the pixel on the detector."""
    size_um = settings["voxel_size_um"]
    specimen = SPECIMENS[settings["specimen"]]
    file.create_dataset("implements", data="exchange:measurement:process")
    data.attrs["units"] = "1" if specimen.measure else "1/mm"
    image = "brightness of the block face" if specimen.measure else "reconstructed linear attenuation coefficient"
    data.attrs["description"] = image
    data.attrs["axes"] = "z:y:x"
    data.attrs["voxel_size_um"] = [size_um] * 3
    data.attrs["voxel_size_units"] = "um"
    for name in ("detection_system/objective/resolution", "detector/pixel_size_x", "detector/pixel_size_y"):
        file.create_dataset(f"measurement/instrument/{name}", data=size_um).attrs["units"] = "um"
    file.create_dataset("measurement/sample/name", data=specimen.title)
    if specimen.measure:
        return
    file.create_dataset("process/reconstruction/algorithm", data="filtered back-projection, Shepp-Logan")
    file.create_dataset("process/acquisition/number_of_angles", data=settings["angles"])


def simulate(
    out: str | Path,
    truth_out: str | Path,
    settings: dict[str, Any],
    workers: int = 1,
    labels_out: str | Path | None = None,
) -> dict[str, Any]:
    """Write a simulated scan as Data Exchange HDF5, and its truth in a file of its own.

    Parameters
    ----------
    out : path
        `/exchange/data`, float32 (z, y, x), in 1/mm; 0 outside the reconstruction circle.
    truth_out : path
        `/truth`, uint8 (z, y, x), with the attribute `classes`.
    settings : dict
        The section `phantom`, filled from its schema.
    workers : int
        Processes; the result does not depend on it.
    labels_out : path, optional
        A copy of the truth that may be trained on (`labels: phantom`): the truth is opened by what measures alone.

    Returns
    -------
    dict
        `shape`; `classes`: for each class its `voxels` over the whole field and its `mean` grey value in 1/mm.

    Raises
    ------
    InputError
        For slices that are not square, attenuations out of order, or hardening beyond its polynomial's range.

    Notes
    -----
    Slices are made one at a time, so memory does not grow with depth. Equal settings give equal bytes, whatever
    `workers` is.
    """
    _check(settings)
    names = SPECIMENS[settings["specimen"]].classes
    shape = (settings["size"][0], settings["size"][1], settings["size"][2])
    voxels, sums = np.zeros(len(names), np.int64), np.zeros(len(names))
    with ExitStack() as stack:
        scan = stack.enter_context(h5py.File(stack.enter_context(atomic_path(out)), "w"))
        labels = stack.enter_context(h5py.File(stack.enter_context(atomic_path(truth_out)), "w"))
        chunks = (1, *shape[1:])
        data = scan.create_dataset("exchange/data", shape, "float32", chunks=chunks, track_times=False)
        truth = labels.create_dataset("truth", shape, "uint8", chunks=chunks, track_times=False)
        _describe(scan, data, settings)
        truth.attrs["classes"] = list(names)
        truth.attrs["axes"] = "z:y:x"
        progress = stack.enter_context(Progress(shape[0], "slices", "simulate"))
        for index, (grey, label) in enumerate(_slices(settings, workers)):
            data[index], truth[index] = grey, label
            voxels += np.bincount(label.ravel(), minlength=len(names))
            sums += np.bincount(label.ravel(), grey.ravel(), minlength=len(names))
            progress.update()
    if labels_out is not None:
        with atomic_path(labels_out) as temporary:
            shutil.copyfile(truth_out, temporary)
    per_class = zip(names, voxels.tolist(), (sums / np.maximum(voxels, 1)).tolist(), strict=True)
    classes = {name: {"voxels": count, "mean": mean} for name, count, mean in per_class}
    return {"shape": list(shape), "classes": classes}
