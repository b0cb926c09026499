"""validate: points for blind labelling by a person; from the answers, accuracy and fractions with their intervals."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import figures
from .calibration import calibrate
from .config import load_runs
from .errors import InputError
from .finished import Finished, open_finished
from .inputs import user_labels
from .label_values import UNLABELLED
from .metrics import percent
from .palette import CLUSTER, MEMBERS, unnamed, word_of
from .points import draw
from .provenance import atomic_path, read_json, write_json
from .runs import Runs
from .stratified import estimates
from .volumes import Volume

EDGES = (48, 288)
SHOWN = 288
GAP, CROSS = 6, (213, 94, 0)
UNSURE = "unsure"
DEFINITIONS = {
    "accuracy": "share of the labelled voxels to which the person gives the map's class, background included",
    "fraction": "share of the class by the person, over all labelled voxels: the error-adjusted area",
    "users_accuracy": "share of the voxels called by the class that are of it",
    "producers_accuracy": "share of the voxels of the class that are called by it",
    "iou": "voxels of the class in both over voxels of the class in either",
    "interval": "95 %, for the drawing of the points; it does not hold errors of the person",
    "unsure_as_errors": "accuracy if the map is wrong wherever the person is unsure",
}
README = """How to label
============

Each picture is named by a point: 001.png is point 001 of form.csv. It shows the same voxel in three planes, side by
side: across z (y down, x to the right), across y (z down, x to the right) and across x (z down, y to the right); above
from near, below from afar. What is asked is the class of the one voxel in the middle of the cross-hair.

