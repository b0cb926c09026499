"""What jobs ask for follows from the size of a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml

from beamseg import footprint as footprint_module
from beamseg.footprint import footprint, peak_mb
from beamseg.models import build_model
from beamseg.models.blocks import EPS, GROUPS, NormPReLU
from beamseg.predict import TILES_PER_BATCH

SETTINGS: dict[str, Any] = {
    "mem_budget_mb": 4000,
    "pseudo_label": {"n_clusters": 4},
    "model": {"n_slices": 7},
    "train": {"batch": 16, "crop": 96, "objective": "classification"},
    "self_correct": {"batch": 8},
    "normalize": {"dtype": "uint16"},
    "export": {"formats": ["tiff"]},
    "stage3": "unbiased_teacher",
    "refine": ["mpp", "scm"],
    "slab_depth": 0,
}


def test_memory_goes_by_the_slice_and_not_by_the_volume() -> None:
    few, many = (peak_mb((depth, 2048, 2048), 4, SETTINGS) for depth in (1200, 9000))
    assert few == many
    assert few["train"] == pytest.approx(900 + 4000 + 16 * 96**2 * 1320 / 2**20)
    # 128 bytes for each of 4 Mi pixels, 8 slices of labels, confidence and grey, and 16 tiles for each of 8 threads
    tiles = 8 * 16 * 96**2 * 660 / 2**20
    assert few["segment"] == pytest.approx(900 + 4 * (8 * 4 + 12 * 7 + 12 + 32) + tiles)


def test_a_scan_of_4_tb_needs_more_than_the_budget() -> None:
    shape = (9000, 11000, 11000)
    peak = peak_mb(shape, 4, SETTINGS)
    assert peak["histogram"] == pytest.approx(300 + 288 * 121e6 / 2**20)  # 4 threads, 8 slices of 6 bytes and 24 more
    assert footprint(shape, 4, True, SETTINGS)["memory_mb"] == peak["histogram"]


def test_a_larger_batch_or_two_views_of_it_take_more_memory() -> None:
    training = SETTINGS["train"]

    def train(**changes: Any) -> float:
        return peak_mb((8, 64, 64), 4, {**SETTINGS, **changes})["train"] - 900 - 3 * 8 * 64**2 / 2**20

    once = train()
    assert once == pytest.approx(16 * 96**2 * 1320 / 2**20)
    assert train(train={**training, "crop": 192}) == pytest.approx(4 * once)
    assert train(train={**training, "objective": "contrastive"}) == pytest.approx(2 * once)
    assert train(self_correct={"batch": 64}) == pytest.approx(4 * once)
    assert train(self_correct={"batch": 64}, stage3="none") == pytest.approx(once)


PRESETS = Path(__file__).parents[1] / "config" / "presets"


def saved_bytes(model: torch.nn.Module, size: int) -> int:
    """Bytes of the tensors that a forward pass in training keeps for the backward one, each storage once."""
    found: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model.train()(torch.rand(1, 1, size, size))
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def as_on_a_gpu(block: NormPReLU, image: torch.Tensor) -> torch.Tensor:
    """Group norm, in float32 as CUDA's autocast has it, and PReLU, by PyTorch's own operations."""
    normed = F.group_norm(image.float(), GROUPS, block.weight, block.bias, EPS).to(image.dtype)
    return F.prelu(normed, block.slope.to(image.dtype))


@pytest.mark.parametrize(("preset", "views", "documented_mb"), [("slices", 1, 704), ("pixels", 2, 416)])
def test_a_step_of_the_presets_fits_6_5_gb(
    preset: str, views: int, documented_mb: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the documented peak the larger part is what is kept for the backward pass, so the documents stay true too."""
    monkeypatch.setattr(NormPReLU, "forward", as_on_a_gpu)
    settings = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())
    model = settings["model"]
    embedding = {"embedding": 16} if views == 2 else {}
    network = build_model(model["name"], 1, 2, dropout=model.get("dropout", 0.1), **embedding,
                          **({"widths": model["widths"]} if "widths" in model else {}))  # fmt: skip
    # The difference of two sizes: copies of the weights are kept too, and do not grow with the crops.
    per_pixel = (saved_bytes(network, 96) - saved_bytes(network, 64)) / (96**2 - 64**2)
    batch, crop = settings["train"]["batch"], settings["train"]["crop"]
    kept_mb = views * per_pixel * batch * crop**2 / 2**20
    assert 0.5 * documented_mb < kept_mb < documented_mb
    assert 1.25 * 2**20 * kept_mb + 0.6e9 < 6.5e9


DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("heading", "shape"),
    [
        ("## One scan of 1,200 × 2,048², one GPU", (1200, 2048, 2048)),
        ("## 9,000 × 11,000 × 11,000 (4.3 TB of float32), 8 GPUs", (9000, 11000, 11000)),
    ],
)
def test_the_page_on_scale_says_what_is_reckoned(heading: str, shape: tuple[int, int, int]) -> None:
    section = (DOCS / "scale.md").read_text().split(f"{heading}\n")[1].split("\n## ")[0]
    head, _, *rows = [[cell.strip() for cell in line.split("|")] for line in section.splitlines() if line[:1] == "|"]
    (column,) = (index for index, cell in enumerate(head) if cell.startswith("memory"))
    peak = peak_mb(shape, 4, SETTINGS)
    said = {}
    for row in rows:
        stage = row[1].split(",")[0].replace("normalize", "histogram")
        if stage in peak:
            said[row[1]] = float(row[column].split(" GB")[0])
            assert said[row[1]] == pytest.approx(peak[stage] * 2**20 / 1e9, rel=0.03), row[1]
    assert len(said) == 4


def test_the_page_on_scale_repeats_what_was_measured_of_crops() -> None:
    (row,) = (line for line in (DOCS / "results.md").read_text().splitlines() if line.startswith("| cache (blosc-lz4"))
    assert f"| {row.split('|')[2].strip()} /s of 7 × 256² |" in (DOCS / "scale.md").read_text()


def test_what_is_accounted_for_is_what_segment_does() -> None:
    rule = (Path(__file__).parents[1] / "workflow" / "rules" / "segment.smk").read_text()
    assert footprint_module.TILES_PER_BATCH == TILES_PER_BATCH
    assert f"threads: {footprint_module.SEGMENT_THREADS}\n" in rule
