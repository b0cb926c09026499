"""The command `beamseg`: what surrounds the workflow. The workflow itself is started with `snakemake`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .annotate import annotate
from .archive import archive
from .arrive import SETTLE_S, arrive
from .check import check
from .config import common_settings, load_runs
from .disagree import disagree
from .errors import InputError
from .footprint import PART_GVOXELS
from .init import init
from .layers import flatten
from .preview import preview
from .record import repeat
from .recover import recover
from .studies import SCALES, known_studies
from .study import run_study
from .validate import validate
from .view import view

BASEDIR = Path(__file__).resolve().parents[2]


def show_config(sample: str, workdir: Path) -> str:
    """Every value of a sample's effective configuration and the layer it came from."""
    runs, _ = load_runs(workdir, BASEDIR)
    if sample not in runs:
        raise InputError("sample", repr(sample), f"one of {', '.join(runs)}", "see the sample table")
    run = runs[sample]
    lines = []
    for key, value in flatten(run.settings):
        origin = run.origins.get(key) or next(
            (layer for other, layer in run.origins.items() if key.startswith(f"{other}.")), "default"
        )
        lines.append((key, repr(value), origin))
    width = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(f"{key:{width[0]}}  {value:{min(40, width[1])}}  {origin}" for key, value, origin in lines)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, do it, and return the exit status."""
    parser = argparse.ArgumentParser(prog="beamseg", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(), help="the working directory (default: here)")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("init", help="write config/samples.tsv from the scans of a folder")
    command.add_argument("folder", type=Path)
    command.add_argument(
        "--part-gvoxels",
        type=float,
        default=PART_GVOXELS,
        help="scans of more Gvoxels are worked on in parts of this size",
    )
    commands.add_parser("check", help="validate every sample and forecast time, memory and disk")
    command = commands.add_parser("preview", help="every stage on a crop, with clusters for K = 2 … 8 side by side")
    command.add_argument("sample")
    command.add_argument("--bin", type=int, default=1, help="average this many voxels along each axis first")
    command.add_argument("--steps", type=int, default=150, help="training steps of each stage")
    command.add_argument("--contact-sheet-only", action="store_true", help="only the clusters, without training")
    command = commands.add_parser("annotate", help="export the regions most worth painting; after a run, prefilled")
    command.add_argument("sample")
    command.add_argument("--count", type=int, default=8, help="regions")
    command.add_argument(
        "--size", type=int, default=512, help="edge of a region in pixels; the slice's, if that is less"
    )
    command = commands.add_parser("show_config", help="each value of a sample and the layer it came from")
    command.add_argument("sample")
    command = commands.add_parser("view", help="scan and labels in napari, with names and colours")
    command.add_argument("sample")
    command = commands.add_parser("archive", help="bundle, configuration, provenance and labels in one file")
    command.add_argument("group", help="a group; of a scan without one, the sample")
    command = commands.add_parser("validate", help="points for blind labelling, and what the answers say of the labels")
    command.add_argument("sample")
    command.add_argument("--points", type=int, default=200, help="how many voxels to draw (default: %(default)s)")
    command.add_argument("--read", type=Path, metavar="FORM", help="read a filled-in form and estimate")
    command = commands.add_parser("disagree", help="how far runs that differ in the seed alone differ")
    command.add_argument(
        "samples", nargs="+", metavar="sample", help="one, with all rows that differ in seed; or which"
    )
    commands.add_parser("recover", help="after a killed snakemake: end its jobs and unlock the directory")
    command = commands.add_parser("study", help="cells of settings over seeds, their metrics in one table")
    command.add_argument("name", nargs="?", help="a study of config/studies, or a file; none lists them")
    command.add_argument("--scale", choices=SCALES, default="smoke", help="minutes, within an hour, or for a GPU")
    command.add_argument("--profile", default="default", help="default, slurm, or a folder of your own")
    command.add_argument("--cores", help="cores of this machine (default: all)")
    command.add_argument(
        "--at-once", type=int, default=1, help="networks at work at once on this machine (%(default)s)"
    )
    command.add_argument("--dry-run", "-n", action="store_true", help="show the jobs")
    command = commands.add_parser("arrive", help="for cron: take in the finished new scans of a folder and run them")
    command.add_argument("folder", type=Path)
    command.add_argument("--group", help="group of the new scans; its model stays that of the scans it has")
    command.add_argument("--bundle", type=Path, help="bundle to apply to the new scans")
    command.add_argument("--settle", type=float, default=SETTLE_S, help="seconds without a write, %(default)g")
    command.add_argument("--profile", default="default", help="default, slurm, or a folder of your own")
    command.add_argument("--cores", help="cores of this machine (default: all)")
    command.add_argument("--dry-run", "-n", action="store_true", help="add the rows, but only show the jobs")
    command = commands.add_parser("repeat", help="write the configuration of a recorded run into an empty folder")
    command.add_argument("provenance", type=Path, help="results/<sample>/provenance.json")
    command.add_argument("inputs", type=Path, nargs="*", help="its scans, labels and bundle, wherever they are now")
    command.add_argument(
        "--external-links",
        choices=["none", "beside", "any"],
        default="none",
        help="ingest.external_links, which is not taken from a record (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    workdir = args.directory.resolve()
    try:
        if args.command == "init":
            added, refused = init(
                args.folder,
                workdir / "config" / "samples.tsv",
                shipped=BASEDIR / "config" / "samples.tsv",
                part_gvoxels=args.part_gvoxels,
                external_links=common_settings(workdir, BASEDIR)["ingest"]["external_links"],
            )
            print(*(f"added    {line}" for line in added), *(f"not read {line}" for line in refused), sep="\n")
            print(f"{len(added)} scans added to {workdir / 'config' / 'samples.tsv'}")
        elif args.command == "check":
            return check(workdir, BASEDIR)
        elif args.command == "preview":
            preview(workdir, BASEDIR, args.sample, args.bin, args.steps, train=not args.contact_sheet_only)
        elif args.command == "annotate":
            folder = annotate(workdir, BASEDIR, args.sample, args.count, args.size)
            print((folder / "README.md").read_text(), folder, sep="\n")
        elif args.command == "show_config":
            print(show_config(args.sample, workdir))
        elif args.command == "view":
            view(workdir, BASEDIR, args.sample)
        elif args.command == "archive":
            print(archive(workdir, BASEDIR, args.group))
        elif args.command == "validate":
            print(validate(workdir, BASEDIR, args.sample, args.points, args.read))
        elif args.command == "disagree":
            print(disagree(workdir, BASEDIR, args.samples))
        elif args.command == "recover":
            return recover(workdir, BASEDIR)
        elif args.command == "study" and args.name is None:
            print(*known_studies(workdir, BASEDIR), sep="\n")
        elif args.command == "study":
            return run_study(
                args.name,
                args.scale,
                workdir,
                BASEDIR,
                profile=args.profile,
                cores=args.cores,
                at_once=args.at_once,
                dry_run=args.dry_run,
            )
        elif args.command == "arrive":
            return arrive(
                args.folder,
                workdir,
                BASEDIR,
                group=args.group,
                bundle=args.bundle,
                settle_s=args.settle,
                profile=args.profile,
                cores=args.cores,
                dry_run=args.dry_run,
            )
        elif args.command == "repeat":
            differs = repeat(args.provenance, args.inputs, workdir, external_links=args.external_links)
            print(*(f"warning: {line}" for line in differs), sep="\n")
            print(f"written: {workdir / 'config'}; run snakemake with --directory {workdir}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