Write the name of a class, as in classes.csv, into the column `class` of form.csv; `unsure` where you cannot tell; leave
it empty where you did not look. Do not look at the segmentation meanwhile.
"""


def picture(grey: Volume, point: tuple[int, int, int], limits: tuple[float, float]) -> np.ndarray:
    """Three planes through a voxel, above from near, below from afar, with a cross-hair that leaves the voxel free.

    Parameters
    ----------
    grey : Volume
        uint16 grey levels, 0 outside, which is shown as a light tint, and so is what lies beyond the volume.
    point : (z, y, x)
    limits : (low, high)
        Grey levels shown as black and white.

    Returns
    -------
    ndarray, uint8, (rows, columns, 3)
    """
    rows = []
    for edge in EDGES:
        half, zoom = edge // 2, max(1, SHOWN // edge)
        planes = []
        for axis in range(3):
            reach = [0 if a == axis else half for a in range(3)]
            first = [p - r for p, r in zip(point, reach, strict=True)]
            low = [max(0, f) for f in first]
            high = [p + r + 1 for p, r in zip(point, reach, strict=True)]
            block = grey.read(low[0], high[0], slice(low[1], high[1]), slice(low[2], high[2]))
            around = np.zeros([2 * r + 1 for r in reach], block.dtype)
            place = zip(low, first, block.shape, strict=True)
            around[tuple(slice(a - f, a - f + n) for a, f, n in place)] = block
            plane = figures.grey_picture(around.squeeze(axis), limits).repeat(zoom, 0).repeat(zoom, 1)
            _cross(plane, half * zoom + zoom // 2, 2 * zoom + 2)
            planes += [plane, np.full((len(plane), GAP, 3), 255, np.uint8)]
        rows.append(np.concatenate(planes[:-1], axis=1))
    wide = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, GAP), (0, wide - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)[:-GAP]


def _cross(plane: np.ndarray, middle: int, gap: int) -> None:
    """Draw a cross-hair into an RGB picture; `gap` pixels around its middle stay free."""
    for line in (plane[middle], plane[:, middle]):
        line[: middle - gap] = CROSS
        line[middle + gap + 1 :] = CROSS


def export_points(done: Finished, points: int, known: Volume | None = None) -> Path:
    """Draw points of a finished run and write the form and pictures for a person, and the key.

    Returns
    -------
    Path
        The folder to hand over, `blind/`. The key stays beside it, in `key.json`.

    Raises
    ------
    InputError
        If a form with answers is there, or the points are too few.
    """
    folder = done.folder / "validate"
    blind = folder / "blind"
    form = blind / "form.csv"
    if form.exists() and (answered := sum(bool(answer) for answer in read_form(form).values())):
        raise InputError(
            form, f"{answered} answers", "no form, or an empty one", "read it by --read, then move the folder away"
        )
    seed = done.run.get("seed")
    sizes, drawn = draw(done.product, done.confidence, len(done.names), points, seed, known)
    if blind.exists():
        shutil.rmtree(blind)
    blind.mkdir(parents=True)
    looks = np.linspace(0, done.grey.shape[0] - 1, min(16, done.grey.shape[0])).astype(int)
    limits = figures.grey_range(np.concatenate([done.grey.read(int(z), int(z) + 1)[:, ::4, ::4] for z in looks]))
    for number, entry in enumerate(drawn, start=1):
        entry["point"] = f"{number:03d}"
        image = picture(done.grey, (entry["z"], entry["y"], entry["x"]), limits)
        with atomic_path(blind / f"{entry['point']}.png") as temporary:
            Image.fromarray(image).save(temporary, format="PNG")
    _write_rows(form, ["point", "class"], [[entry["point"], ""] for entry in drawn])
    members = [", ".join(map(str, row["clusters"])) for row in done.metrics["classes"]]
    word = word_of(done.metrics)
    head = MEMBERS[word] + (", 0 is the darkest" if word == CLUSTER else "")
    _write_rows(blind / "classes.csv", ["class", head], zip(done.names, members, strict=True))
    with atomic_path(blind / "README.txt") as temporary:
        temporary.write_text(README)
    write_json(
        folder / "key.json",
        {"shape": list(done.product.shape), "seed": seed, "strata": sizes.tolist(), "points": drawn},
    )
    return blind


def read_form(path: str | Path) -> dict[str, str]:
    """Point -> answer, as a person left them; spaces around are dropped.

    Raises
    ------
    InputError
        If it is no table with the columns point and class, or a point is there twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, str(error), "the form, as CSV", "check the name, and save as CSV UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = next((mark for mark in ";\t" if mark in first), ",")  # as spreadsheets of other countries write it
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    for column in ("point", "class"):
        if column not in (reader.fieldnames or []):
            raise InputError(
                path, f"columns {reader.fieldnames}", f"a column {column!r}", "keep the header of the form"
            )
    answers: dict[str, str] = {}
    for row in reader:
        point = (row["point"] or "").strip()
        point = point.zfill(3) if point.isdigit() else point  # a spreadsheet takes 007 for a number
        if point in answers:
            raise InputError(path, f"point {point} twice", "each point once", "remove one of the rows")
        answers[point] = (row["class"] or "").strip()
    return answers


def judge(answers: dict[str, str], key: dict[str, Any], names: list[str], where: str | Path) -> dict[str, int | None]:
    """Point -> class id that the person gave; None for unsure; points without an answer are left out.

    Raises
    ------
    InputError
        For a point that was not drawn, or a class that is none.
    """
    known = {entry["point"] for entry in key["points"]}
    lower = {name.lower(): index for index, name in enumerate(names)}
    found: dict[str, int | None] = {}
    for point, answer in answers.items():
        if point not in known:
            raise InputError(where, f"point {point!r}", f"points 001 to {len(known):03d}", "read the form of this key")
        if answer and answer.lower() not in {*lower, UNSURE}:
            raise InputError(
                f"{where}, point {point}",
                f"class {answer!r}",
                f"one of {', '.join(names)}, or {UNSURE}, or nothing",
                "mend the spelling, or add the class to `classes:`",
            )
        if answer:
            found[point] = lower.get(answer.lower())
    return found


