"""Class activation maps: a network whose map is known, and every network there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from beamseg import pictures
from beamseg.crops import read_stack
from beamseg.explain import LAYERS, class_maps, grad_cam
from beamseg.models import MODELS, REFERENCE_MODELS, build_model, save_weights
from beamseg.volumes import ArrayVolume

torch.set_num_threads(1)


class Linear(nn.Module):
    """Two features, the image's two channels; logits are linear in them, class 2 never wins."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.bottleneck = nn.Identity()
        self.last_block = nn.Identity()
        self.head = nn.Conv2d(2, 3, 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[2.0, -1.0], [0.0, 3.0], [0.0, 0.0]])[:, :, None, None])
            self.head.bias.copy_(torch.tensor([0.0, 0.0, -100.0]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.last_block(self.bottleneck(image)))


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_a_linear_network_by_hand(layer: str) -> None:
    """The gradient of a class's logit is its row of weights, so its map is relu(row · features), over the maximum."""
    first, second = torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.0, 0.0]]), torch.tensor([[0.0, 0.6, 1.0], [0.0, 0.0, 0.5]])
    image = torch.stack([first, second])[None]
    model = Linear()
    found = [grad_cam(model, image, c, layer) for c in range(3)]
    assert found[0].dtype == np.float32
    # Class 0: 2a − b = 2, 0.4, −1, 0.4, 0, −0.5. Class 1: 3b = 0, 1.8, 3, 0, 0, 1.5.
    np.testing.assert_allclose(found[0], [[[1.0, 0.2, 0.0], [0.2, 0.0, 0.0]]], atol=1e-6)
    np.testing.assert_allclose(found[1], [[[0.0, 0.6, 1.0], [0.0, 0.0, 0.5]]], atol=1e-6)
    assert not found[2].any()


def test_images_of_a_batch_do_not_mix() -> None:
    images = torch.rand(2, 2, 4, 5)
    images[1] *= 0.1
    together = grad_cam(Linear(), images, 0)
    apart = np.concatenate([grad_cam(Linear(), image[None], 0) for image in images])
    np.testing.assert_allclose(together, apart, atol=1e-6)
    assert together.max(axis=(1, 2)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", sorted(MODELS | REFERENCE_MODELS))
@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_every_network_leaves_a_map_and_no_trace(name: str, layer: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, 3, 2).eval().requires_grad_(False)
    image = torch.rand(1, 3, 45, 61)
    before = model(image)
    maps = np.concatenate([grad_cam(model, image, c, layer) for c in range(2)])
    assert maps.shape == (2, 45, 61)
    assert np.isfinite(maps).all()
    assert (maps.min() >= 0, maps.max()) == (True, 1.0)
    assert torch.equal(model(image), before)
    assert all(p.grad is None for p in model.parameters())


def test_maps_of_a_window_of_a_volume(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("unet_noskip", 3, 2).eval()
    meta = {"name": "unet_noskip", "in_channels": 3, "n_classes": 2, "options": {"dropout": 0.1}, "crop": 32}
    save_weights(tmp_path / "w.safetensors", model, meta)
    volume = ArrayVolume(np.random.default_rng(0).integers(1, 65536, (5, 40, 50)).astype(np.uint16))
    window = (slice(3, 35), slice(10, 42))
    maps = class_maps(tmp_path / "w.safetensors", volume, 0, window)
    stack = read_stack(volume, 0, 3, window)
    image = (torch.from_numpy(stack.astype(np.float32))[None] - 1) / 65534
    np.testing.assert_allclose(maps[1], grad_cam(model, image, 1)[0], atol=1e-3)


def test_the_figure_has_a_row_per_stage_and_a_column_per_class() -> None:
    grey = np.linspace(1, 65535, 30 * 40).reshape(30, 40).astype(np.uint16)
    maps = {"stage 2": np.random.default_rng(0).random((3, 30, 40)), "stage 3": np.zeros((3, 30, 40))}
    look = {"z": 4, "limits": (1.0, 65535.0), "pixel": (1.0, 1.0), "unit": "px"}
    figure = pictures.activation(grey, maps, ["void", "grain", "rim"], **look)
    assert isinstance(figure, Figure)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert len(panels) == 2 * 4
    assert [axes.get_title() for axes in panels[:4]] == ["slice 4", "void", "grain", "rim"]
    assert [panels[0].get_ylabel(), panels[4].get_ylabel()] == ["stage 2", "stage 3"]
    np.testing.assert_array_equal(panels[2].images[-1].get_array(), maps["stage 2"][1])
