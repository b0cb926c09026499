"""Random crops of stacks of adjacent slices; which crop is a function of (seed, step, index) alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, Full, Queue

import numpy as np

from .errors import InputError
from .label_values import SUGGESTED, UNLABELLED
from .volumes import OUTSIDE, Volume, in_memory

TRIES = 8
ANCHORS = 20_000
"""Painted pixels per class among which crops are placed; of more, so many are drawn."""
STREAMS = {"slices": 0, "crop": 1, "weak": 2, "strong": 3, "torch": 4, "watch": 5, "warp": 6, "pixels": 7}


def keyed_rng(seed: int, stream: str, *key: int) -> np.random.Generator:
    """A generator that is a function of its key: no state to save, no order to keep."""
    return np.random.default_rng([seed, STREAMS[stream], *key])


def reflect_indices(start: int, stop: int, size: int) -> np.ndarray:
    """Indices start … stop folded into 0 … size − 1 by reflection that does not repeat the edge."""
    if size == 1:
        return np.zeros(stop - start, dtype=np.intp)
    index = np.abs(np.arange(start, stop)) % (2 * size - 2)
    return np.where(index < size, index, 2 * size - 2 - index)


def read_stack(
    volume: Volume, z: int, n_slices: int, window: tuple[slice, slice] = (slice(None), slice(None))
) -> np.ndarray:
    """The `n_slices` (odd) slices around z in a window; beyond the ends the end slice is repeated."""
    half = n_slices // 2
    z0, z1 = max(0, z - half), min(volume.shape[0], z + half + 1)
    block = volume.read(z0, z1, *window)
    wanted = np.clip(np.arange(z - half, z + half + 1), 0, volume.shape[0] - 1) - z0
    return block if len(block) == n_slices else block[wanted]


def read_window(volume: Volume, z: int, n_slices: int, y0: int, x0: int, size: int) -> np.ndarray:
    """A stack (n_slices, size, size) whose window may reach over the border; there it is reflected."""
    _, height, width = volume.shape
    y, x = reflect_indices(y0, y0 + size, height), reflect_indices(x0, x0 + size, width)
    window = slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1)
    stack = read_stack(volume, z, n_slices, window)
    if stack.shape[1:] == (size, size):
        return stack
    return stack[:, y[:, None] - window[0].start, x[None, :] - window[1].start]


def painted_places(labels: Sequence[Volume], seed: int) -> list[np.ndarray]:
    """Painted pixels by class: per class that occurs, int32 (n, 4) of volume, z, y, x; a sample of `ANCHORS` at most.

    Parameters
    ----------
    labels : sequence of Volume
        uint8, 255 unlabelled. Where one has `slices`, only those are read.
    """
    found: dict[int, list[np.ndarray]] = {}
    slices = [(i, int(z)) for i, v in enumerate(labels) for z in getattr(v, "slices", range(v.shape[0]))]
    most = max(1, ANCHORS // max(1, len(slices)))
    for volume, z in slices:
        plane = labels[volume].read(z, z + 1)[0]
        rng = keyed_rng(seed, "pixels", volume, z)
        for label in np.unique(plane[plane < SUGGESTED]).tolist():
            places = np.argwhere(plane == label)
            places = rng.permutation(places)[:most] if len(places) > most else places
            where = np.broadcast_to([volume, z], (len(places), 2))
            found.setdefault(label, []).append(np.hstack([where, places]).astype(np.int32))
    return [np.concatenate(found[label]) for label in sorted(found)]


def labelled_slices(labels: Sequence[Volume | None], n_classes: int) -> list[tuple[int, int]]:
    """(volume, z) of every slice in which the user labelled a pixel.

    Raises
    ------
    InputError
        If a label is neither a class nor 255.
    """
    found = []
    for number, volume in enumerate(labels):
        if volume is None:
            continue
        for z in getattr(volume, "slices", range(volume.shape[0])):
            plane = volume.read(z, z + 1)
            classes = plane[plane != UNLABELLED]
            if classes.size and classes.max() >= n_classes:
                raise InputError(
                    f"labels of training scan {number}",
                    f"label {classes.max()} in slice {z}",
                    f"0 … {n_classes - 1}, or 255 for unlabelled",
                    "renumber the labels, or set 255 for pixels without a label",
                )
            if classes.size:
                found.append((number, int(z)))
    return found


@dataclass
class Crops:
    """Crops of one or several volumes.

    Parameters
    ----------
    volumes : sequence of Volume
        uint16 grey levels, 0 outside the field of view.
    labels : sequence of Volume or None
        uint8 labels of the same shapes, 255 unlabelled; None where there are none, then all are 255.
    n_slices : int
        Slices per stack, odd.
    size : int
        Edge of the square crop in pixels.
    batch : int
        Crops per step.
    seed : int
    mem_budget_mb : float
        Volumes that fit together are held in memory, else windows are read.
    mine : slice, optional
        Crops of a batch that are read; by default all.
    labelled : sequence of (volume, z)
        Labelled slices, of which the first crops of every batch are.
    labelled_share : float
        Share of the batch that they are, one crop at least; of 1, crops are of labelled slices alone.
    anchors : sequence of ndarray
        As `painted_places` gives them: labelled crops hold one of these pixels, its class being drawn first, so that
        a few painted pixels are in every step and a rare class is seen. Empty: anywhere in the slice.
    anchored : float
        Share of the labelled crops that do; the others lie anywhere in their slice.

    Notes
    -----
    Slices are visited in a new order each epoch, each once, over all volumes; where `labelled` is given, those slices
    and the others each have epochs of their own. A crop lies inside the slice where it
    fits; up to eight places are tried until its centre is in the field of view.
    """

    volumes: Sequence[Volume]
    labels: Sequence[Volume] | None
    n_slices: int
    size: int
    batch: int
    seed: int
    mem_budget_mb: float
    mine: slice | None = None
    labelled: Sequence[tuple[int, int]] = ()
    labelled_share: float = 1.0
    anchors: Sequence[np.ndarray] = ()
    anchored: float = 1.0
    in_memory: bool = field(init=False)

    def __post_init__(self) -> None:
        itemsize = 2 if self.labels is None else 3
        total_mb = sum(np.prod(v.shape, dtype=float) for v in self.volumes) * itemsize / 2**20
        self.in_memory = total_mb <= self.mem_budget_mb
        if self.in_memory:
            self.volumes = [in_memory(v, self.mem_budget_mb) for v in self.volumes]
            if self.labels is not None:
                self.labels = [in_memory(v, self.mem_budget_mb, 1) for v in self.labels]
        everything = [(i, z) for i, v in enumerate(self.volumes) for z in range(v.shape[0])]
        if self.anchors and not self.labelled:
            self.labelled = [(int(i), int(z)) for i, z in np.unique(np.concatenate(self.anchors)[:, :2], axis=0)]
        first = set(self.labelled)
        others = [place for place in everything if place not in first]
        self._pools = [list(self.labelled), others]
        self._n_labelled = 0
        if first:
            wanted = max(1, round(self.labelled_share * self.batch))
            self._n_labelled = self.batch if not others else min(self.batch, wanted)
        self._epochs = [-1, -1]
        self._orders = [np.empty(0, dtype=np.intp)] * 2

    @property
    def epoch_slices(self) -> int:
        """Slices of an epoch: all, or the labelled ones where crops are of those alone."""
        return sum(len(pool) for pool in (self._pools[:1] if self._n_labelled == self.batch else self._pools))

    def place(self, step: int, index: int) -> tuple[int, int]:
        """Volume and slice of a crop."""
        n = self._n_labelled
        which, number = (0, step * n + index) if index < n else (1, step * (self.batch - n) + index - n)
        pool = self._pools[which]
        epoch, position = divmod(number, len(pool))
        if epoch != self._epochs[which]:
            key = (epoch,) if which else (epoch, 1)
            self._orders[which] = keyed_rng(self.seed, "slices", *key).permutation(len(pool))
            self._epochs[which] = epoch
        return pool[int(self._orders[which][position])]

    def crop(self, step: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Grey levels uint16 (n_slices, size, size) and the labels uint8 (size, size) of the middle slice."""
        rng = keyed_rng(self.seed, "crop", step, index)
        if self.anchors and index < round(self.anchored * self._n_labelled):
            which, z, y0, x0 = self._around_anchor(rng)
            volume = self.volumes[which]
            stack = read_window(volume, z, self.n_slices, y0, x0, self.size)
        else:
            which, z = self.place(step, index)
            volume = self.volumes[which]
            for _ in range(TRIES):
                y0, x0 = (_start(rng, extent, self.size) for extent in volume.shape[1:])
                stack = read_window(volume, z, self.n_slices, y0, x0, self.size)
                if stack[self.n_slices // 2, self.size // 2, self.size // 2] != OUTSIDE:
                    break
        if self.labels is None:
            return stack, np.full((self.size, self.size), UNLABELLED, dtype=np.uint8)
        return stack, read_window(self.labels[which], z, 1, y0, x0, self.size)[0]

    def _around_anchor(self, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Volume, slice, and first row and column of a crop that holds a painted pixel."""
        places = self.anchors[int(rng.integers(len(self.anchors)))]
        which, z, y, x = places[rng.integers(len(places))].tolist()
        extents = self.volumes[which].shape[1:]
        y0, x0 = (_around(rng, p, n, self.size) for p, n in zip((y, x), extents, strict=True))
        return which, z, y0, x0

    def sources(self, step: int) -> np.ndarray:
        """Number of the voxel, counted over all volumes, that each pixel of a step's crops is; int64 (batch, y, x).

        Nothing is read. Of crops that all lie around painted pixels (`anchored` and `labelled_share` are 1).
        """
        before = np.cumsum([0, *(np.prod(v.shape, dtype=np.int64) for v in self.volumes)])
        found = []
        for index in range(self.batch)[self.mine or slice(None)]:
            which, z, y0, x0 = self._around_anchor(keyed_rng(self.seed, "crop", step, index))
            _, height, width = self.volumes[which].shape
            y, x = (reflect_indices(a, a + self.size, n) for a, n in ((y0, height), (x0, width)))
            found.append(before[which] + (z * height + y[:, None]) * width + x)
        return np.stack(found)

    def step(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch of a step: grey uint16 (batch, n_slices, size, size), labels uint8 (batch, size, size)."""
        pairs = [self.crop(step, index) for index in range(self.batch)[self.mine or slice(None)]]
        return np.stack([stack for stack, _ in pairs]), np.stack([label for _, label in pairs])

    def steps(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of steps start … stop; read ahead by a thread where the volumes are not in memory."""
        if self.in_memory:
            yield from (self.step(step) for step in range(start, stop))
            return
        ready: Queue[tuple[np.ndarray, np.ndarray] | BaseException] = Queue(maxsize=4)
        ended = threading.Event()

        def put(item: tuple[np.ndarray, np.ndarray] | BaseException) -> None:
            while not ended.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    return
                except Full:
                    continue

        def read_ahead() -> None:
            try:
                for step in range(start, stop):
                    put(self.step(step))
                    if ended.is_set():
                        return
            except BaseException as error:  # handed to the consumer, which raises it
                put(error)

        thread = threading.Thread(target=read_ahead, daemon=True)
        thread.start()
        try:
            for _ in range(start, stop):
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            ended.set()
            while True:
                try:
                    ready.get_nowait()
                except Empty:
                    break
            thread.join()


def _around(rng: np.random.Generator, pixel: int, extent: int, size: int) -> int:
    """First pixel of a crop that holds `pixel` anywhere in it, inside the slice as far as that is wide enough."""
    slack = extent - size
    return min(max(pixel - int(rng.integers(size)), 0), slack) if slack > 0 else slack // 2


def _start(rng: np.random.Generator, extent: int, size: int) -> int:
    """First pixel of a crop: anywhere inside, or centred where the slice is smaller than the crop."""
    slack = extent - size
    return int(rng.integers(slack + 1)) if slack > 0 else slack // 2