def read_answers(done: Finished, form: str | Path, known: Volume | None = None) -> dict[str, Any]:
    """Estimate from a form, and write `validate.json`, which is returned, and `validate.csv`.

    The map that is judged is the run's product of today: the points stay a random sample of the volume, so they serve
    after a change of settings too. Voxels that the user has labelled since (`known`, 255 elsewhere) were trained on,
    and are left out.

    Returns
    -------
    dict
        `points` {drawn, answered, unsure, unanswered, trained_on, errors}, `product`, `mapped` (fractions as the map
        has them), what `estimates` gives, `unsure_as_errors`, `covered` (share of the voxels in strata with an answer),
        `calibration` (see `calibration.calibrate`), `notes`, `definitions`.

    Raises
    ------
    InputError
        If no points were drawn, the volume has another shape, the form is faulty or has no answer.
    """
    folder = done.folder / "validate"
    if not (folder / "key.json").exists():
        remedy = f"draw them: beamseg validate {done.run.name}"
        raise InputError(folder / "key.json", "no such file", "the key of drawn points", remedy)
    key = read_json(folder / "key.json")
    if key["shape"] != list(done.product.shape):
        raise InputError(
            folder / "key.json", f"shape {key['shape']}", f"shape {list(done.product.shape)}", "draw the points anew"
        )
    names = done.names
    answers = judge(read_form(form), key, names, form)
    points = [entry for entry in key["points"] if entry["point"] in answers]
    answered = len(points)
    if known is not None:
        free = _at(known, points) == UNLABELLED
        points = [entry for entry, kept in zip(points, free, strict=True) if kept]
    sure = [entry for entry in points if answers[entry["point"]] is not None]
    if not sure:
        found = f"no answer beside {answered - len(points)} at voxels that are trained on" if answered else "no answer"
        raise InputError(form, found, "classes for at least some points", "fill in the column `class`")
    sizes = np.array(key["strata"])
    mapped, network, confidence = (_at(volume, points) for volume in (done.product, done.network, done.confidence))
    strata = np.array([entry["stratum"] for entry in points])
    person = np.array([-1 if answers[entry["point"]] is None else answers[entry["point"]] for entry in points])
    told = person >= 0
    result = estimates(strata[told], sizes, mapped[told], person[told], names)
    # A class that no map has, so that unsure points agree with nothing.
    worst = estimates(strata, sizes, mapped, np.where(told, person, UNLABELLED + 1), names)
    taken = np.unique(strata[told])
    weights = sizes[strata[told]] / np.bincount(strata[told], minlength=len(sizes))[strata[told]]
    right = network[told] == person[told]
    product = done.metrics["product"]["stage"]
    fractions = done.metrics["stages"][product]["fractions"]
    result |= {
        "points": {
            "drawn": len(key["points"]),
            "answered": len(sure),
            "unsure": len(points) - len(sure),
            "unanswered": len(key["points"]) - answered,
            "trained_on": answered - len(points),
            "errors": int((mapped[told] != person[told]).sum()),
        },
        "product": product,
        "mapped": {name: fractions.get(name) for name in names},
        "unsure_as_errors": worst["accuracy"],
        "covered": float(sizes[taken].sum() / sizes.sum()),
        "calibration": calibrate(confidence[told] / 255, right, weights, strata[told], len(names), key["seed"]),
        "definitions": DEFINITIONS,
    }
    result["notes"] = _notes(result)
    write_json(folder / "validate.json", result)
    _write_rows(folder / "validate.csv", *_rows(result))
    return result


def _at(volume: Volume, points: list[dict[str, Any]]) -> np.ndarray:
    return np.array(
        [
            int(volume.read(p["z"], p["z"] + 1, slice(p["y"], p["y"] + 1), slice(p["x"], p["x"] + 1))[0, 0, 0])
            for p in points
        ]
    )


