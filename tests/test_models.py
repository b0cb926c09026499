"""Networks: shapes, size, what the skip connections carry, seams between tiles, weights files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from scipy.ndimage import gaussian_filter
from torch import nn

from beamseg.device import Compute
from beamseg.errors import InputError
from beamseg.losses import cross_entropy
from beamseg.models import (
    MODELS,
    REFERENCE_MODELS,
    build_model,
    deeplab,
    load_weights,
    save_weights,
    segformer,
    unet_3d,
)
from beamseg.models.blocks import (
    EPS,
    GROUPS,
    AttentionGate,
    Dropout,
    NormPReLU,
    SqueezeExcite,
    pad_to_multiple,
    upsample,
)
from beamseg.models.encoder_decoder import EncoderDecoder, nested_order
from beamseg.predict import predict_slices
from beamseg.volumes import ArrayVolume

torch.set_num_threads(1)
SCHEMA = Path(__file__).parents[1] / "workflow" / "schemas" / "model.yaml"
METHODS = Path(__file__).parents[1] / "docs" / "methods.md"
EVERY = pytest.mark.parametrize("name", sorted(MODELS | REFERENCE_MODELS))


def seeded(name: str, channels: int = 3, classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, channels, classes)


def test_the_schema_names_them_all() -> None:
    assert sorted(yaml.safe_load(SCHEMA.read_text())["properties"]["name"]["enum"]) == sorted(MODELS | REFERENCE_MODELS)
    assert len(MODELS) == 12


@EVERY
def test_the_documented_size(name: str) -> None:
    rows = [line.split(" | ") for line in METHODS.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    model = seeded(name, 7, 4)
    count = sum(p.numel() for p in model.parameters())
    assert [(row[2], int(row[4].strip(" |"))) for row in rows] == [(f"{count / 1e6:.2f}", model.stride)]


@EVERY
def test_two_million_parameters(name: str) -> None:
    count = sum(p.numel() for p in build_model(name, 7, 4).parameters())
    assert abs(count - 2e6) < 0.2e6


@pytest.mark.parametrize("name", sorted(MODELS))
def test_norms_and_activations_are_those_of_the_paper(name: str) -> None:
    """Group norm, PReLU and dropout, and no other norm or activation in their place."""
    modules = list(build_model(name, 7, 4, dropout=0.3).modules())
    kinds = {type(module).__name__ for module in modules}
    assert "NormPReLU" in kinds
    assert not {kind for kind in kinds if "Norm" in kind} - {"NormPReLU", "GroupNorm"}
    assert not {kind for kind in kinds if kind.endswith(("LU", "Sigmoid", "Tanh"))} - {"NormPReLU", "PReLU", "Sigmoid"}
    assert {module.rate for module in modules if isinstance(module, Dropout)} - {0.0} == {0.3}


@EVERY
@pytest.mark.parametrize(
    ("channels", "classes", "size"),
    [(1, 2, (45, 61)), (3, 3, (3, 5)), (5, 4, (1, 1)), (7, 8, (16, 16)), (9, 10, (33, 50))],
)
def test_any_size_channels_and_classes(name: str, channels: int, classes: int, size: tuple[int, int]) -> None:
    model = seeded(name, channels, classes).eval()
    with torch.no_grad():
        logits = model(torch.rand(2, channels, *size))
    assert logits.shape == (2, classes, *size)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@EVERY
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = seeded(name).train()
    model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@EVERY
def test_bfloat16_is_near_float32_and_trains(name: str) -> None:
    model = seeded(name).eval()
    image = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = model(image)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(image)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.05 * exact.std()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.train()(image)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@EVERY
def test_a_seed_fixes_weights_and_dropout(name: str) -> None:
    models = [seeded(name).train() for _ in range(2)]
    image = torch.rand(1, 3, 40, 40)
    found = []
    for model, seed in ((models[0], 1), (models[1], 1), (models[1], 2)):
        torch.manual_seed(seed)
        found.append(model(image).detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])
    assert torch.equal(models[0].eval()(image), models[1].eval()(image))


@EVERY
def test_without_dropout_training_and_evaluation_are_one(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, 1, 2, dropout=0.0)
    image = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(model.train()(image), model.eval()(image))


@EVERY
def test_one_graph_to_compile(name: str) -> None:
    """No branch on data and no way back to Python when predicting; a break of the graph raises."""
    model = seeded(name).eval()
    image = torch.rand(1, 3, 32, 32)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)(image)
        torch.testing.assert_close(compiled, model(image))


@EVERY
def test_moves_with_the_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a torus, where an image has no border, shifting it by the total stride shifts the logits and nothing else."""
    for module in (deeplab, segformer):
        monkeypatch.setattr(module, "upsample", lambda x, f: x.repeat_interleave(f, 2).repeat_interleave(f, 3))
    model = seeded(name).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and any(module.padding):
            module.padding_mode = "circular"
    image = torch.rand(1, 3, 96, 96)
    step = model.stride
    with torch.no_grad():
        still = model(image)
        moved = model(image.roll((step, -step), (2, 3))).roll((-step, step), (2, 3))
        between = model(image.roll((1, 1), (2, 3))).roll((-1, -1), (2, 3))
    assert (moved - still).abs().max() < 1e-3 * still.std()
    assert (between - still).abs().max() > 0.1 * still.std()  # else the test could not see a shift


