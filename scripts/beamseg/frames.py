"""Frames: images that stand alone, of one size or several, and their labels, paired by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from scipy import ndimage

from .crops import keyed_rng
from .errors import InputError
from .label_values import UNLABELLED
from .labels import REST
from .readers import dm, open_source
from .readers.numbering import natural_key
from .readers.source import said_size
from .readers.tiff_pages import open_tiff, voxel_size

SUFFIXES = (".png", ".tif", ".tiff", *dm.SUFFIXES)
PARTS = ("train", "validation", "test", "hidden")
BAR = {"least_width": 16, "least_aspect": 3.0, "least_filled": 0.95}


@dataclass(frozen=True)
class Frames:
    """Frames by name, in order; `read(name)` is one as (y, x) in its own type."""

    names: list[str]
    read: Callable[[str], np.ndarray]
    pixel_nm: float | None


def open_frames(path: str | Path, dataset: str | None = None) -> Frames:
    """Open a folder of PNG, TIFF, DM3 or DM4 frames (named as the file without suffix), or a movie (by number).

    Raises
    ------
    InputError
        If there is nothing to read, or two files of a folder have one name.
    """
    path = Path(path)
    if path.is_dir():
        files = named_files(path)
        sizes = {pixel_of(file) for file in files.values()}
        return Frames(list(files), lambda name: read_image(files[name]), sizes.pop() if len(sizes) == 1 else None)
    source = open_source(path, dataset)
    names = [f"{index:06d}" for index in range(source.shape[0])]
    pixel = square_nm(source.voxel_size_um)
    return Frames(names, lambda name: source.read(int(name), int(name) + 1)[0], pixel)


def named_files(folder: Path) -> dict[str, Path]:
    """Name without suffix -> image file of a folder, in natural order."""
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "a folder of images", "correct the path")
    here = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    files: dict[str, Path] = {}
    for file in sorted(here, key=lambda p: natural_key(p.name)):
        if file.stem in files:
            twice = f"{files[file.stem].name} and {file.name}"
            raise InputError(folder, twice, "a name given once", "remove one of them")
        files[file.stem] = file
    if not files:
        raise InputError(folder, "no PNG, TIFF, DM3 or DM4 file", "one image per frame", "correct the path")
    return files


def read_image(file: Path) -> np.ndarray:
    """One image (y, x); colours are averaged."""
    if file.suffix.lower() in dm.SUFFIXES:
        return open_source(file).read(0, 1)[0]
    try:
        png = file.suffix.lower() == ".png"
        image = imagecodecs.png_decode(file.read_bytes()) if png else tifffile.imread(file)
    except Exception as error:  # codecs raise errors of many kinds; all mean that the file cannot be read
        raise InputError(file, f"cannot be decoded ({error})", "a readable image", "copy the file again") from error
    if image.ndim == 3 and image.shape[-1] in (2, 3, 4):
        colours = image[..., : 1 if image.shape[-1] == 2 else 3]
        return colours.mean(axis=-1).astype(image.dtype)
    if image.ndim != 2:
        raise InputError(file, f"an image of shape {image.shape}", "rows and columns", "save one image per file")
    return image


def pixel_of(file: Path) -> float | None:
    """Pixel size in nm that a TIFF or DM file gives; None for a PNG, and for pixels that are not square."""
    if file.suffix.lower() == ".png":
        return None
    if file.suffix.lower() in dm.SUFFIXES:
        return square_nm(open_source(file).voxel_size_um)
    with open_tiff(file) as tiff:
        return square_nm(said_size(partial(voxel_size, tiff))[0])


def square_nm(size_um: list[float] | None) -> float | None:
    """The edge in nm of pixels that are as wide as high, else None."""
    if size_um is None or abs(size_um[1] - size_um[2]) > 1e-3 * size_um[2]:
        return None
    return 1e3 * size_um[1]


def describe(frames: Frames, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Per frame its name, height, width and, as `saturated`, the share of pixels at its largest value, or at none."""
    rows = []
    for name in names or frames.names:
        image = frames.read(name)
        numbers = np.isfinite(image)
        most = image[numbers].max() if numbers.any() else 0
        share = float(np.mean((image == most) | ~numbers))
        rows.append(
            {"name": name, "height": image.shape[0], "width": image.shape[1], "saturated": float(f"{share:.4f}")}
        )
    return rows


