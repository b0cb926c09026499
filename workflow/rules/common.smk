"""Functions of the rules: which run, which settings, which files. No rule stands here."""

import math
import os
import re
import sys
from pathlib import Path

import numpy as np
from snakemake.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

# Scripts find the library beside them; the Snakefile needs to be told where that is.
sys.path.insert(0, str(Path(workflow.basedir, "scripts")))

from beamseg import runs as graph
from beamseg.annotations import files_of
from beamseg.code import code_digest, lead_the_path, script_of
from beamseg.config import BY_HAND, Run, load_runs
from beamseg.ended import stale_at_exit, tracked_code
from beamseg.errors import InputError
from beamseg.footprint import asked_mb, peak_mb, training_mb
from beamseg.job import Kept
from beamseg.job import kept as kept_settings
from beamseg.kept_defaults import keep, moved_defaults, program_defaults
from beamseg.layers import defaults, load_schema
from beamseg.normalize import SCRATCH_MB
from beamseg.provenance import read_json
from beamseg.slabs import most_bytes
from beamseg.recover import end_at_once, end_with_jobs
from beamseg.record import described_scans, effective
from beamseg.seen import seen
from beamseg.summary import conclude_runs
from beamseg.summary import stages_of as run_stages

try:
    RUNS, COMMON = load_runs(".", workflow.basedir, config)
    RUNS = graph.Runs(RUNS)
except InputError as error:
    raise WorkflowError(str(error))

# A run with every key at its default, but with a correction, so that what corrects it is in its settings.
SCHEMA = load_schema(Path(workflow.basedir, "workflow", "schemas"))
STANDARD = defaults(SCHEMA)
STANDARD["normalize"]["shading"] = "drift"
STANDARD = Run("", "", STANDARD, {}, Path())


lead_the_path()

# A resource is held while a job runs, a cache stays: jobs get the whole budget and look at what lies there.
if "disk_mb" in workflow.global_resources:
    os.environ[SCRATCH_MB] = str(workflow.global_resources["disk_mb"].value)


def named(images):
    """Regular expression of the samples of one kind."""
    names = [n for n, run in RUNS.runs.items() if graph.is_images(run) == images]
    return "|".join(map(re.escape, names)) or "(?!)"


VOLUMES, IMAGES = named(images=False), named(images=True)


wildcard_constraints:
    sample="[A-Za-z0-9][A-Za-z0-9_.-]*",
    group="[A-Za-z0-9][A-Za-z0-9_.-]*",
    model="stage2|stage3",
    part=r"\d+-of-\d+",


# What each stage leaves, under the name of the run or group that owns it.
RESULTS = {
    "simulate": "results/{who}/phantom.h5",
    "ingest": "results/{who}/scan.json",
    "histogram": "results/{who}/histogram.npz",
    "plan": "results/groups/{who}/plan.json",
    "normalize": "results/{who}/normalize/{part}.json",
    "pseudo_label": "results/groups/{who}/classes.json",
    "assign": "results/{who}/assign/{part}.json",
    "train": "results/groups/{who}/stage2.safetensors",
    "self_correct": "results/groups/{who}/stage3.safetensors",
    "segment_stage2": "results/{who}/segment/stage2/{part}.json",
    "segment_stage3": "results/{who}/segment/stage3/{part}.json",
    "refine_mpp": "results/{who}/refine_mpp/{part}.json",
    "train_scm": "results/groups/{who}/scm.safetensors",
    "refine_scm": "results/{who}/refine_scm/{part}.json",
    "bundle": "results/groups/{who}/bundle/bundle.json",
    "evaluate": "results/{who}/metrics.json",
    "simulate_frames": "results/{who}/phantom_frames",
    "frames": "results/{who}/frames.json",
    "train_frames": "results/groups/{who}/frames.safetensors",
    "segment_frames": "results/{who}/segment_frames/masks.json",
    "measure_frames": "results/{who}/geometry.csv",
    "evaluate_frames": "results/{who}/metrics.json",
}