def _notes(result: dict[str, Any]) -> list[str]:
    notes = []
    if taught := result["points"]["trained_on"]:
        notes.append(f"{taught} answers are at voxels that were labelled for training since, and are left out")
    if result["covered"] < 1:
        notes.append(f"strata with {1 - result['covered']:.1%} of the voxels have no answer; nothing is said of them")
    for name, entry in result["classes"].items():
        found = entry["producers_accuracy"]
        if found is None:
            notes.append(f"no point is {name} by the person: its producer's accuracy is not known")
        elif found["points"] < 10:
            notes.append(
                f"{found['points']} points are {name} by the person, which is few: what the map misses of it may lie "
                "where no point met it"
            )
    return notes


def _rows(result: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    header = ["quantity", "class", "value", "standard_error", "low", "high", "points", "mapped"]
    rows = []
    for what in ("accuracy", "unsure_as_errors"):
        rows.append([what, "all", *_cells(result[what]), ""])
    for name, entry in result["classes"].items():
        for what, found in entry.items():
            rows.append([what, name, *_cells(found), result["mapped"][name] if what == "fraction" else ""])
    return header, rows


def _cells(found: dict[str, Any] | None) -> list[Any]:
    if found is None:
        return [""] * 5
    return [found["value"], found["standard_error"], *found["interval"], found["points"]]


def _write_rows(path: Path, header: list[str], rows: Any) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def text_of(result: dict[str, Any]) -> str:
    """The estimates as a short table for the terminal."""

    def cell(found: dict[str, Any] | None) -> str:
        if found is None:
            return "–"
        low, high = found["interval"]
        return f"{100 * found['value']:.1f} % ({100 * low:.1f} … {100 * high:.1f})"

    count = result["points"]
    lines = [
        f"{count['answered']} points answered, {count['unsure']} unsure, {count['unanswered']} not answered; "
        f"{count['errors']} of them the map has wrong; intervals at 95 %",
        f"accuracy {cell(result['accuracy'])}; if every unsure point is an error {cell(result['unsure_as_errors'])}",
    ]
    header = ["class", "fraction", "in the map", "user's accuracy", "producer's accuracy", "IoU"]
    rows = [
        [
            name,
            cell(entry["fraction"]),
            percent(result["mapped"][name]),
            *(cell(entry[key]) for key in ("users_accuracy", "producers_accuracy", "iou")),
        ]
        for name, entry in result["classes"].items()
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    found = result["calibration"]
    if found["temperature"] is None:
        lines.append(f"confidence: not calibrated, {found['reason']}")
    else:
        before, after = found["ece"]["before"], found["ece"]["after"]
        lines.append(
            f"confidence: temperature {found['temperature']:.2f}; expected calibration error {before['value']:.3f} "
            f"({before['interval'][0]:.3f} … {before['interval'][1]:.3f}) before, {after['value']:.3f} "
            f"({after['interval'][0]:.3f} … {after['interval'][1]:.3f}) after, on points it was not fitted on"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in result["notes"])])


def validate(workdir: Path, basedir: Path, sample: str, points: int = 200, form: Path | None = None) -> str:
    """The command: draw points (`form` is None), or read a form; what to print.

    Raises
    ------
    InputError
        If the sample has no finished run; else see `export_points` and `read_answers`.
    """
    done = open_finished(Runs(load_runs(workdir, basedir)[0]), sample, workdir / "results")
    known = user_labels(done.run.settings, str(done.run.file("labels.path") or ""), done.product.shape)
    if form is not None:
        return text_of(read_answers(done, form, known))
    blind = export_points(done, points, known)
    lines = [
        f"{points} points for blind labelling: {blind}; hand over that folder alone, key.json beside it has the places"
    ]
    if numbered := unnamed(done.metrics["classes"], word_of(done.metrics)):
        lines.append(f"note: a person knows {', '.join(numbered)} only by name: name it in `classes:` and draw again")
    return "\n".join([*lines, f"then: beamseg validate {sample} --read {blind / 'form.csv'}"])
