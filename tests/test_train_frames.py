"""Training on frames: schedules, weights of the consistency, perturbations and losses by hand, and the six models."""

import math
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from beamseg import perturbations
from beamseg.checkpoint import Resume
from beamseg.device import choose
from beamseg.errors import InputError
from beamseg.frame_batches import Item, Task, batch_of
from beamseg.frames import open_frames, paired
from beamseg.layers import defaults
from beamseg.losses import dice_cross_entropy, softmax_mse
from beamseg.models import build_model
from beamseg.segment_frames import segment_frames
from beamseg.simulate_frames import simulate_frames
from beamseg.train_frames import consistency_weight, learning_rate, part_of, train_frames

SCHEMA = yaml.safe_load((Path(__file__).parents[1] / "workflow" / "schemas" / "train_frames.yaml").read_text())
SETTINGS = defaults(SCHEMA)
PRESETS = Path(__file__).parents[1] / "config" / "presets"
MAP = {0: 0, 127: 1, 255: 2}
ONE = perturbations.Share(0, 1)


def test_polynomial_decay_by_hand():
    rates = learning_rate({"lr": 0.01, "schedule": "polynomial"}, 4)
    assert rates == pytest.approx([0.01 * (1 - t / 4) ** 0.9 for t in range(4)])


def test_decay_as_printed_multiplies_the_last_rate():
    rates = learning_rate({"lr": 0.01, "schedule": "as_printed"}, 4)
    first = 0.01 * (1 - 0.0)
    second = first * (1 - 0.25**0.9)
    assert rates == pytest.approx([0.01, first, second, second * (1 - 0.5**0.9)])


def test_the_weight_of_consistency_rises_in_steps_and_stays():
    settings = {"consistency": 30.0, "ramp": 0.1}
    weights = [consistency_weight(step, 1000, settings) for step in (0, 50, 100, 999)]
    assert weights == pytest.approx([30 * math.exp(-5), 30 * math.exp(-1.25), 30, 30])
    assert consistency_weight(0, 1000, settings | {"ramp": 0}) == 30


def test_dice_and_cross_entropy_by_hand():
    logits = torch.log(torch.tensor([[[[0.8, 0.4, 0.5]], [[0.2, 0.6, 0.5]]]]))
    target = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    value, count = dice_cross_entropy(logits, target)
    entropy = -(math.log(0.8) + math.log(0.6)) / 2
    dice = ((2 * 0.8 + 1) / (1.2 + 1 + 1) + (2 * 0.6 + 1) / (0.8 + 1 + 1)) / 2
    assert int(count) == 2
    assert float(value / count) == pytest.approx(entropy + 1 - dice, rel=1e-5)


def test_softmax_is_taken_once_and_the_target_has_no_gradient():
    logits = torch.log(torch.tensor([[[[0.9]], [[0.1]]]])).requires_grad_()
    target = torch.tensor([[[[0.5]], [[0.5]]]], requires_grad=True)
    value, count = softmax_mse(logits, target)
    assert float((value / count).detach()) == pytest.approx(0.16)
    value.backward()
    assert logits.grad is not None
    assert target.grad is None


def test_feature_noise_is_within_three_tenths():
    torch.manual_seed(0)
    z = torch.full((2, 3, 8, 8), 2.0)
    ratio = perturbations.feature_noise(z) / z
    assert 0.7 <= float(ratio.min()) < 0.75
    assert 1.25 < float(ratio.max()) <= 1.3


def test_feature_drop_takes_the_most_active_places_alone():
    torch.manual_seed(0)
    z = torch.tensor([0.1, 0.69, 0.91, 1.0]).expand(1, 2, 1, 4)
    assert perturbations.feature_drop(z)[0, 0, 0].tolist() == pytest.approx([0.1, 0.69, 0, 0])


def test_spatial_dropout_takes_whole_channels():
    torch.manual_seed(0)
    kept = perturbations.spatial_dropout(torch.ones(1, 64, 4, 4), ONE)[0].flatten(1)
    assert set(kept.mean(1).tolist()) == {0.0, 2.0}


def probability(mask):
    one = torch.tensor(mask, dtype=torch.float32)
    return torch.stack([1 - one, one])[None]


def test_masking_by_the_prediction():
    seen = probability([[0, 0, 1, 1], [0, 0, 1, 1]])
    z = torch.ones(1, 3, 1, 2)
    assert perturbations.object_masking(z, seen)[0, 0].tolist() == [[1, 0]]
    assert perturbations.context_masking(z, seen)[0, 0].tolist() == [[0, 1]]


def test_guided_cutout_erases_inside_the_objects_box():
    torch.manual_seed(1)
    mask = np.zeros((20, 20))
    mask[5:15, 5:15] = 1
    kept = perturbations.guided_cutout(torch.ones(1, 2, 20, 20), probability(mask), ONE)[0, 0]
    assert int((kept == 0).sum()) == 16  # 0.4 of both edges
    assert int((kept[5:15, 5:15] == 0).sum()) == 16