# Where `apply` puts what a bundle holds in place of a group's stages.
IMPORTED = {
    "apply": "results/groups/{who}/apply/bundle.json",
    "plan": "results/groups/{who}/apply/plan.json",
    "pseudo_label": "results/groups/{who}/apply/classes.json",
    "train": "results/groups/{who}/apply/model.safetensors",
    "train_scm": "results/groups/{who}/apply/scm.safetensors",
}


def run_of(wildcards):
    """The run that a job is for; of a group, its first."""
    if "sample" in wildcards.keys():
        return RUNS.runs[wildcards.sample]
    return RUNS.runs[RUNS.groups[wildcards.group][0]]


def upstream(wildcards, stage):
    """Result of a stage for a job's run, or of all reference scans (`stage@reference`), where its owner leaves it."""
    run = run_of(wildcards)
    stage, _, reference = stage.partition("@")
    names = RUNS.references(run.group) if reference else [run.name]
    paths = []
    for name in names:
        who = RUNS.owner(stage, name)
        imported = stage == "apply" or graph.is_imported(stage, run)
        pattern = IMPORTED[stage] if imported else RESULTS[stage]
        if "{part}" in pattern:
            paths += [pattern.format(who=who, part=part) for part in parts(name)]
        else:
            paths.append(pattern.format(who=who))
    return paths if reference or "{part}" in pattern else paths[0]


def needs(*stages):
    """`upstream` as an input function."""
    return lambda wildcards: (
        upstream(wildcards, stages[0])
        if len(stages) == 1
        else [upstream(wildcards, stage) for stage in stages]
    )


def beside(stage, name):
    """Another file that a group's stage leaves beside its first."""
    return lambda wildcards: str(Path(upstream(wildcards, stage)).with_name(name))


def parts(name):
    count = RUNS.runs[name].get("parts")
    return [f"{index + 1}-of-{count}" for index in range(count)]


def counts_of(wildcards):
    """What `count` leaves of each part; none where there is one, which `evaluate` counts itself."""
    names = parts(wildcards.sample)
    if len(names) == 1:
        return []
    return [f"results/{wildcards.sample}/count/{part}.npz" for part in names]


def counted_settings(run):
    """What of it `count` reads: which clusters are merged, but no name and no colour."""
    found = measured_settings(run)
    merged = sorted(sorted(each["clusters"]) for each in found["classes"].values())
    names = ("truth_names", "background")
    return found | {
        "classes": {str(i): {"clusters": ids} for i, ids in enumerate(merged)},
        "evaluate": {k: v for k, v in found["evaluate"].items() if k not in names},
    }


def measured_settings(run):
    """What `count` and `evaluate` read of the configuration; the truth's path they get beside it."""
    return settings_of("evaluate")(run) | {"truth": None}


def settings_of(stage):
    """What a stage reads of a run's configuration, and nothing else, so that an edit reruns its readers alone."""
    return lambda run: graph.settings_of(stage, run)


def kept(rule, of, name="settings", standard=None):
    """Settings of a job; with `code: frozen`, keys that are newer than its result and at their default rerun nothing.

    `of` is a section's name or a function of a run; `standard` are the defaults where it does not give them.
    """
    read = of if callable(of) else lambda run: run.get(of)

    def settings(wildcards):
        run = run_of(wildcards)
        if run.get("code") != "frozen":
            return read(run)
        record = record_of(rule, wildcards)
        return kept_settings(read(run), record, name, standard or read(STANDARD))

    return settings


def record_of(rule, wildcards):
    """Where a job keeps its record."""
    log = str(getattr(rules, rule).log[0]).format(**dict(wildcards.items()))
    return Path(f"{log}.json")


def user_file(rule, of):
    """A file of the user as a job is given it, and its path in the text that Snakemake compares, with its stamp.

    It is no input: one that was archived away, or whose disk is not mounted, must not cost what was made from it. `of`
    is a function of the wildcards that gives the path, or None where the job has no use for the file.
    """

    def given(wildcards):
        path = of(wildcards)
        if path is None:
            return None
        found = seen(path, the_user_s(path), record_of(rule, wildcards))
        return Kept(found, repr([path, found["stamp"]] if found["stamp"] else path))

    return given


def the_user_s(path):
    """Files that hold labels or truth, as far as they are there; none for those that `simulate` leaves."""
    ours = Path(path).parts[:1] == ("results",)
    return [] if ours or not path else files_of(path)


