"""The graph of stages over runs: what each reads of the configuration, what it needs, and who computes it.

A stage of a run has an identity, the digest of its own and all upstream settings and of its inputs' names. Runs that
agree in it share one result: it is computed under the name of the first of them, and `owner` says which that is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .annotations import check_reading, reading
from .config import BY_HAND, Run
from .errors import InputError
from .layers import PHANTOM, flatten
from .provenance import digest

OF_A_FILE = ("path", "dataset", "axes", "flip", "unlabelled", "map", "offset", "slices")
"""Keys of the section `labels` that say what a label file is; the others say what is taken of it."""
REFERENCES = 4


@dataclass(frozen=True)
class Stage:
    """What a stage reads.

    `scope` is `scan` or `group`; `settings` are sections or keys of the configuration (all that may change the
    result); `needs` are stages upstream, where `stage@reference` is that stage of the group's reference scans.
    """

    scope: str
    settings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


LAYOUT = ("parts", "slab_depth")
CORRECTIONS = tuple(
    f"normalize.{key}"
    for key in ("shading", "shading_by", "background_sigma", "rings", "ring_width", "denoise", "denoise_strength")
)
STAGES: dict[str, Stage] = {
    "simulate": Stage("scan", ("phantom",)),
    "ingest": Stage(
        "scan", ("path", "dataset", "voxel_size_um", "z_continuous", "ingest", "slab_depth", *CORRECTIONS), ()
    ),
    "histogram": Stage("scan", (), ("ingest",)),
    "plan": Stage("group", ("plan", "normalize.dtype"), ("histogram@reference",)),
    "normalize": Stage("scan", ("normalize.materialize", *LAYOUT), ("plan", "ingest")),
    "pseudo_label": Stage("group", ("pseudo_label", "seed"), ("plan",)),
    "assign": Stage("scan", ("pseudo_label", "seed", *LAYOUT), ("pseudo_label", "plan", "ingest")),
    "train": Stage("group", ("model", "train", "label_source", "labels", "seed"), ("pseudo_label", "ingest@reference")),
    "self_correct": Stage("group", ("self_correct", "label_source", "labels", "seed"), ("train",)),
    "segment_stage2": Stage("scan", ("segment", *LAYOUT), ("train", "plan", "ingest")),
    "segment_stage3": Stage("scan", ("segment", *LAYOUT), ("self_correct", "plan", "ingest")),
    "refine_mpp": Stage(
        "scan",
        ("refine_mpp", "stage3", "label_source", "labels", "seed", *LAYOUT),
        ("segment_stage2", "segment_stage3", "self_correct"),
    ),
    "train_scm": Stage("group", ("refine_scm", "label_source", "labels", "seed"), ("refine_mpp@reference",)),
    "refine_scm": Stage("scan", ("refine_scm", "label_source", "labels", "seed", *LAYOUT), ("train_scm", "refine_mpp")),
    "bundle": Stage("group", ("classes", "refine"), ("self_correct", "train_scm")),
    "evaluate": Stage(
        "scan",
        ("classes", "refine", "stage3", "truth", "evaluate", "label_source", "labels", "seed"),
        ("refine_scm",),
    ),
}
SPLIT = ("frames.block", "frames.validation", "frames.test", "frames.hidden")
FRAME_STAGES: dict[str, Stage] = {
    "simulate_frames": Stage("scan", ("frames.phantom", "phantom.seed")),
    "frames": Stage("scan", ("path", "dataset", "frames.pixel_nm")),
    "train_frames": Stage(
        "group", ("train_frames", "stage3", "frames.size", *SPLIT, "labels", "seed"), ("frames@reference",)
    ),
    "segment_frames": Stage("scan", ("frames.remove_bars", "labels.map"), ("train_frames", "frames")),
    "measure_frames": Stage(
        "scan", ("frames.saturated", "frames.smooth", "frames.frame_s", "seed"), ("segment_frames", "frames")
    ),
    "evaluate_frames": Stage("scan", ("truth", "labels", *SPLIT, "seed"), ("measure_frames",)),
}
"""Of runs with `kind` images; `STAGES` are those of volumes."""
ALL_STAGES = STAGES | FRAME_STAGES
IMPORTED = Stage("group", (), ("apply",))
APPLIED: dict[str, Stage] = {
    "apply": Stage("group", ("bundle",)),
    "plan": IMPORTED,
    "pseudo_label": IMPORTED,
    "train": IMPORTED,
    "train_scm": IMPORTED,
    "self_correct": Stage(
        "group", ("self_correct", "label_source", "labels", "seed"), ("train", "plan", "ingest@reference")
    ),
}
"""Stages of a run that applies a bundle, where they differ from `STAGES`; the imported ones are never computed."""


def stage_of(stage: str, run: Run) -> Stage:
    """What a stage reads for a run."""
    if not run.get("bundle") or stage not in APPLIED or (stage == "plan" and not is_imported(stage, run)):
        return ALL_STAGES[stage]
    return APPLIED[stage]


def is_imported(stage: str, run: Run) -> bool:
    """Whether a run takes the result of a group's stage from its bundle."""
    if not run.get("bundle") or (stage == "plan" and run.get("apply.range") == "own"):
        return False
    return APPLIED.get(stage) is IMPORTED


