"""The embedded scan: a crystal with intergrowth sheets, measured and reconstructed as a beamline does it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.transform import iradon, radon
from tqdm import tqdm

from beamseg.errors import InputError
from beamseg.provenance import atomic_path

CLASSES = ("background", "matrix", "intergrowth", "boundary")
BACKGROUND, MATRIX, INTERGROWTH, BOUNDARY = range(4)


@dataclass(frozen=True)
class Waves:
    """A smooth random field, a sum of plane cosines: known anywhere from a few numbers, so no volume is ever held."""

    vectors: np.ndarray  # (n, 3), radians per voxel along z, y, x
    phases: np.ndarray  # (n,)
    mean: float = 0.0
    std: float = 1.0

    def __call__(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Value at the points z, y, x (voxels from the centre)."""
        total = np.zeros(np.broadcast(z, y, x).shape)
        for (kz, ky, kx), phase in zip(self.vectors, self.phases, strict=True):
            total += np.cos(kz * z + ky * y + kx * x + phase)
        return (total - self.mean) / self.std


@dataclass(frozen=True)
class Sheets:
    """The intergrowth sheets; every array has one entry per sheet, lengths are in voxels."""

    normals: np.ndarray  # (n, 3), unit vectors z, y, x
    offsets: np.ndarray  # distance from the centre along the normal
    thicknesses: np.ndarray
    strengths: np.ndarray  # contrast over the matrix, 1 is nominal
    bends: np.ndarray  # (n, 3): amplitude, wavelength, phase of the curve along the sheet
    extents: np.ndarray  # (n, 4): centre and half-axis of the sheet along its own horizontal, and along z


@dataclass(frozen=True)
class Sample:
    """The specimen as formulas, in voxels from the volume's centre."""

    faces: np.ndarray  # (n, 4): unit normal z, y, x and distance of each cleaved face
    reach: float  # nothing lies farther from the axis of rotation
    roughness: Waves
    sheets: Sheets
    voids: np.ndarray  # (n, 6): centre and half-axes, z, y, x
    drift: Waves


def _waves(rng: np.random.Generator, count: int, shortest: float, longest: float, deviation: float) -> Waves:
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = rng.uniform(shortest, longest, size=(count, 1))
    return Waves(
        2 * np.pi * directions / lengths, rng.uniform(0, 2 * np.pi, count), 0.0, np.sqrt(count / 2) / deviation
    )


def _normals(azimuth: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(tilt), np.cos(tilt) * np.sin(azimuth), np.cos(tilt) * np.cos(azimuth)], axis=-1)


def make_sample(settings: dict[str, Any]) -> Sample:
    """Draw the specimen; it depends on `size`, `n_sheets` and `seed` alone.

    Parameters
    ----------
    settings : dict
        The section `phantom` of the configuration.

    Returns
    -------
    Sample
        A cleaved crystal that lies inside the reconstruction circle.
    """
    depth, width = settings["size"][0], settings["size"][1]
    radius = width / 2
    rng = np.random.default_rng([settings["seed"], 0])
    n_faces = 7
    azimuth = (np.arange(n_faces) + rng.uniform(-0.25, 0.25, n_faces)) * 2 * np.pi / n_faces + rng.uniform(0, 2 * np.pi)
    distance = radius * rng.uniform(0.66, 0.80, n_faces)
    faces = np.concatenate([_normals(azimuth, rng.uniform(-0.2, 0.2, n_faces)), distance[:, None]], axis=1)

    count = max(3, round(width / 18)) if settings["n_sheets"] is None else settings["n_sheets"]
    family = rng.uniform(0, np.pi)
    # Most sheets follow one lattice plane; one in five lies across it.
    across = (np.arange(count) % 5 == 4) * rng.uniform(0.9, 1.4)
    span = [radius, radius, depth, depth]
    place = (np.arange(count) + rng.uniform(0.2, 0.8, count)) / max(count, 1)
    sheets = Sheets(
        normals=_normals(family + across + rng.normal(0, 0.06, count), rng.normal(0.15, 0.1, count)),
        offsets=1.44 * radius * (place - 0.5),
        thicknesses=rng.uniform(3.0, 6.0, count),
        strengths=rng.uniform(0.9, 1.1, count),
        bends=rng.uniform([0.02, 1.2, 0], [0.06, 3.0, 2 * np.pi], (count, 3)) * [radius, radius, 1],
        extents=rng.uniform([-0.25, 0.45, -0.3, 0.6], [0.25, 0.95, 0.3, 1.2], (count, 4)) * span,
    )
    n_voids = max(2, round(depth * width**2 / 200_000))
    angle, reach = rng.uniform(0, 2 * np.pi, n_voids), 0.6 * radius * np.sqrt(rng.uniform(0, 1, n_voids))
    centres = [rng.uniform(-0.5, 0.5, n_voids) * depth, reach * np.sin(angle), reach * np.cos(angle)]
    voids = np.stack([*centres, *(rng.uniform(0.02, 0.06, (3, n_voids)) * radius + 1.5)], axis=1)
    drift = _waves(rng, 8, 0.6 * width, 1.5 * width, 1.0)
    roughness = _waves(rng, 6, 0.15 * width, 0.5 * width, 0.012 * radius)
    sample = Sample(faces, 0.94 * radius, roughness, sheets, voids, drift)
    # Mean 0 and standard deviation 1 inside the crystal, so that the setting means the same for every seed.
    plane = np.linspace(-radius, radius, 32)
    grid = np.meshgrid(np.linspace(-0.5, 0.5, 8) * depth, plane, plane, indexing="ij", sparse=True)
    values = drift(*grid)[_crystal_distance(sample, *grid) < 0]
    centred = Waves(drift.vectors, drift.phases, values.mean() * drift.std, values.std() * drift.std)
    return replace(sample, drift=centred)