def setting(key):
    """One value of the configuration."""
    return lambda wildcards: run_of(wildcards).get(key)


def code(script):
    """Digest of the code of a script; with `code: frozen`, that by which Snakemake knows the result that is there."""

    def digest(wildcards):
        if run_of(wildcards).get("code") == "frozen":
            who = getattr(wildcards, "sample", None) or wildcards.group
            return tracked_code(script, who) or code_digest(script)
        return code_digest(script)

    return digest


def stages_of(run):
    """Stages that leave labels for a run, in order; none for a movie."""
    if graph.is_images(run):
        return []
    chain = ["stage2"]
    if run.get("stage3") != "none":
        chain.append("stage3")
    return chain + list(run.get("refine"))


def label_manifests(stage):
    """Manifests of the labels of a stage; none where the run leaves the stage out."""
    stages = {
        "stage2": "segment_stage2",
        "stage3": "segment_stage3",
        "mpp": "refine_mpp",
        "scm": "refine_scm",
    }
    return lambda wildcards: (
        upstream(wildcards, stages[stage])
        if stage in stages_of(run_of(wildcards))
        else []
    )


def assigned(stage):
    """Manifests of `assign`; none where the table of grey levels gives the pseudo-labels."""
    return lambda wildcards: (
        upstream(wildcards, stage) if graph.is_assigned(run_of(wildcards)) else []
    )


def trained_on_assigned(wildcards):
    """The same of all reference scans, where training takes its labels from clusters."""
    source = setting("label_source")(wildcards)
    if source == "slices" or (
        source == "pixels" and not setting("train.prior")(wildcards)
    ):
        return []
    return assigned("assign@reference")(wildcards)


def grey_of_features(wildcards):
    """The cache, for the clusters that are fitted on voxels and not on the histogram."""
    labeler = run_of(wildcards).get("pseudo_label.labeler")
    return upstream(wildcards, "normalize@reference") if labeler == "features" else []


def is_phantom(wildcards):
    return run_of(wildcards).get("path") == graph.PHANTOM


def is_movie(wildcards):
    return graph.is_images(run_of(wildcards))


def product(wildcards):
    """What says what a run has left: labels.json, or the manifest of a movie's masks."""
    if is_movie(wildcards):
        return upstream(wildcards, "segment_frames")
    return f"results/{wildcards.sample}/labels.json"


def bundle_of(wildcards):
    """Index of the bundle that a run applies; its digests stand for the bundle's other files."""
    return str(run_of(wildcards).file("bundle") / "bundle.json")


def compared(wildcards):
    """What `compare` found of a scan that a bundle is applied to; none for a run that trains."""
    applies = run_of(wildcards).get("bundle")
    return [f"results/{wildcards.sample}/compare.json"] if applies else []


def weights_by_stage(wildcards):
    """Weights that a run's labels come from, by stage."""
    run = run_of(wildcards)
    if graph.is_images(run):
        return {"frames": upstream(wildcards, "train_frames")}
    stages = {"stage2": "train"}
    if run.get("stage3") != "none":
        stages["stage3"] = "self_correct"
    if "scm" in run.get("refine"):
        stages["scm"] = "train_scm"
    return {name: upstream(wildcards, stage) for name, stage in stages.items()}


def scans_of(wildcards):
    """Names of the reference scans of a run's group, and the run's own; none for movies, which have no histogram."""
    run = run_of(wildcards)
    if graph.is_images(run):
        return []
    return list(dict.fromkeys([*RUNS.references(run.group), run.name]))


def histograms_of(wildcards):
    return [
        RESULTS["histogram"].format(who=RUNS.owner("histogram", name))
        for name in scans_of(wildcards)
    ]


def codes(wildcards):
    """Who left the result of every stage of a run, and the digest of its code, for want of what its job recorded.

    Snakemake compares the digests that it knows the results by, which an edit of the settings leaves as they are.
    """
    run = run_of(wildcards)
    found, known = {}, {}
    for stage in run_stages(run):
        owned = stage in RESULTS or stage == "apply"
        who = RUNS.owner(stage, run.name) if owned else run.name
        frozen = RUNS.is_frozen(stage, run.name) and tracked_code(stage, who)
        known[stage] = frozen or code_digest(script_of(stage))
        found[stage] = {"who": who, "code": known[stage]}
    return Kept(found, repr(known))


