"""Lengths and volumes in words, in the unit that suits them."""

from __future__ import annotations


def length_text(length: float, unit: str) -> str:
    """`1500, 'µm'` -> `1.5 mm`; `0.2, 'µm'` -> `200 nm`; pixels stay pixels."""
    if unit == "µm" and length >= 1000:
        length, unit = length / 1000, "mm"
    elif unit == "µm" and length < 1:
        length, unit = length * 1000, "nm"
    return f"{length:g} {unit}"


def volume_text(um3: float, of: float) -> str:
    """A volume in the unit that suits the whole it is part of: mm³ from 10⁷ µm³, nm³ below 10; five digits."""
    factor, unit = (1e-9, "mm³") if of >= 1e7 else (1.0, "µm³") if of >= 10 else (1e9, "nm³")
    value = um3 * factor
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.4g} {unit}"
