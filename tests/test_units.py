"""Lengths and volumes in words."""

from beamseg import units


def test_units_suit_the_length() -> None:
    assert units.length_text(1500, "µm") == "1.5 mm"
    assert units.length_text(20, "µm") == "20 µm"
    assert units.length_text(0.2, "µm") == "200 nm"
    assert units.length_text(0.5, "px") == "0.5 px"


def test_volumes_have_the_unit_of_the_whole() -> None:
    assert units.volume_text(2.5e6, 1e8) == "0.0025 mm³"
    assert units.volume_text(76400, 2e5) == "76,400 µm³"
    assert units.volume_text(0, 2e5) == "0 µm³"
    assert units.volume_text(0.002, 1) == "2,000,000 nm³"