def made_by(wildcards):
    """Who left the result of every stage of a group's model."""
    run = run_of(wildcards)
    stages = [stage for stage in run_stages(run) if stage in graph.STAGES]
    shared = [s for s in stages if graph.stage_of(s, run).scope == "group"]
    owners = {s: RUNS.owner(s, run.name) for s in shared if s != "bundle"}
    # Names alone, by which nothing is to be made anew.
    return Kept(owners, "stages of the model")


def simulated_scan(wildcards):
    """The phantom that a run's scan is; none where the scan is the user's."""
    name = run_of(wildcards).name
    if not is_phantom(wildcards):
        return []
    return RESULTS["simulate"].format(who=RUNS.owner("simulate", name))


def recorded_scans(wildcards):
    """`described_scans`, with the content of labels and movies as jobs found it: they may have gone since."""
    references = RUNS.references(run_of(wildcards).group)
    found = described_scans(RUNS.runs, wildcards.sample, references)
    frames = "_frames" if is_movie(wildcards) else ""
    for entry in found:
        name = entry["name"]
        trained = RUNS.owner(f"train{frames}", name)
        jobs = [
            f"logs/groups/{trained}/train{frames}",
            f"logs/{name}/evaluate{frames}",
        ]
        if frames:
            jobs.append(f"logs/{RUNS.owner('frames', name)}/frames")
        records = [Path(f"{job}.log.json") for job in jobs]
        entry["seen"] = {}
        for path in records:
            known = read_json(path).get("seen", {}) if path.exists() else {}
            entry["seen"] |= {file: each["content"] for file, each in known.items()}
    return found


def user_scan(wildcards):
    """When the user's scan was last written, and how large it is, as `user_file` does; None for a phantom."""
    if is_phantom(wildcards):
        return None
    path = run_of(wildcards).file("path")
    there = [path] if path.exists() else []
    found = seen(str(path), there, record_of("ingest", wildcards), read=False)
    return Kept(found, repr(found["stamp"]))


def truth_of(wildcards):
    """Path of the truth, which `count` and `evaluate` alone open; empty without one."""
    run = run_of(wildcards)
    if is_phantom(wildcards):
        return f"results/{RUNS.owner('simulate', run.name)}/phantom_truth.h5"
    return str(run.file("truth") or "")


def simulated_truth(wildcards):
    return [truth_of(wildcards)] if is_phantom(wildcards) else []


def labels_path(name):
    """Path of a scan's labels, which may be trained on; empty without any."""
    run = RUNS.runs[name]
    if run.get("labels.path") == graph.PHANTOM:
        return f"results/{RUNS.owner('simulate', name)}/phantom_labels.h5"
    return str(run.file("labels.path") or "")


def labels_of(wildcards):
    return labels_path(run_of(wildcards).name)


def simulated_labels(wildcards):
    """Labels of a run that `simulate` leaves, as input of a rule; files of the user are none (see `user_file`)."""
    run = run_of(wildcards)
    phantom = run.get("labels.path") == graph.PHANTOM
    return [labels_path(run.name)] if phantom else []


TAUGHT_BY = ("slices", "pixels")
GIVEN = ("label_source", "labels", "seed")


def is_given(run):
    """Whether refinement keeps labels of the user: where the network was trained on them."""
    return run.get("label_source") in TAUGHT_BY and bool(labels_path(run.name))


def simulated_given(wildcards):
    return simulated_labels(wildcards) if is_given(run_of(wildcards)) else []


def given_file(rule):
    """The labels that refinement keeps, as a parameter."""
    return user_file(rule, lambda w: labels_of(w) if is_given(run_of(w)) else None)


def given(run):
    """How refinement opens the labels of the user that it keeps; None without any."""
    if not is_given(run):
        return None
    return {"file": labels_path(run.name)} | {key: run.get(key) for key in GIVEN}