@EVERY
def test_without_skips_all_passes_through_the_bottleneck(name: str) -> None:
    """With the bottleneck's output held fixed, only a network with skip connections can tell two images apart."""
    model = seeded(name).eval()
    images = torch.rand(2, 1, 3, 64, 64)
    fixed = []

    def hold(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        fixed.append(output)
        return fixed[0]

    with torch.no_grad():
        free = [model(image) for image in images]
        handle = model.bottleneck.register_forward_hook(hold)
        held = [model(image) for image in images]
        handle.remove()
    assert len(fixed) == 2
    assert fixed[0].shape[-1] == 64 // model.stride
    assert not torch.equal(*free)
    assert torch.equal(*held) == name.endswith("_noskip")


@EVERY
def test_explanations_see_what_the_head_reads(name: str) -> None:
    model = seeded(name).eval()
    seen = []
    model.last_block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.rand(1, 3, 32, 32))
    assert torch.equal(*seen)


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
    with pytest.raises(InputError, match=r"found:\s+'resnet'\n  expected: one of unet, unet_noskip, "):
        build_model("resnet", 1, 2)


@EVERY
def test_weights_come_back(name: str, tmp_path: Path) -> None:
    model = build_model(name, 3, 5, dropout=0.2).eval()
    meta = {"name": name, "in_channels": 3, "n_classes": 5, "options": {"dropout": 0.2}, "crop": 32}
    save_weights(tmp_path / "w.safetensors", model, meta)
    again, found = load_weights(tmp_path / "w.safetensors")
    assert found == meta
    image = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        assert torch.equal(model(image), again(image))


@pytest.mark.parametrize(("name", "digest"), [("unet", "6bab5c68b2adde8f"), ("unet_noskip", "7c094191ac8143e4")])
def test_weights_of_version_0_1_still_fit(name: str, digest: str) -> None:
    """Names and shapes of the tensors, as files of finished runs hold them."""
    tensors = build_model(name, 7, 4).state_dict().items()
    text = " ".join(f"{key}{tuple(value.shape)}" for key, value in tensors)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_a_file_that_holds_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"not weights at all")
    with pytest.raises(InputError, match="not readable as weights"):
        load_weights(path)
    with pytest.raises(InputError, match="not readable as weights"):
        load_weights(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_upsampling_is_bilinear(factor: int) -> None:
    image = torch.randn(2, 3, 5, 7)
    wanted = F.interpolate(image, scale_factor=factor, mode="bilinear") if factor > 1 else image
    torch.testing.assert_close(upsample(image, factor), wanted)


def test_nodes_of_the_nested_decoder() -> None:
    assert nested_order(4) == [0, 1, 2, 0, 1, 0]


def test_nested_and_full_scale_nodes_join_all_they_should() -> None:
    """Channels that each block of the decoder reads, counted by hand for three levels of 16, 32 and 64."""
    nested = EncoderDecoder(1, 2, (16, 32, 64), 0.0, "nested")
    assert [block[0].in_channels for block in nested.decoder] == [16 + 16, 32 + 32, 16 + 2 * 16]
    full = EncoderDecoder(1, 2, (16, 32, 64), 0.0, "full_scale")
    assert [[conv[0].in_channels for conv in gather.convs] for gather in full.gather] == [[16, 32, 64], [16, 48, 64]]
    assert [block[0].in_channels for block in full.decoder] == [48, 48]


def test_a_kind_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="no such skip or block: cross, plain"):
        EncoderDecoder(1, 2, (16, 32), 0.0, "cross")