def _crystal_distance(sample: Sample, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Signed distance to the crystal's surface in voxels, negative inside."""
    distance = np.full(np.broadcast(z, y, x).shape, -np.inf)
    for nz, ny, nx, offset in sample.faces:
        np.maximum(distance, nz * z + ny * y + nx * x - offset, out=distance)
    distance += sample.roughness(z, y, x)
    # Sharp corners are cut: whatever left the circle would be reconstructed as streaks.
    return np.maximum(distance, np.hypot(y, x) - sample.reach)


def _sheet_fraction(sheets: Sheets, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of each voxel that lies in a sheet, 0 … 1, and the sheet's strength there."""
    fraction = np.zeros(np.broadcast(z, y, x).shape)
    strength = np.ones_like(fraction)
    for i in range(len(sheets.offsets)):
        nz, ny, nx = sheets.normals[i]
        level = np.hypot(ny, nx)
        along = (-nx * y + ny * x) / level
        amplitude, wavelength, phase = sheets.bends[i]
        bend = amplitude * np.sin(2 * np.pi * (along + 0.25 * z) / wavelength + phase)
        distance = np.abs(nz * z + ny * y + nx * x - sheets.offsets[i] - bend)
        along_0, along_r, z_0, z_r = sheets.extents[i]
        rim = 1 - ((along - along_0) / along_r) ** 2 - ((z - z_0) / z_r) ** 2
        # A sheet thins out towards its rim, as a lens does.
        half = 0.5 * sheets.thicknesses[i] * np.sqrt(np.clip(4 * rim, 0, 1))
        here = np.clip(0.5 + half - distance, 0, 1) * (half > 0)
        strength = np.where(here > fraction, sheets.strengths[i], strength)
        fraction = np.maximum(fraction, here)
    return fraction, strength


def draw_slice(sample: Sample, settings: dict[str, Any], index: int) -> tuple[np.ndarray, np.ndarray]:
    """One slice of the specimen.

    Parameters
    ----------
    sample : Sample
        From `make_sample`.
    settings : dict
        The section `phantom`.
    index : int
        The slice, 0 … nz - 1.

    Returns
    -------
    attenuation : ndarray, float32, (y, x)
        Linear attenuation coefficient in 1/mm, with partial volume at the borders.
    truth : ndarray, uint8, (y, x)
        Index into `CLASSES`, by the phase that fills most of the voxel.
    """
    depth, width = settings["size"][0], settings["size"][1]
    y, x = np.meshgrid(*(np.arange(width) - width // 2,) * 2, indexing="ij", sparse=True)
    z = np.asarray(index - depth / 2)
    distance = _crystal_distance(sample, z, y, x)
    solid = np.clip(0.5 - distance, 0, 1)
    for cz, cy, cx, rz, ry, rx in sample.voids:
        radial = np.sqrt(((z - cz) / rz) ** 2 + ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2)
        solid = np.minimum(solid, np.clip(0.5 + (radial - 1) * min(ry, rx), 0, 1))
    shell = np.clip(0.5 + distance + settings["boundary_voxels"], 0, 1)
    sheet, strength = _sheet_fraction(sample.sheets, z, y, x)

    phases = settings["attenuation"]
    inner = phases["matrix"] + sheet * strength * (phases["intergrowth"] - phases["matrix"])
    attenuation = solid * (inner + shell * (phases["boundary"] - inner))
    attenuation *= 1 + settings["drift"] * sample.drift(z, y, x)

    truth = np.full((width, width), MATRIX, np.uint8)
    truth[sheet > 0.5] = INTERGROWTH
    truth[shell > 0.5] = BOUNDARY
    truth[solid <= 0.5] = BACKGROUND
    return attenuation.astype(np.float32), truth


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
    angles = np.linspace(0.0, 180.0, settings["angles"], endpoint=False)
    step_mm = settings["voxel_size_um"] * 1e-3
    path = radon(attenuation, angles, circle=True).astype(np.float64) * step_mm
    path -= settings["hardening"] * path**2
    transmitted = gaussian_filter(np.exp(-path), (settings["blur"], 0))
    counts = rng.poisson(settings["dose"] * detector_gain(settings, index)[:, None] * transmitted)
    sinogram = -np.log(np.maximum(counts, 1) / settings["dose"])
    return iradon(sinogram / step_mm, angles, filter_name="shepp-logan", circle=True).astype(np.float32)


def _make_slice(task: tuple[Sample, dict[str, Any], int]) -> tuple[np.ndarray, np.ndarray]:
    sample, settings, index = task
    attenuation, truth = draw_slice(sample, settings, index)
    return measure_slice(attenuation, settings, index), truth


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
    phases = settings["attenuation"]
    if not 0 < phases["matrix"] < phases["intergrowth"] < phases["boundary"]:
        raise InputError(
            "phantom.attenuation",
            f"matrix {phases['matrix']}, intergrowth {phases['intergrowth']}, boundary {phases['boundary']} 1/mm",
            "0 < matrix < intergrowth < boundary, the order of the class names",
            "mend the three attenuations",
        )
    longest = phases["boundary"] * width * settings["voxel_size_um"] * 1e-3
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
    file.create_dataset("implements", data="exchange:measurement:process")
    data.attrs["units"] = "1/mm"
    data.attrs["description"] = "reconstructed linear attenuation coefficient"
    data.attrs["axes"] = "z:y:x"
    data.attrs["voxel_size_um"] = [size_um] * 3
    data.attrs["voxel_size_units"] = "um"
    for name in ("detection_system/objective/resolution", "detector/pixel_size_x", "detector/pixel_size_y"):
        file.create_dataset(f"measurement/instrument/{name}", data=size_um).attrs["units"] = "um"
    file.create_dataset("measurement/sample/name", data="simulated crystal with intergrowth sheets")
    file.create_dataset("process/reconstruction/algorithm", data="filtered back-projection, Shepp-Logan")
    file.create_dataset("process/acquisition/number_of_angles", data=settings["angles"])


def simulate(out: str | Path, truth_out: str | Path, settings: dict[str, Any], workers: int = 1) -> dict[str, Any]:
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
    shape = (settings["size"][0], settings["size"][1], settings["size"][2])
    voxels, sums = np.zeros(len(CLASSES), np.int64), np.zeros(len(CLASSES))
    with ExitStack() as stack:
        scan = stack.enter_context(h5py.File(stack.enter_context(atomic_path(out)), "w"))
        labels = stack.enter_context(h5py.File(stack.enter_context(atomic_path(truth_out)), "w"))
        chunks = (1, *shape[1:])
        data = scan.create_dataset("exchange/data", shape, "float32", chunks=chunks, track_times=False)
        truth = labels.create_dataset("truth", shape, "uint8", chunks=chunks, track_times=False)
        _describe(scan, data, settings)
        truth.attrs["classes"] = list(CLASSES)
        truth.attrs["axes"] = "z:y:x"
        slices = tqdm(_slices(settings, workers), desc="simulate", total=shape[0], unit="slice", mininterval=5)
        for index, (grey, label) in enumerate(slices):
            data[index], truth[index] = grey, label
            voxels += np.bincount(label.ravel(), minlength=len(CLASSES))
            sums += np.bincount(label.ravel(), grey.ravel(), minlength=len(CLASSES))
    per_class = zip(CLASSES, voxels.tolist(), (sums / np.maximum(voxels, 1)).tolist(), strict=True)
    classes = {name: {"voxels": count, "mean": mean} for name, count, mean in per_class}
    return {"shape": list(shape), "classes": classes}