def kept_given(rule):
    """The same as a parameter of a job."""
    return kept(rule, given, "given", {key: STANDARD.get(key) for key in GIVEN})


def group_labels(rule, by_hand=False):
    """Sections `labels` of the reference scans, `path` resolved, and empty where a scan has no labels.

    With `by_hand` the files' content counts only where it is learned from.
    """

    def labels(wildcards):
        run, record = run_of(wildcards), record_of(rule, wildcards)
        found = []
        for name in RUNS.references(run.group):
            path = labels_path(name)
            entry = RUNS.label_file(name) | {"path": path, "files": [], "stamp": None}
            if not by_hand or run.get("label_source") in BY_HAND:
                entry |= seen(path, the_user_s(path), record)
            found.append(Kept(entry, text_of(entry)))
        return found

    return labels


def text_of(entry):
    """A label file as Snakemake compares it: its path, its stamp, and what is not at its default."""
    standard = STANDARD.get("labels") | {"files": entry["files"]}
    given = {key: value for key, value in entry.items() if value != standard.get(key)}
    return repr(entry["path"] if given.keys() <= {"path"} else given)


def simulated_group_labels(wildcards):
    return [
        labels_path(name)
        for name in RUNS.references(run_of(wildcards).group)
        if RUNS.runs[name].get("labels.path") == graph.PHANTOM
    ]


def simulated_supervision(wildcards):
    """Labels that stage 3 learns from beside its teacher; none where clusters gave stage 2 its labels."""
    by_hand = setting("label_source")(wildcards) in BY_HAND
    return simulated_group_labels(wildcards) if by_hand else []


def weights_of(wildcards):
    return upstream(
        wildcards, "train" if wildcards.model == "stage2" else "self_correct"
    )


def explained_weights(wildcards):
    """Weights of stages 2 and 3 where the report shows what the networks look at; else none."""
    run = run_of(wildcards)
    if not run.get("report.grad_cam"):
        return []
    stages = ["train"] if run.get("stage3") == "none" else ["train", "self_correct"]
    return [upstream(wildcards, stage) for stage in stages]


def measured_quantities(wildcards):
    """What `quantities` leaves, where it was asked for some."""
    if not setting("quantities.measure")(wildcards):
        return []
    return f"results/{wildcards.sample}/quantities.json"


def chosen_labels(wildcards):
    """Labels of all stages that the verdict may choose from."""
    return {
        "stage2": label_manifests("stage2")(wildcards),
        "stage3": label_manifests("stage3")(wildcards),
    }


def verdict_of(wildcards):
    run = run_of(wildcards)
    return (
        []
        if run.get("stage3") == "none"
        else beside("self_correct", "verdict.json")(wildcards)
    )


def readers_of_cache(wildcards):
    """Reports of every run that reads this scan's normalized grey levels."""
    names = RUNS.sharers("normalize", wildcards.sample)
    return [f"results/{name}/report.html" for name in names] + [
        f"results/{name}/labels.json" for name in names
    ]


def movie(run):
    """Where the frames of a run, its training masks and its truth lie; None where there is none."""
    if run.get("path") == graph.PHANTOM:
        folder = Path(
            RESULTS["simulate_frames"].format(
                who=RUNS.owner("simulate_frames", run.name)
            )
        )
        return folder / "frames", folder / "labels", folder / "truth"
    return run.file("path"), run.file("labels.path"), run.file("truth")


def simulated_movie(wildcards):
    """The movie that `simulate_frames` leaves, as input of a rule; files of the user are none (see `user_file`)."""
    return upstream(wildcards, "simulate_frames") if is_phantom(wildcards) else []


def movie_files(rule, *which, reference=False):
    """Files of the user as a parameter: 0 frames, 1 labels, 2 truth, of the run or of its group's reference scans."""

    def given(wildcards):
        run, record = run_of(wildcards), record_of(rule, wildcards)
        names = RUNS.references(run.group) if reference else [run.name]
        runs = [
            RUNS.runs[n] for n in names if RUNS.runs[n].get("path") != graph.PHANTOM
        ]
        paths = [str(p) for r in runs for i in which if (p := movie(r)[i]) is not None]
        found = [seen(path, the_user_s(path), record) for path in paths]
        return [Kept(each, repr([each["path"], each["stamp"]])) for each in found]

    return given