def test_gates_and_channel_weights_multiply() -> None:
    """With weights set to zero a gate says one half everywhere, and excitation halves all channels."""
    x = torch.randn(1, 16, 4, 4)
    gate, excite = AttentionGate(32, 8), SqueezeExcite(16)
    for layer in (gate.weigh[-1], excite.weigh[-1]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.equal(gate(x, x), torch.full((1, 1, 4, 4), 0.5))
    torch.testing.assert_close(excite(x), x / 2)


def test_attention_by_its_formula() -> None:
    torch.manual_seed(0)
    layer = segformer.Attention(16, 2, 1)
    x = torch.randn(1, 16, 3, 4)
    with torch.no_grad():
        query, key, value = (f(x)[0].reshape(2, 8, 12) for f in (layer.query, layer.key, layer.value))
        share = (query.mT @ key / 8**0.5).softmax(-1)  # head, pixel that asks, pixel that answers
        mixed = torch.einsum("hqk,hck->hcq", share, value).reshape(1, 16, 3, 4)
        torch.testing.assert_close(layer(x), layer.out(mixed))


def test_attention_is_to_a_coarser_image() -> None:
    layer = segformer.Attention(16, 2, 4)
    assert layer.reduce(torch.rand(1, 16, 8, 12)).shape == (1, 16, 2, 3)
    assert layer(torch.rand(1, 16, 8, 12)).shape == (1, 16, 8, 12)


STEPS = 12


@EVERY
def test_learns_and_tiles_agree_with_the_whole_slice(name: str) -> None:
    """A dozen steps lower the loss; then tiles of the crops' size give nearly what one tile over the slice gives.

    Nearly, not exactly: group norm and attention see what a tile holds. A seam would show as a jump at the tiles'
    borders of what the two differ by.
    """
    rng = np.random.default_rng(0)
    field = gaussian_filter(rng.normal(size=(128, 128)), 3)
    label = torch.from_numpy((field > 0).astype(np.int64))
    grey = np.clip(0.5 + 0.12 * field / field.std() + rng.normal(0, 0.1, field.shape), 0.01, 1).astype(np.float32)
    model = seeded(name, 1, 2).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    losses = []
    for _ in range(STEPS):
        places = [(slice(y, y + 64), slice(x, x + 64)) for y, x in rng.integers(0, 65, (4, 2))]
        images = torch.stack([torch.from_numpy(grey[place])[None] for place in places])
        total, count = cross_entropy(model(images), torch.stack([label[place] for place in places]))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        losses.append((total / count).item())
    assert np.mean(losses[-3:]) < 0.96 * np.mean(losses[:2])

    volume = ArrayVolume((grey[None] * 65535).astype(np.uint16))
    compute = Compute(torch.device("cpu"), None)
    confidence = []
    for tile in (128, 64):
        _, found, sure = next(predict_slices(model.eval(), volume, 0, 1, {"overlap": 0.5}, compute, tile, 1))
        confidence.append(np.where(found == 1, sure, 255.0 - sure) / 255)  # probability of class 1
    apart = confidence[1] - confidence[0]
    assert np.abs(apart).mean() < 0.06
    jumps = np.abs(np.diff(apart, axis=1)).mean(0)
    # Tiles begin or end at 32, 64 and 96; weighting all of their pixels alike makes this ratio about 6.
    assert jumps[[31, 63, 95]].mean() < 3 * jumps.mean()


def test_slices_are_convolved_in_three_dimensions() -> None:
    torch.manual_seed(0)
    layer = unet_3d.Conv3D(2, 8, 5)
    layer.norm = nn.Identity()
    x = torch.rand(2, 2, 5, 6, 7)
    kernel = layer.conv.weight.unflatten(1, (3, 2)).transpose(1, 2)  # (out, in, z, y, x)
    torch.testing.assert_close(layer(x), F.conv3d(x, kernel, padding=(0, 1, 1)))
    one = unet_3d.Conv3D(2, 8, 1)
    assert one(x[:, :, 2:3]).shape == (2, 8, 1, 6, 7)


def test_the_3d_unet_answers_for_the_middle_slice() -> None:
    """Mirrored along z, with kernels mirrored, it says the same; and it reads every slice."""
    model = seeded("unet_3d", 7, 2).eval()
    image = torch.rand(1, 7, 32, 32, requires_grad=True)
    logits = model(image)
    assert (torch.autograd.grad(logits.square().sum(), image)[0].abs().sum((0, 2, 3)) > 0).all()
    for module in model.modules():
        if isinstance(module, unet_3d.Conv3D) and module.reach == 3:
            weight = module.conv.weight.unflatten(1, (3, -1)).flip(1).flatten(1, 2)
            module.conv.weight.data.copy_(weight)
    torch.testing.assert_close(model(image.flip(1)), logits)
    with pytest.raises(ValueError, match="4 slices have no middle"):
        build_model("unet_3d", 4, 2)
