"""JSON and safetensors from anywhere: bounded in size, plain in kind, and whole, before anything is made of them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .errors import InputError

MAX_JSON = 16 << 20
MAX_HEADER = 1 << 20
MAX_AXES = 8
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1}
FLOATS = ("F32", "F16", "BF16")
METADATA = "__metadata__"
OWN = "use a bundle that beamseg wrote (results/groups/<group>/bundle), copied whole"


def parse(text: str | bytes) -> Any:
    """JSON of numbers that a float holds, of texts that can be written, and of keys that are given once.

    Raises
    ------
    ValueError, RecursionError
        For anything else.
    """

    def constant(name: str) -> None:
        raise ValueError(f"the constant {name}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key[:60]!r} twice")
            found[key] = value
        return found

    value = json.loads(text, parse_constant=constant, parse_float=_real, parse_int=_integer, object_pairs_hook=once)
    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair raises
    return value


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]}, which no float holds")
    return value


def _integer(digits: str) -> int:
    value = int(digits)
    if abs(value) > sys.float_info.max:
        raise ValueError(f"an integer of {len(digits)} digits, which no float holds")
    return value


def read_plain_json(path: Path, remedy: str = OWN) -> Any:
    """JSON of bounded size, as `parse` reads it; raises InputError for anything else, links included."""
    if path.is_symlink():
        raise InputError(path, "a symbolic link", "a plain file", remedy)
    size = path.stat().st_size
    if size > MAX_JSON:
        raise InputError(path, f"{size} bytes", f"at most {MAX_JSON}", remedy)
    try:
        return parse(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"no JSON ({error})", "plain JSON", remedy) from error


def read_header(path: Path, kinds: Collection[str] = FLOATS) -> dict[str, Any]:
    """The header of a safetensors file, once it is known to describe the file to its last byte.

    Parameters
    ----------
    path : Path
    kinds : collection of str
        Types that its tensors may have, of `ITEM_BYTES`.

    Raises
    ------
    InputError
        For a file of another kind (a pickle, say), and a header or a shape beyond the file.
    """
    size = path.stat().st_size
    wanted = "a safetensors file"
    with open(path, "rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if first[:1] == b"\x80" or first[:2] == b"PK":
            raise InputError(path, "a pickle or an archive, which may run code when opened", wanted, OWN)
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise InputError(path, f"a header of {length} bytes in a file of {size}", f"at most {MAX_HEADER}", OWN)
        try:
            header = parse(file.read(length))
        except (ValueError, RecursionError) as error:
            raise InputError(path, f"a header that is no JSON ({error})", wanted, OWN) from error
    if not isinstance(header, dict):
        raise InputError(path, f"a header that is a {type(header).__name__}", wanted, OWN)
    about = header.get(METADATA, {})
    if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
        raise InputError(path, f"{METADATA} {str(about)[:80]}", "texts by name", OWN)
    tensors = {name: entry for name, entry in header.items() if name != METADATA}
    for name, entry in tensors.items():
        _check_tensor(path, name, entry, kinds)
    end = 0
    for start, stop in sorted(entry["data_offsets"] for entry in tensors.values()):
        if start != end:
            found = f"a tensor from byte {start} on, the one before it up to {end}"
            raise InputError(path, found, "one tensor after the other", OWN)
        end = stop
    if end != size - 8 - length:
        raise InputError(path, f"{size} bytes", f"{8 + length + end}, as its header says", OWN)
    return header


def _check_tensor(path: Path, name: str, entry: Any, kinds: Collection[str]) -> None:
    """Refuse a tensor of another type, or of a shape that does not take the bytes that it names."""
    entry = entry if isinstance(entry, dict) else {}
    kind = str(entry.get("dtype"))
    shape: Any = entry.get("shape")
    span: Any = entry.get("data_offsets")
    if kind not in kinds:
        found = f"tensor {name[:60]!r} of type {kind[:20]}"
        raise InputError(path, found, f"type {' or '.join(sorted(kinds))}", OWN)
    whole = wholes(shape) and len(shape) <= MAX_AXES and wholes(span) and len(span) == 2
    if not whole or math.prod(shape) * ITEM_BYTES[kind] != span[1] - span[0]:
        raise InputError(path, f"tensor {name[:60]!r}: {str(entry)[:120]}", "a shape that fits its bytes", OWN)


def is_whole(value: Any) -> bool:
    """Whether this is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether this is a finite number, which a float holds; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def wholes(values: Any, least: int = 0) -> bool:
    """Whether this is a list of integers, none below `least`."""
    return isinstance(values, list) and all(is_whole(value) and value >= least for value in values)


def numbers(values: Any, count: int) -> bool:
    """Whether these are `count` finite numbers in a list."""
    return isinstance(values, list) and len(values) == count and all(map(is_number, values))