def movie_paths(wildcards):
    """Frames, masks and dataset of every reference scan of a group."""
    names = RUNS.references(run_of(wildcards).group)
    return [
        [*map(str, movie(RUNS.runs[n])[:2]), RUNS.runs[n].get("dataset")] for n in names
    ]


def movie_of(wildcards):
    """Frames and dataset of a scan."""
    run = run_of(wildcards)
    return [str(movie(run)[0]), run.get("dataset")]


def human_masks(wildcards):
    """Masks that may be trained on, and the truth, of a scan."""
    paths = movie(run_of(wildcards))[1:]
    return [None if path is None else str(path) for path in paths]


def simulated_movies(wildcards):
    """The same of a group's reference scans."""
    names = RUNS.references(run_of(wildcards).group)
    return [
        RESULTS["simulate_frames"].format(who=RUNS.owner("simulate_frames", name))
        for name in names
        if RUNS.runs[name].get("path") == graph.PHANTOM
    ]


def mem_mb(wildcards, attempt):
    """Memory of a job that holds no volume."""
    return asked_mb(0, run_of(wildcards).get("mem_budget_mb")) * attempt


def budget_mem_mb(wildcards, attempt):
    """Memory of a job that is known by no scan: the budget for a volume, twice over, plus the libraries."""
    return asked_mb(math.inf, run_of(wildcards).get("mem_budget_mb")) * attempt


def volume_mem_mb(wildcards, input, attempt):
    """The same of a job over a scan, or over the reference scans of a group; less, where those are small."""
    return asked_mb(voxels_of(input), run_of(wildcards).get("mem_budget_mb")) * attempt


def slice_mem_mb(stage):
    """Memory of a job that holds whole slices: by their size, where that is more than the budget gives."""

    def memory(wildcards, input, attempt):
        scan, run = read_json(input.scan), run_of(wildcards)
        itemsize = np.dtype(scan["dtype"]).itemsize
        peak = peak_mb(scan["shape"], itemsize, run.settings)[stage]
        asked = volume_mem_mb(wildcards, input, attempt)
        return max(asked, math.ceil(1.25 * peak) * attempt)

    return memory


def at_least(minutes):
    """Time limit of a job whose work does not grow with a volume; more with each attempt."""
    return lambda wildcards, attempt: minutes * attempt


def by_scan(least, voxels_per_s):
    """Time limit of a job over a whole scan: `least`, and what its voxels take at a cautious rate."""
    return lambda wildcards, input, attempt: (
        (least + math.ceil(voxels_of(input) / voxels_per_s / 60)) * attempt
    )


def counting_time(wildcards, input, attempt):
    """Time limit of `evaluate`, which counts all voxels where the scan is one part, and reads the truth whole."""
    if run_of(wildcards).get("parts") == 1 or truth_of(wildcards):
        return by_scan(120, voxels_per_s=5e6)(wildcards, input, attempt)
    return at_least(120)(wildcards, attempt)


def by_part(least, voxels_per_s):
    """The same of a job over one part. One that leaves slabs goes on from the finished ones, if it is ended all the same."""

    def runtime(wildcards, input, attempt):
        voxels = voxels_of(input) / run_of(wildcards).get("parts")
        return (least + math.ceil(voxels / voxels_per_s / 60)) * attempt

    return runtime


def voxels_of(input):
    """Voxels of a job's scan, or of its scans together."""
    scans = [input.scan] if "scan" in input.keys() else input.scans
    scans = [scans] if isinstance(scans, str) else scans
    return sum(math.prod(read_json(path)["shape"]) for path in scans)


def cache_mb(wildcards, input):
    """The most that the cache of a part of `normalize` may take; 0 where none is wanted."""
    run = run_of(wildcards)
    if run.get("normalize.materialize") == "never":
        return 0
    voxels = voxels_of(input) // run.get("parts")
    dtypes = {"grey": run.get("normalize.dtype")}
    return math.ceil(most_bytes(dtypes, voxels) / 2**20)


def gpus(wildcards):
    """One device for the network's stages, unless the run is told to use none."""
    return 0 if run_of(wildcards).get("device") == "cpu" else 1


