"""What every writer is given: the labels block by block, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..progress import Progress
from ..volumes import Volume, block_depth

ALIGN = 32  # slices of a block, where so many fit: the depth of the chunks that are written
BYTES = 12  # per voxel of a block: clusters, their lookup, class ids, and once more in a writer


@dataclass
class Labels:
    """Labels to be exported.

    `volume` gives uint8 class ids, 255 outside the field of view; `table` is the class table [{id, name, colour,
    clusters}]; `voxel_size_um` is (z, y, x) or None; `digest` is of all labels.
    """

    volume: Volume
    table: list[dict[str, Any]]
    voxel_size_um: Sequence[float] | None
    mem_budget_mb: float
    digest: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.volume.shape

    def blocks(
        self, what: str, bytes_per_voxel: int = BYTES, cut: int | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """First slice and labels (z, y, x) of every block, in order; `what` names the progress.

        With `cut` no block crosses a multiple of so many slices.
        """
        depth = self.shape[0]
        step = block_depth(self.shape, self.mem_budget_mb, bytes_per_voxel, ALIGN)
        cut = cut or depth
        with Progress(depth, "slices", f"export {what}") as progress:
            for start in range(0, depth, cut):
                end = min(start + cut, depth)
                for z0 in range(start, end, step):
                    block = self.volume.read(z0, min(z0 + step, end))
                    yield z0, block
                    progress.update(len(block))