def usual_size(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """The size (y, x) that most frames have, the first of them where several are as frequent."""
    sizes = [(row["height"], row["width"]) for row in rows]
    return max(dict.fromkeys(sizes), key=sizes.count)


def split(names: list[str], seed: int, settings: dict[str, Any]) -> dict[str, list[str]]:
    """Labelled frames -> train, validation, test and hidden, by blocks of consecutive frames.

    Neighbours in a movie are nearly the same image, so a split frame by frame would test on what was trained on. Blocks
    are drawn by the seed until a part has its share; training has at least one block.

    Raises
    ------
    InputError
        If there are too few frames for the parts that are wanted.
    """
    ordered = sorted(names, key=natural_key)
    size = settings["block"]
    blocks = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    order = [blocks[i] for i in keyed_rng(seed, "slices", 0).permutation(len(blocks))]
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    wanted = {part: settings[part] * len(ordered) for part in ("test", "validation")}
    if len(blocks) < 1 + sum(n > 0 for n in wanted.values()):
        raise InputError(
            "frames.block",
            f"{len(ordered)} labelled frames in {len(blocks)} blocks of {size}",
            "a block for each part: training, validation, test",
            "label more frames, or lower `frames.block`",
        )
    wanted["hidden"] = settings["hidden"] * len(ordered)
    for part, n in wanted.items():
        while n > 0 and len(parts[part]) < n and len(order) > 1:
            parts[part] += order.pop()
    parts["train"] = [name for block in order for name in block]
    return {part: sorted(found, key=natural_key) for part, found in parts.items()}


def frames_by_part(names: list[str], parts: dict[str, list[str]]) -> dict[str, list[str]]:
    """All frames of a movie, with a label or not, by the part that their labelled neighbours on both sides are in.

    A frame between two parts is in none: it looks like both. So what is tested was not among what was learnt from
    without a label either.
    """
    of = {name: part for part, found in parts.items() for name in found}
    known = [of.get(name) for name in names]
    before, after = (_carried(known), _carried(known[::-1])[::-1])
    found: dict[str, list[str]] = {part: [] for part in parts}
    for name, a, b in zip(names, before, after, strict=True):
        if (part := a or b) is not None and (b or a) == part:
            found[part].append(name)
    return found


def _carried(values: list[str | None]) -> list[str | None]:
    """Each value, or the last that there was."""
    found: list[str | None] = []
    for value in values:
        found.append(value or (found[-1] if found else None))
    return found


def short_keys(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by the last part of their dotted keys: `frames.block` -> `block`."""
    return {key.rpartition(".")[2]: value for key, value in settings.items()}


def class_of_grey(given: dict[str, int | None]) -> dict[int, int]:
    """The key `labels.map` for masks of frames: grey value -> class, 255 for None; InputError for `rest`."""
    if REST in given:
        raise InputError("labels.map", REST, "grey values and their classes", "name each grey value of the masks")
    return {int(grey): UNLABELLED if label is None else label for grey, label in given.items()}


def read_mask(file: Path, grey_to_class: dict[int, int], n_classes: int) -> np.ndarray:
    """A mask as classes, uint8 (y, x); grey values that the map does not name must be classes themselves or 255.

    Raises
    ------
    InputError
        For a value that is no class.
    """
    image = read_image(file)
    if not np.isfinite(image).all():
        raise InputError(file, "pixels that are no numbers", "a class in every pixel", "mend the mask")
    values = np.unique(image)
    table = {int(v): grey_to_class.get(int(v), int(v)) for v in values}
    bad = [v for v, c in table.items() if not (0 <= c < n_classes or c == UNLABELLED)]
    if bad:
        raise InputError(
            file,
            f"grey value {bad[0]}",
            f"one of {', '.join(map(str, sorted(grey_to_class)))}" if grey_to_class else f"0 to {n_classes - 1}",
            "add it to `labels.map`, or mend the mask",
        )
    return np.array([table[int(v)] for v in values], np.uint8)[np.searchsorted(values, image)]


def paired(names: list[str], folder: str | Path) -> dict[str, Path]:
    """Name of a frame -> mask file of that name.

    Raises
    ------
    InputError
        If a mask has no frame.
    """
    files = named_files(Path(folder))
    known = set(names)
    if strays := [name for name in files if name not in known]:
        raise InputError(
            folder, f"{len(strays)} masks without a frame: {', '.join(strays[:5])}",
            f"masks named as frames are, {names[0]} say", "rename or remove them",
        )  # fmt: skip
    return files


def burnt_in(image: np.ndarray) -> np.ndarray:
    """Bool (y, x): flat bars of the frame's largest or smallest value, as microscopes burn their scale bars in."""
    found = np.zeros(image.shape, bool)
    for value in (image.max(), image.min()):
        numbered, _ = ndimage.label(image == value)
        for index, box in enumerate(ndimage.find_objects(numbered), start=1):
            height, width = (span.stop - span.start for span in box)
            if width < BAR["least_width"] or width < BAR["least_aspect"] * height or width > 0.6 * image.shape[1]:
                continue
            if (numbered[box] == index).mean() >= BAR["least_filled"]:
                found[box] = True
    return found