def training_gpus(wildcards):
    """Devices of one training: as many as `gpus` says, on one node; a process each, however a cluster is asked."""
    return gpus(wildcards) * run_of(wildcards).get("gpus")


def training_mem_mb(wildcards, input, attempt):
    """Memory of a training; each device has a process, which holds the volumes. Large batches and crops take more."""
    processes = max(1, training_gpus(wildcards))
    settings, voxels = run_of(wildcards).settings, voxels_of(input)
    peak = training_mb(settings, voxels, processes)
    asked = volume_mem_mb(wildcards, input, attempt)
    return max(asked * processes, math.ceil(1.25 * peak) * attempt)


def refuse_gpus_asked_twice():
    """A `gres` of GPUs beside `gpu` would go to sbatch together."""
    for each in workflow.rules:
        # `raw` is the text of a profile or a command line, which is evaluated once a job is known.
        gres = str(each.resources.get("gres").raw)
        beside = "gpu" in each.resources and each.resources["gpu"] != 0
        if beside and re.search(r"\bgpu\b", gres):
            error = InputError(
                f"rule {each.name}",
                "`gres` for GPUs, and `gpu` too",
                "one of them, since Slurm would be asked for both",
                "set `gpu: 0` beside `gres`, or use `gpu` and `gpu_model`",
            )
            raise WorkflowError(str(error))


def final_outputs():
    """Targets of `all`: of every run, or of those that `only` names."""
    outputs = []
    for run in RUNS.runs.values():
        if COMMON["only"] and run.name not in COMMON["only"]:
            continue
        if graph.is_images(run):
            outputs += [
                f"results/{run.name}/report.html",
                f"results/{run.name}/geometry.csv",
                f"results/{run.name}/provenance.json",
            ]
            continue
        # The report alone would do, but a file that was removed is made again only if it is asked for.
        outputs += [
            f"results/{run.name}/report.html",
            f"results/{run.name}/labels.json",
            f"results/{run.name}/metrics.json",
            f"results/{run.name}/provenance.json",
        ]
        if not run.get("bundle") or run.get("apply.adapt"):
            who = RUNS.owner("bundle", run.name)
            outputs.append(RESULTS["bundle"].format(who=who))
            outputs.append(f"results/groups/{who}/methods.md")
        if run.get("quantities.measure"):
            outputs.append(f"results/{run.name}/quantities.json")
        who = RUNS.owner("normalize", run.name)
        if run.get("keep") == "minimal":
            outputs.append(f"results/{who}/released.json")
        else:
            # To its readers the cache is ancient: if it alone is made again, by it Snakemake finds those that have
            # left nothing yet. `release` is what does that for a cache that goes.
            caches = [
                RESULTS["normalize"].format(who=who, part=p) for p in parts(run.name)
            ]
            outputs += [path for path in caches if Path(path).exists()]
    return list(dict.fromkeys(outputs))


def announce_stale():
    """Have what `code: frozen` keeps listed at the end, also where nothing runs; processes of jobs do not."""
    kept = {name for name, run in RUNS.runs.items() if run.get("code") == "frozen"}
    kept |= {group for group, names in RUNS.groups.items() if names[0] in kept}
    if kept and workflow.is_main_process:
        firsts = {group: RUNS.runs[names[0]] for group, names in RUNS.groups.items()}
        stale_at_exit(
            kept, {group: moved_defaults(run) for group, run in firsts.items()}
        )


def keep_defaults():
    """Have every group keep the defaults that it is computed with."""
    presets, of_presets = Path(workflow.basedir, "config", "presets"), {}
    for group, names in RUNS.groups.items():
        named = frozenset(RUNS.runs[name].get("preset") for name in names) - {None}
        if named not in of_presets:
            of_presets[named] = program_defaults(SCHEMA, presets, named)
        frozen = RUNS.runs[names[0]].get("code") == "frozen"
        folder = Path("results", "groups", group)
        keep(folder, of_presets[named], frozen=frozen)


def conclude(failed):
    """Write results/summary.csv and show how every run ended."""
    conclude_runs(RUNS, failed=failed, left_out=COMMON["left_out"])
