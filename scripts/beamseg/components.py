"""Small 3-D components: found block by block along z, merged over block faces, replaced by what surrounds them.

Two passes. The first labels each block of 8 slices, unites components that touch over a face, and leaves one table
per block: local component -> new class, or 255 to keep it. The second labels the block again, which gives the same
numbers, and looks them up. Memory holds one block and the components that touch a face.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label as connected_voxels

from .label_values import UNLABELLED
from .progress import Progress
from .provenance import atomic_path

BLOCK = 8  # slices; slabs start at multiples of 8, so a slab is made of whole blocks
KEEP = UNLABELLED


def label_block(labels: np.ndarray) -> np.ndarray:
    """Components of equal class, 6-connected, numbered from 1; 0 where `labels` is 255. (z, y, x) -> int."""
    return connected_voxels(labels + np.uint8(1), background=0, connectivity=1)  # 255 + 1 wraps to 0


def surrounding_votes(labels: np.ndarray, ids: np.ndarray, first: int, n_classes: int) -> np.ndarray:
    """How many faces of each component touch each other class.

    Parameters
    ----------
    labels : ndarray, uint8, (z + halo, y, x)
        The block with the slice before and after it where the volume has them.
    ids : ndarray, int, (z, y, x)
        Components of slices `first` … of `labels`.

    Returns
    -------
    ndarray, int64, (components + 1, n_classes)
    """
    n = int(ids.max()) + 1
    votes = np.zeros(n * n_classes, np.int64)
    core = labels[first : first + len(ids)]

    def add(own: np.ndarray, classes: np.ndarray, neighbours: np.ndarray) -> None:
        differs = (neighbours != classes) & (neighbours != UNLABELLED) & (classes != UNLABELLED)
        index = own[differs].astype(np.int64) * n_classes + neighbours[differs]
        votes[:] += np.bincount(index, minlength=len(votes))

    for axis in (1, 2):
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        add(ids[low], core[low], core[high])
        add(ids[high], core[high], core[low])
    for z in range(len(ids)):
        for other in (first + z - 1, first + z + 1):
            if 0 <= other < len(labels):
                add(ids[z], core[z], labels[other])
    return votes.reshape(n, n_classes)


def replacement(sizes: np.ndarray, votes: np.ndarray, min_voxels: int) -> np.ndarray:
    """New class of each component: the one it touches most if it is smaller than `min_voxels`, else `KEEP`.

    The lowest class id wins a tie; a component that touches no class is kept.
    """
    new = votes.argmax(1).astype(np.uint8)
    new[(sizes >= min_voxels) | (votes.sum(1) == 0)] = KEEP
    return new


class Faces:
    """Components of blocks that touch a face shared with another block, and which of them are one.

    Blocks are added in order of z. Memory holds those components and the last face.
    """

    def __init__(self) -> None:
        self.nodes: list[np.ndarray] = []  # per block: local ids of the components on a shared face
        self._edges: list[np.ndarray] = []
        self._count = self._previous = 0
        self._face = self._face_ids = np.empty((0, 0))

    def add(self, labels: np.ndarray, ids: np.ndarray, is_first: bool, is_last: bool) -> np.ndarray:
        """Local ids, ascending, of a block's components that touch a shared face.

        Parameters
        ----------
        labels : ndarray, uint8, (z, y, x)
        ids : ndarray, int, (z, y, x)
            Their components, as `label_block` numbers them.
        is_first, is_last : bool
            Whether the block begins or ends the volume.
        """
        faces = ([] if is_first else [ids[0]]) + ([] if is_last else [ids[-1]])
        nodes = np.unique(np.concatenate([f.ravel() for f in faces])) if faces else np.empty(0, ids.dtype)
        nodes = nodes[nodes > 0]
        if not is_first:
            same = (self._face == labels[0]) & (labels[0] != UNLABELLED)
            pairs = np.stack(
                [
                    self._previous + np.searchsorted(self.nodes[-1], self._face_ids[same]),
                    self._count + np.searchsorted(nodes, ids[0][same]),
                ]
            )
            self._edges.append(np.unique(pairs, axis=1))
        self.nodes.append(nodes)
        self._previous, self._count = self._count, self._count + len(nodes)
        self._face, self._face_ids = labels[-1].copy(), ids[-1].copy()
        return nodes

    def united(self) -> tuple[int, np.ndarray]:
        """How many components of the volume touch shared faces, and which of them each node, in order, belongs to."""
        if not self._count:
            return 0, np.empty(0, np.int64)
        links = np.concatenate(self._edges, axis=1)
        graph = coo_array((np.ones(links.shape[1], bool), (links[0], links[1])), shape=(self._count, self._count))
        return connected_components(graph, directed=False)


def small_components(
    read: Callable[[int, int], np.ndarray], n_slices: int, n_classes: int, min_voxels: int
) -> list[np.ndarray]:
    """First pass: what becomes of each component of each block.

    Parameters
    ----------
    read : callable
        `read(z0, z1)` -> labels, uint8, (z, y, x), 255 outside the field of view.
    n_slices, n_classes : int
    min_voxels : int
        Components smaller than this are replaced.

    Returns
    -------
    list of ndarray, uint8, (components + 1,)
        Per block of `BLOCK` slices: local component -> class, `KEEP` to leave it.
    """
    tables: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    votes: list[np.ndarray] = []
    faces = Faces()
    with Progress(n_slices, "slices", "components") as progress:
        for z0 in range(0, n_slices, BLOCK):
            z1, first = min(n_slices, z0 + BLOCK), min(z0, 1)
            labels = read(z0 - first, min(n_slices, z1 + 1))
            core = labels[first : first + z1 - z0]
            ids = label_block(core)
            size = np.bincount(ids.ravel())
            size[0] = 0
            vote = surrounding_votes(labels, ids, first, n_classes)
            tables.append(replacement(size, vote, min_voxels))
            tables[-1][0] = KEEP
            nodes = faces.add(core, ids, z0 == 0, z1 == n_slices)
            sizes.append(size[nodes])
            votes.append(vote[nodes])
            progress.update(z1 - z0)

    n_whole, whole = faces.united()
    if n_whole:
        total = np.zeros(n_whole, np.int64)
        np.add.at(total, whole, np.concatenate(sizes))
        around = np.zeros((n_whole, n_classes), np.int64)
        np.add.at(around, whole, np.concatenate(votes))
        new = replacement(total, around, min_voxels)[whole]
        borders = np.cumsum([len(nodes) for nodes in faces.nodes])[:-1]
        for table, nodes, classes in zip(tables, faces.nodes, np.split(new, borders), strict=True):
            table[nodes] = classes
    return tables


@dataclass
class Sizes:
    """Components of one class: how many there are of each size, and how much of it spans the volume.

    `of` is voxels -> number of components; `spanning` (3,) are the voxels of components that touch both ends of the
    z, y and x axis.
    """

    of: Counter[int]
    spanning: np.ndarray

    def add(self, sizes: np.ndarray, ends: np.ndarray) -> None:
        """Count components of so many voxels that touch the given ends (bits, `ENDS`)."""
        for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
            self.of[int(size)] += int(count)
        for axis in range(3):
            both = 3 << 2 * axis
            self.spanning[axis] += sizes[ends & both == both].sum()


ENDS = [(axis, index, 1 << 2 * axis + bit) for axis in range(3) for bit, index in enumerate((0, -1))]
"""Axis, index along it and bit of the volume's ends."""


