"""Morphological post-processing (MPP): sweeps from labelled slices, continuity along z, removal of small components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import changes, components
from .anchors import sweep_from_labels
from .continuity import continue_along_z
from .errors import InputError
from .label_values import UNLABELLED
from .slabs import SlabWriter, run_slabs
from .volumes import Volume, read_with_halo

_BLOCK_VOXELS = 1 << 25  # voxels refined at a time; about ten bytes of memory each


def min_voxels(min_volume_um3: float | None, voxel_size_um: Sequence[float] | None, where: str | Path) -> int:
    """Voxels in `min_volume_um3`, rounded up; 0 when nothing is to be removed.

    Raises
    ------
    InputError
        If a volume is set and the scan has no voxel size.
    """
    if not min_volume_um3:
        return 0
    if voxel_size_um is None:
        raise InputError(
            where,
            f"refine_mpp: min_volume_um3: {min_volume_um3:g}, and a scan without a voxel size",
            "a voxel size, since the smallest component is given in µm³",
            "set `voxel_size_um` for the sample, or remove `min_volume_um3`",
        )
    return math.ceil(min_volume_um3 / math.prod(voxel_size_um))


def refine_mpp(
    manifest: str | Path,
    labels: Volume,
    n_classes: int,
    settings: dict[str, Any],
    slab_depth: int,
    part: str,
    identity: str,
    voxel_size_um: Sequence[float] | None,
    user: Volume | None = None,
) -> dict[str, Any]:
    """Refine a label volume slab by slab; slabs (array `labels`, uint8) and manifest are written.

    Parameters
    ----------
    manifest : path
        Output; slab files go beside it.
    labels : Volume
        Class ids 0 … n_classes - 1, 255 outside the field of view, which stays so and never votes.
    n_classes : int
    settings : dict
        Section `refine_mpp` of the configuration.
    slab_depth : int
        Slices; the result does not depend on it, nor on the parts.
    part : str
        `k-of-n`.
    identity : str
        Digest of settings and inputs.
    voxel_size_um : (z, y, x) or None
        µm; needed for `min_volume_um3` alone.
    user : Volume, optional
        Labels of the user, 255 where there is none. Labelled pixels bear their label; slices labelled by half or more
        are the anchors of `anchors.sweep_from_labels`.

    Returns
    -------
    dict
        The manifest. `changes` (see `changes.describe`) sums the slabs' from → to matrices of this part.

    Raises
    ------
    InputError
        If components are to be removed by volume and there is no voxel size.
    """
    manifest = Path(manifest)
    support, sheet_px = int(settings["support"]), int(settings["sheet_px"])
    smallest = min_voxels(settings["min_volume_um3"], voxel_size_um, manifest)
    n_slices, rows, columns = labels.shape

    reach, erode_px = int(settings["anchor_reach"]), int(settings["erode_px"])

    def continued(z0: int, z1: int) -> np.ndarray:
        if user is None:
            return continue_along_z(read_with_halo(labels, z0, z1, support), n_classes, support, sheet_px)
        block, given = (read_with_halo(volume, z0, z1, support + reach) for volume in (labels, user))
        block = sweep_from_labels(block, given, n_classes, reach, erode_px)
        inner = slice(reach, len(block) - reach)
        return continue_along_z(block[inner], n_classes, support, sheet_px, (given != UNLABELLED)[inner])

    tables: list[np.ndarray] = []
    if smallest > 1:
        tables = components.cached_tables(
            manifest.parent / "components.npz",
            identity,
            lambda: components.small_components(continued, n_slices, n_classes, smallest),
        )
    step = components.BLOCK if tables else max(1, min(32, _BLOCK_VOXELS // (rows * columns)))

    def fill(z0: int, z1: int, writer: SlabWriter) -> None:
        matrix = np.zeros((n_classes, n_classes), np.int64)
        for start in range(z0, z1, step):
            stop = min(z1, start + step)
            block = continued(start, stop)
            if tables:
                block = components.replace_small(block, tables[start // components.BLOCK])
                if user is not None:
                    given = user.read(start, stop)
                    np.copyto(block, given, where=given != UNLABELLED)
            matrix += changes.count_changes(labels.read(start, stop), block, n_classes)
            writer.put("labels", start, block)
        writer.notes["changes"] = matrix.tolist()

    result = run_slabs(
        manifest,
        stage="refine_mpp",
        identity=identity,
        shape=labels.shape,
        depth=slab_depth,
        dtypes={"labels": np.uint8},
        fill=fill,
        part=part,
        notes={"n_classes": n_classes},
    )
    return changes.add_to_manifest(manifest, result, settings["warn_fraction"])