def test_the_adversarial_direction_is_the_decoders_own():
    torch.manual_seed(0)
    z = torch.zeros(1, 2, 2, 2)
    decoder = torch.nn.Conv2d(2, 2, 1, bias=False)
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor([[[[1.0]], [[0.0]]], [[[-1.0]], [[0.0]]]]))  # blind to channel 1
    moved = perturbations.adversarial(z, decoder, ONE)
    assert float(moved.norm()) == pytest.approx(perturbations.STRENGTH, rel=1e-4)
    assert float(moved[:, 1].abs().max()) == 0
    assert decoder.weight.grad is None


@pytest.mark.parametrize("name", ["frame_unet", "frame_pspnet"])
def test_networks_of_frames_take_any_shape_and_come_in_two_parts(name):
    torch.manual_seed(0)
    model = build_model(name, 1, 3, width=16).eval()
    image = torch.rand(1, 1, 50, 37)
    with torch.no_grad():
        logits = model(image)
        features = model.encode(image)
        decoder = part_of(model, "decoder")
        again = decoder.decode(features)[..., :50, :37]
    assert logits.shape == (1, 3, 50, 37)
    assert torch.equal(logits, again)
    names = {key.split(".")[0] for key, _ in decoder.named_parameters()}
    assert not names & set(model.encoder_parts)


def test_the_original_widths_have_the_original_numbers_of_parameters():
    with torch.device("meta"):
        unet = build_model("frame_unet", 1, 3, width=64)
        resnet = build_model("frame_pspnet", 1, 3, width=64).resnet
    assert sum(p.numel() for p in unet.parameters()) / 31.03e6 == pytest.approx(1, abs=0.01)
    assert sum(p.numel() for p in resnet.parameters()) / 21.28e6 == pytest.approx(1, abs=0.01)


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movie")
    simulate_frames(folder, {"frames": 8, "size": 64, "labelled": 6, "noise": 0.05, "defects": False}, 0)
    return folder


def items(folder):
    frames = open_frames(folder / "frames")
    masks = paired(frames.names, folder / "labels")
    with_mask = [Item(frames, name, file) for name, file in masks.items()]
    return with_mask[:-1], with_mask[-1:], [Item(frames, name) for name in frames.names if name not in masks]


def run(folder, out, settings, size=32, **options):
    parts = items(folder)
    options = {"stage3": "none", "seed": 0, "device": "cpu", **options}
    train_frames(
        *parts, out / "w.safetensors", out / "c.csv", settings=settings, size=size, grey_to_class=MAP, **options
    )
    return load_file(out / "w.safetensors")


def of_preset(letter):
    preset = yaml.safe_load((PRESETS / f"nanowires_{letter}.yaml").read_text())
    small = {"width": 16, "epochs": 1, "batch": 3, "pseudo_frames": 2}
    return SETTINGS | preset["train_frames"] | small, preset["stage3"]


@pytest.mark.parametrize("letter", "abcdef")
def test_the_six_models_train(movie, tmp_path, letter):
    settings, stage3 = of_preset(letter)
    weights = run(movie, tmp_path, settings, stage3=stage3)
    assert all(bool(torch.isfinite(w).all()) for w in weights.values())
    phases = {line.split(",")[0] for line in (tmp_path / "c.csv").read_text().splitlines()[1:]}
    wanted = {
        "c": {"supervised", "cross_consistency"},
        "f": {"supervised", "pseudo_labeling"},
    }
    others = {"cross_consistency"} if letter in "be" else {"dice_cross_entropy"}
    assert phases == wanted.get(letter, others)


def test_a_batch_is_as_large_as_its_frames_and_not_as_what_they_may_be(movie):
    frames = open_frames(movie / "frames")
    task = Task(SETTINGS, 512, MAP, 0, choose("cpu"))
    wide = Item(frames, frames.names[0])
    labels = []

    def label(item, image):
        labels.append(image)
        return np.ones(image.shape[-2:], np.uint8)

    images, targets = batch_of([wide], label, task, (0, 0))
    (image,) = labels
    assert image.shape[-2] < image.shape[-1] == images.shape[-1] == images.shape[-2]
    assert int((targets == 1).sum()) == image[0].numel()
    assert float((images == 0).float().mean()) < 0.1  # no black margin


def test_the_frozen_resnet_stays_what_labels_made_it(movie, tmp_path):
    settings, _ = of_preset("c")
    frozen = run(movie, tmp_path, settings)
    alone = run(movie, tmp_path, settings | {"objective": "dice_cross_entropy", "pretrain": False})
    resnet = [key for key in frozen if key.startswith("resnet.")]
    assert resnet
    assert all(torch.equal(frozen[key], alone[key]) for key in resnet)
    assert not torch.equal(frozen["decoder.0.weight"], alone["decoder.0.weight"])