def component_sizes(
    read: Callable[[int, int], np.ndarray], n_slices: int, n_classes: int, step: int = BLOCK
) -> list[Sizes]:
    """Sizes of the 6-connected components of each class, over the whole volume.

    Parameters
    ----------
    read : callable
        `read(z0, z1)` -> labels, uint8, (z, y, x), 255 outside the field of view.
    n_slices, n_classes : int
    step : int
        Slices of a block; the result does not depend on it.
    """
    found = [Sizes(Counter(), np.zeros(3, np.int64)) for _ in range(n_classes)]
    open_sizes, open_classes, open_ends = [], [], []
    faces = Faces()
    for z0 in range(0, n_slices, step):
        z1 = min(n_slices, z0 + step)
        labels = read(z0, z1)
        ids = label_block(labels)
        size = np.bincount(ids.ravel())
        classes = np.full(len(size), UNLABELLED, np.uint8)
        classes[ids.ravel()] = labels.ravel()
        ends = np.zeros(len(size), np.uint8)
        for axis, index, bit in ENDS:
            if axis or (z0 == 0 if index == 0 else z1 == n_slices):
                ends[np.unique(ids.take(index, axis))] |= bit
        nodes = faces.add(labels, ids, z0 == 0, z1 == n_slices)
        open_sizes.append(size[nodes])
        open_classes.append(classes[nodes])
        open_ends.append(ends[nodes])
        size[nodes] = 0
        for k in range(n_classes):
            closed = (classes == k) & (size > 0)
            found[k].add(size[closed], ends[closed])
    n_whole, whole = faces.united()
    if n_whole:
        total = np.zeros(n_whole, np.int64)
        np.add.at(total, whole, np.concatenate(open_sizes))
        ends = np.zeros(n_whole, np.uint8)
        np.bitwise_or.at(ends, whole, np.concatenate(open_ends))
        classes = np.zeros(n_whole, np.uint8)
        classes[whole] = np.concatenate(open_classes)
        for k in range(n_classes):
            found[k].add(total[classes == k], ends[classes == k])
    return found


def replace_small(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Second pass over one block: labels (z, y, x) with its small components replaced."""
    new = table[label_block(labels)]
    return np.where(new == KEEP, labels, new)


def cached_tables(path: Path, identity: str, compute: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """Tables of the first pass from a file that bears `identity`, else computed and left there.

    Every part needs the tables of the whole volume: the first part that runs computes them for all.
    """
    if path.exists():
        with np.load(path) as file:
            if str(file["identity"]) == identity:
                return np.split(file["tables"], file["borders"])
    tables = compute()
    borders = np.cumsum([len(table) for table in tables])[:-1]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, identity=np.array(identity), tables=np.concatenate(tables), borders=borders)
    return tables
