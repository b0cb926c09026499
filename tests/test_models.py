"""Networks: shapes, size, the hand-written backward pass, weights files."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from beamseg.errors import InputError
from beamseg.models import MODELS, build_model, load_weights, save_weights
from beamseg.models.blocks import EPS, GROUPS, NormPReLU, pad_to_multiple

torch.set_num_threads(1)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_two_million_parameters(name: str) -> None:
    count = sum(p.numel() for p in build_model(name, 7, 4).parameters())
    assert abs(count - 2e6) < 0.2e6


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize(("channels", "classes", "size"), [(7, 4, (33, 50)), (1, 2, (3, 5)), (3, 10, (16, 16))])
def test_any_size_channels_and_classes(name: str, channels: int, classes: int, size: tuple[int, int]) -> None:
    model = build_model(name, channels, classes).eval()
    with torch.no_grad():
        logits = model(torch.rand(2, channels, *size))
    assert logits.shape == (2, classes, *size)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_only_skips_carry_fine_detail_past_the_bottom() -> None:
    """With the coarse path silenced the U-Net still sees the image, the U-Net without skips sees nothing."""
    image = torch.rand(1, 1, 32, 32)
    for name, sees in (("unet", True), ("unet_noskip", False)):
        model = build_model(name, 1, 2).eval()
        torch.nn.init.zeros_(model.up[-1].weight)
        with torch.no_grad():
            spread = model(image)[..., 8:24, 8:24].std(dim=(2, 3)).max()
        assert (spread > 1e-3) == sees


def test_own_backward_is_that_of_group_norm_and_prelu() -> None:
    torch.manual_seed(0)
    layer = NormPReLU(16)
    for parameter in layer.parameters():
        parameter.data.normal_()
    image = (2 * torch.randn(3, 16, 5, 7) + 3).requires_grad_()
    weight = torch.randn(3, 16, 5, 7)
    variables = [image, layer.weight, layer.bias, layer.slope]
    own = layer(image)
    reference = F.prelu(F.group_norm(image, GROUPS, layer.weight, layer.bias, EPS), layer.slope)
    torch.testing.assert_close(own, reference, rtol=1e-4, atol=1e-5)
    found = torch.autograd.grad((own * weight).sum(), variables)
    wanted = torch.autograd.grad((reference * weight).sum(), variables)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(layer(image), reference, rtol=1e-4, atol=1e-5)


def test_padding_keeps_the_image_and_reflects() -> None:
    image = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_to_multiple(image, 4)
    assert padded.shape == (1, 1, 4, 4)
    assert torch.equal(padded[..., :2, :3], image)
    assert pad_to_multiple(padded, 4) is padded


def test_unknown_name() -> None:
    with pytest.raises(InputError, match=r"found:\s+'resnet'\n  expected: one of unet, unet_noskip"):
        build_model("resnet", 1, 2)


def test_weights_come_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = build_model("unet", 3, 5, dropout=0.2).eval()
    meta = {"name": "unet", "in_channels": 3, "n_classes": 5, "options": {"dropout": 0.2}, "crop": 32}
    save_weights(tmp_path / "w.safetensors", model, meta)
    again, found = load_weights(tmp_path / "w.safetensors")
    assert found == meta
    image = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        assert torch.equal(model(image), again(image))


def test_a_file_that_holds_no_weights(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"not weights at all")
    with pytest.raises(InputError, match="not readable as weights"):
        load_weights(path)
    with pytest.raises(InputError, match="not readable as weights"):
        load_weights(tmp_path / "absent.safetensors")