def test_the_same_seed_gives_the_same_weights_and_another_does_not(movie, tmp_path):
    settings, _ = of_preset("d")
    first, again, other = (run(movie, tmp_path, settings, seed=seed)["head.weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_interrupted_training_goes_on_to_the_same_weights(movie, tmp_path, monkeypatch):
    settings, stage3 = of_preset("f")
    settings |= {"epochs": 2, "checkpoint_s": 0}
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    whole = run(movie, tmp_path / "whole", settings, stage3=stage3)
    save, saved = Resume.save, []

    def save_and_stop(self, state):
        save(self, state)
        saved.append(state["phase"])
        if len(saved) == 2:  # in the second phase
            raise KeyboardInterrupt

    monkeypatch.setattr(Resume, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(movie, tmp_path / "cut", settings, stage3=stage3)
    assert saved == [0, 1]
    resumed = run(movie, tmp_path / "cut", settings, stage3=stage3)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert (tmp_path / "whole" / "c.csv").read_text() == (tmp_path / "cut" / "c.csv").read_text()


def test_a_mask_of_another_size_than_its_frame_is_refused(movie, tmp_path):
    frames = open_frames(movie / "frames")
    bad = tmp_path / "000000.png"
    bad.write_bytes(imagecodecs.png_encode(np.zeros((10, 10), np.uint8)))
    item = [Item(frames, "000000", bad)]
    with pytest.raises(InputError, match=r"a mask of \(10, 10\)"):
        train_frames(
            *(item, [], [], tmp_path / "w.safetensors", tmp_path / "c.csv"),
            settings=of_preset("d")[0],
            size=32,
            grey_to_class=MAP,
            stage3="none",
            seed=0,
            device="cpu",
        )


@pytest.mark.parametrize("name", perturbations.PERTURBATIONS)
def test_frames_of_a_share_are_perturbed_as_in_the_whole_batch(name):
    torch.manual_seed(0)
    z, decoder = torch.rand(5, 8, 6, 6), torch.nn.Conv2d(8, 3, 1)
    seen = decoder(z).detach().softmax(1)
    perturbed = []
    for start, stop in ((0, 5), (0, 2), (2, 4), (4, 5)):
        torch.manual_seed(1)
        part = slice(start, stop)
        perturbed.append(
            perturbations.PERTURBATIONS[name](z[part], seen[part], decoder, perturbations.Share(start, 5)).detach()
        )
    # The adversarial direction is a difference of predictions 1e-3 apart: rounding weighs a thousand times more.
    atol = 2e-3 if name == "adversarial" else 1e-6
    assert torch.allclose(perturbed[0], torch.cat(perturbed[1:]), atol=atol)
    assert not torch.equal(perturbed[0], z)


def full_above(monkeypatch, network, most):
    """Networks of a kind that run out of memory with more frames than that; a list of the numbers that they got."""
    kind, seen = type(build_model(network, 1, 3, width=16)), []
    encode = kind.encode

    def encode_or_fail(self, image):
        seen.append(len(image))
        if len(image) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, image)

    monkeypatch.setattr(kind, "encode", encode_or_fail)
    return seen


@pytest.mark.parametrize(("letter", "most"), [("b", 2), ("b", 1), ("e", 1), ("d", 1)])
def test_a_batch_that_does_not_fit_is_learned_in_pieces_to_the_same_weights(movie, tmp_path, monkeypatch, letter, most):
    settings, stage3 = of_preset(letter)
    settings |= {"batch": 4, "perturbations": [n for n in perturbations.PERTURBATIONS if n != "adversarial"]}
    (tmp_path / "whole").mkdir()
    whole = run(movie, tmp_path / "whole", settings, stage3=stage3)
    seen = full_above(monkeypatch, settings["network"], most)
    pieces = run(movie, tmp_path, settings, stage3=stage3)
    assert 4 in seen  # tried whole, and not again
    assert max(seen[seen.index(most) :]) == most
    for key, value in whole.items():
        assert torch.allclose(value, pieces[key], atol=2e-5), key
    losses = [
        np.loadtxt(f / "c.csv", delimiter=",", skiprows=1, usecols=(2, 3)) for f in (tmp_path / "whole", tmp_path)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_frame_that_does_not_fit_the_device_is_an_error_in_words(movie, tmp_path, monkeypatch):
    settings, _ = of_preset("d")
    run(movie, tmp_path, settings)

    full_above(monkeypatch, settings["network"], 0)
    with pytest.raises(InputError, match="too little memory for a frame") as error:
        run(movie, tmp_path, settings, seed=1)
    assert "frames.size" in error.value.remedy
    with pytest.raises(InputError, match="too little memory for a frame") as error:
        segment_frames(
            open_frames(movie / "frames"),
            tmp_path / "w.safetensors",
            tmp_path / "masks.json",
            grey_to_class=MAP,
            device="cpu",
        )
    assert "frames.size" in error.value.remedy