@dataclass
class Runs:
    """All runs of a table and, per stage, who computes it."""

    runs: dict[str, Run]
    _identities: dict[tuple[str, str], str] = field(default_factory=dict)
    _owners: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.groups: dict[str, list[str]] = {}
        for run in self.runs.values():
            self.groups.setdefault(run.group, []).append(run.name)
        self._check_groups()
        self._check_labels()

    def _check_labels(self) -> None:
        """What the user labelled must lie in scans that training draws from, and in one of them at least."""
        for group, members in self.groups.items():
            source = self.runs[members[0]].get("label_source")
            if source not in BY_HAND:
                continue
            references = self.references(group)
            painted = [name for name in members if self.runs[name].get("labels.path")]
            if not set(painted) & set(references):
                raise InputError(
                    f"group {group!r}: labels",
                    f"an empty cell for every scan that training draws from ({', '.join(references)})",
                    f"labelled {source} of one scan or more",
                    f"`beamseg annotate {references[0]}` exports slices to paint; give scans that one network is to "
                    "serve the same `group`; or set label_source: clusters",
                )
            if lost := [name for name in painted if name not in references]:
                raise InputError(
                    f"group {group!r}: labels of {', '.join(lost)}",
                    f"training draws from {', '.join(references)} alone",
                    "labels of scans that training draws from",
                    "set `reference: true` for them, or empty their cells",
                )
            seen: dict[str, str] = {}
            for name in painted:
                run = self.runs[name]
                how = reading(run.get("dataset"), run.get("ingest"))
                check_reading(run.file("labels.path") or "", how)
                twin = seen.setdefault(digest([self.source(name), how]), name)
                if twin != name:
                    raise InputError(
                        f"group {group!r}: labels of {twin} and {name}",
                        "one scan in two rows, each with a label file: each would be evaluated on voxels that the "
                        "other's labels trained",
                        "a scan in one row of a group",
                        "put all its labels into one file, or paint them in rounds (`beamseg annotate`)",
                    )

    def _check_groups(self) -> None:
        """Scans of a group share the group's stages, so they must agree on every key that these read."""
        for group, (first, *others) in self.groups.items():
            stages = FRAME_STAGES if is_images(self.runs[first]) else STAGES
            keys = {key: stage for stage, entry in stages.items() if entry.scope == "group" for key in entry.settings}
            keys = {"kind": "all stages", "bundle": "a model", "apply": "a model", **keys}
            for key in ("classes", "refine"):
                keys.pop(key, None)
            for key, stage in keys.items():
                for name in others:
                    mine, theirs = (dict(flatten({key: self._setting(n, key)})) for n in (first, name))
                    for leaf in sorted(mine.keys() | theirs.keys()):
                        if mine.get(leaf) != theirs.get(leaf):
                            raise InputError(
                                f"group {group!r}: {leaf}",
                                f"{mine.get(leaf)!r} for {first}, {theirs.get(leaf)!r} for {name}",
                                f"one value, since scans of a group share {stage}",
                                "give the scans the same value, or put them into groups of their own",
                            )

    def _setting(self, name: str, key: str) -> Any:
        value = self.runs[name].get(key)
        return {k: v for k, v in value.items() if k not in OF_A_FILE} if key == "labels" else value

    def label_file(self, name: str) -> dict[str, Any]:
        """Where a scan's labels lie and how they are read: what scans of a group need not share."""
        labels = self.runs[name].get("labels")
        return {key: labels.get(key) for key in OF_A_FILE} | {"path": str(self.runs[name].file("labels.path") or "")}

    def references(self, group: str) -> list[str]:
        """Scans that the group's range, clusters and training draw from: the marked ones, else the first four."""
        members = self.groups[group]
        marked = [name for name in members if self.runs[name].get("reference")]
        return (
            marked or [name for name in members if self.runs[name].get("reference") is None][:REFERENCES] or members[:1]
        )

    def source(self, name: str) -> str:
        """What names a run's input: the resolved path, or the phantom's parameters."""
        run = self.runs[name]
        if run.get("path") == PHANTOM:
            keys = FRAME_STAGES["simulate_frames"].settings
            return digest({key: run.get(key) for key in keys} if is_images(run) else run.get("phantom"))
        return str(run.file("path"))

    def identity(self, stage: str, name: str) -> str:
        """Identity of a stage for a run; for a group stage, that of the run's group."""
        run = self.runs[name]
        entry = stage_of(stage, run)
        who = run.group if entry.scope == "group" else name
        if (stage, who) in self._identities:
            return self._identities[stage, who]
        member = self.groups[run.group][0] if entry.scope == "group" else name
        parts: list[Any] = [stage, {key: self._setting(member, key) for key in entry.settings}]
        if stage in ("ingest", "frames"):
            parts = [stage, self.source(name), {k: self._setting(name, k) for k in entry.settings if k != "path"}]
        if stage == "apply":
            parts = [stage, str(run.file("bundle"))]
        if "labels" in entry.settings:
            files = self.references(run.group) if entry.scope == "group" else [name]
            parts.append([self.label_file(n) for n in files])
        for need in entry.needs:
            upstream, _, reference = need.partition("@")
            names = self.references(run.group) if reference else [member]
            parts.append([self.identity(upstream, n) for n in names])
        self._identities[stage, who] = digest(parts)
        return self._identities[stage, who]

    def owner(self, stage: str, name: str) -> str:
        """The run (or, for a group stage, the group) under whose name a stage of this run is computed."""
        if stage not in self._owners:
            first: dict[str, str] = {}
            for run in self.runs.values():
                if stage == "apply" and not run.get("bundle"):
                    continue
                who = run.group if stage_of(stage, run).scope == "group" else run.name
                first.setdefault(self.identity(stage, run.name), who)
            self._owners[stage] = first
        return self._owners[stage][self.identity(stage, name)]

    def sharers(self, stage: str, name: str) -> list[str]:
        """All runs whose stage is the one that `name` owns."""
        identity = self.identity(stage, name)
        return [other for other in self.runs if self.identity(stage, other) == identity]

    def is_frozen(self, stage: str, name: str) -> bool:
        """Whether results of a stage are kept: as its owner says, or the first run of the group that is."""
        run, who = self.runs[name], name
        if stage in ALL_STAGES or stage == "apply":
            who = self.owner(stage, name)
            who = self.groups[who][0] if stage_of(stage, run).scope == "group" else who
        return bool(self.runs[who].get("code") == "frozen")


def settings_of(stage: str, run: Run) -> dict[str, Any]:
    """What a rule's `params` holds: exactly the sections and keys that the stage reads."""
    return {key: run.get(key) for key in ALL_STAGES[stage].settings}


def corrections(run: Run) -> dict[str, Any] | None:
    """What corrects a scan before it is measured: keys of the section `normalize`; None if nothing does."""
    settings = {key.partition(".")[2]: run.get(key) for key in CORRECTIONS}
    if all(settings[key] == "none" for key in ("shading", "rings", "denoise")):
        return None
    return settings | {"z_continuous": run.get("z_continuous")}


def is_images(run: Run) -> bool:
    """Whether a run's input is frames, each its own item, and not a volume."""
    return bool(run.get("kind") == "images")


def is_assigned(run: Run) -> bool:
    """Whether a run's pseudo-labels are slabs that `assign` leaves, and not a table of grey levels."""
    section = run.get("pseudo_label")
    return bool(section["labeler"] == "features" or section["scope"] != "volume")


def scan_path(run: Run, results: Path = Path("results")) -> Path | None:
    """Where the scan of a run lies; a phantom lies in its own results folder."""
    if run.get("path") == PHANTOM:
        return results / run.name / "phantom.h5"
    return run.file("path")
