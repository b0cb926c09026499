"""Surfaces of the classes as triangles, PLY or STL, block by block."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from skimage.measure import marching_cubes

from ..palette import rgb
from ..provenance import atomic_path
from ..volumes import Volume
from .labels import Labels

NAME = re.compile(r"class_\d+\.(ply|stl)")
LONGEST = 512  # voxels: larger volumes are thinned, else no program opens their triangles
BYTES = 40  # per voxel of a block: a mask, what marching cubes makes of it, and triangles of a rough surface
VERTEX = np.dtype([("xyz", "<f4", 3), ("colour", "u1", 3)])
FACE = np.dtype([("n", "u1"), ("vertices", "<u4", 3)])
TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


class Thinned:
    """Every `stride`-th voxel of a volume along each axis, as a volume."""

    def __init__(self, volume: Volume, stride: int) -> None:
        self.volume, self.stride = volume, stride
        z, y, x = (-(-n // stride) for n in volume.shape)
        self.shape = (z, y, x)

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Slices z0 … z1 and the window y, x of what is left."""
        step = self.stride
        return self.volume.read(z0 * step, z1 * step)[::step, ::step, ::step][:, y, x]


@dataclass(frozen=True)
class Piece:
    """Triangles of one block.

    `vertices` (n, 3) are x, y, z in voxels, float32; `numbers` (n,) count them over the whole surface; `is_new` (n,)
    is False for those of the block before; `faces` (m, 3) index `vertices`, anticlockwise seen from outside.
    """

    vertices: np.ndarray
    numbers: np.ndarray
    is_new: np.ndarray
    faces: np.ndarray


def pieces(labels: Labels, class_id: int, what: str = "surface", stride: int = 1) -> Iterator[Piece]:
    """The surface of a class, block by block: marching cubes (Lewiner et al. 2003) halfway between voxels.

    Blocks share a slice, and the vertices in it are joined, so that the triangles are those of the whole volume, and
    closed: beyond its borders nothing is of the class. `stride` is how far the volume was thinned.
    """
    depth, height, width = labels.shape
    last = np.zeros((height + 2, width + 2), bool)
    shared_keys, shared_numbers = np.empty(0, np.int64), np.empty(0, np.int64)
    count = 0
    for z0, block in labels.blocks(what, BYTES * stride**3):
        end = z0 + len(block) == depth
        mask = np.zeros((len(block) + 1 + end, height + 2, width + 2), bool)
        mask[0] = last
        mask[1 : len(block) + 1, 1:-1, 1:-1] = block == class_id
        last = mask[len(block)].copy()
        if not mask.any():
            shared_keys, shared_numbers = np.empty(0, np.int64), np.empty(0, np.int64)
            continue
        # Faces are clockwise in z, y, x, so anticlockwise in x, y, z, which is its mirror image.
        found, faces, _, _ = marching_cubes(mask, 0.5)
        # Vertices in a shared slice lie halfway between two voxels of it: twice their place is a whole number.
        keys = np.rint(2 * found[:, 1]).astype(np.int64) * (2 * width + 4) + np.rint(2 * found[:, 2]).astype(np.int64)
        numbers = np.full(len(found), -1, np.int64)
        old = found[:, 0] == 0
        numbers[old] = shared_numbers[np.searchsorted(shared_keys, keys[old])]
        numbers[~old] = count + np.arange(np.count_nonzero(~old))
        count += int(np.count_nonzero(~old))
        shared = np.flatnonzero(found[:, 0] == len(block))
        shared = shared[np.argsort(keys[shared])]
        shared_keys, shared_numbers = keys[shared], numbers[shared]
        corner = np.array([z0 - 1, -1, -1], np.float32)
        yield Piece((found + corner)[:, ::-1], numbers, ~old, faces)


def write_ply(labels: Labels, folder: Path) -> None:
    """Write `class_<id>.ply` of every class with voxels: binary, its colour on the vertices, coordinates in µm.

    A volume of more than 512 voxels along a side is thinned first, by a whole number.
    """
    _write(labels, folder, "ply", _ply)


def write_stl(labels: Labels, folder: Path) -> None:
    """Write `class_<id>.stl` of every class with voxels: binary, coordinates in µm; thinned as PLY is."""
    _write(labels, folder, "stl", _stl)


def _write(
    labels: Labels,
    folder: Path,
    kind: str,
    writer: Callable[[IO[bytes], Iterator[Piece], np.ndarray, dict[str, Any], str], None],
) -> None:
    stride = -(-max(labels.shape) // LONGEST)
    labels = replace(labels, volume=Thinned(labels.volume, stride))
    present = np.zeros(256, bool)
    for _, block in labels.blocks(kind, BYTES * stride**3):
        present |= np.bincount(block.ravel(), minlength=256) > 0
    sizes = (1, 1, 1) if labels.voxel_size_um is None else labels.voxel_size_um
    scale = np.array(sizes, np.float32)[::-1] * stride
    unit = "voxels" if labels.voxel_size_um is None else "micrometres"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if NAME.fullmatch(path.name):
            path.unlink()
    for row in labels.table:
        if present[row["id"]]:
            with atomic_path(folder / f"class_{row['id']}.{kind}") as temporary, open(temporary, "wb") as file:
                writer(file, pieces(labels, row["id"], f"{kind} {row['name']}", stride), scale, row, unit)


def _ply(file: IO[bytes], found: Iterator[Piece], scale: np.ndarray, row: dict[str, Any], unit: str) -> None:
    n_vertices = n_faces = 0
    folder = Path(file.name).parent
    with tempfile.TemporaryFile(dir=folder) as vertices, tempfile.TemporaryFile(dir=folder) as faces:
        for piece in found:
            points = np.zeros(np.count_nonzero(piece.is_new), VERTEX)
            points["xyz"] = piece.vertices[piece.is_new] * scale
            points["colour"] = rgb(row["colour"])
            triangles = np.zeros(len(piece.faces), FACE)
            triangles["n"] = 3
            triangles["vertices"] = piece.numbers[piece.faces]
            vertices.write(points.tobytes())
            faces.write(triangles.tobytes())
            n_vertices += len(points)
            n_faces += len(triangles)
        lines = ["ply", "format binary_little_endian 1.0"]
        lines += [f"comment {row['name']}, in {unit}", f"element vertex {n_vertices}"]
        lines += [f"property float {axis}" for axis in "xyz"]
        lines += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
        lines += [f"element face {n_faces}", "property list uchar uint vertex_indices", "end_header", ""]
        file.write("\n".join(lines).encode("ascii", "replace"))
        for part in (vertices, faces):
            part.seek(0)
            shutil.copyfileobj(part, file)


def _stl(file: IO[bytes], found: Iterator[Piece], scale: np.ndarray, row: dict[str, Any], unit: str) -> None:
    file.write(f"beamseg {row['name']}, in {unit}".encode("ascii", "replace")[:80].ljust(80))
    file.write(bytes(4))
    count = 0
    for piece in found:
        triangles = np.zeros(len(piece.faces), TRIANGLE)
        corners = (piece.vertices * scale)[piece.faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        triangles["normal"] = normal / np.where(length > 0, length, 1)
        triangles["corners"] = corners
        file.write(triangles.tobytes())
        count += len(triangles)
    file.seek(80)
    file.write(count.to_bytes(4, "little"))
