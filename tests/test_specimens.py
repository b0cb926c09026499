"""The specimens sand and ceramic: their phases, their shares, and that they can be measured as the crystal is."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter
from yaml import safe_load

from beamseg.errors import InputError
from beamseg.layers import defaults
from beamseg.provenance import file_digest
from beamseg.simulate import draw_slice, make_sample, measure_slice
from beamseg.simulate import simulate as simulate_scan
from beamseg.specimens import SPECIMENS, ceramic, nanoparticles, sand
from beamseg.specimens.shapes import Waves

SCHEMA = safe_load((Path(__file__).parents[1] / "workflow/schemas/phantom.yaml").read_text())
FLAT = Waves(np.zeros((1, 3)), np.zeros(1), mean=1.0)  # 0 everywhere


def phantom(specimen: str, **changes: Any) -> dict[str, Any]:
    return {**defaults(SCHEMA), "specimen": specimen, "size": [16, 64, 64], "angles": 40, **changes}


def whole(settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    sample = make_sample(settings)
    slices = [draw_slice(sample, settings, index) for index in range(settings["size"][0])]
    attenuation, truth = (np.stack(arrays) for arrays in zip(*slices, strict=True))
    return attenuation, truth


@pytest.mark.parametrize(
    ("specimen", "limits"),
    [
        ("sand", {"background": (0.4, 0.75), "film": (0.03, 0.3), "grain": (0.1, 0.4), "dense grain": (0.02, 0.2)}),
        ("ceramic", {"background": (0.5, 0.75), "crack": (0.001, 0.01), "matrix": (0.25, 0.5)}),
    ],
)
@pytest.mark.parametrize("width", [96, 160])
def test_every_phase_has_its_share(specimen: str, limits: dict[str, tuple[float, float]], width: int) -> None:
    truth = whole(phantom(specimen, size=[16, width, width]))[1]
    assert tuple(limits) == SPECIMENS[specimen].classes
    shares = np.bincount(truth.ravel(), minlength=len(limits)) / truth.size
    for share, (low, high) in zip(shares, limits.values(), strict=True):
        assert low < share < high


@pytest.mark.parametrize(
    ("specimen", "phases"),
    [("sand", {0: 0.0, 1: 0.6, 2: 1.6, 3: 1.95}), ("ceramic", {0: 0.0, 1: 0.9, 2: 1.6})],
)
def test_attenuations_are_those_of_the_settings(specimen: str, phases: dict[int, float]) -> None:
    attenuation, truth = whole(phantom(specimen, drift=0.0, size=[16, 128, 128]))
    for value, wanted in phases.items():
        assert np.median(attenuation[truth == value]) == pytest.approx(wanted, abs=0.25 if value == 1 else 1e-6)
    assert attenuation.min() >= 0
    assert attenuation.max() == pytest.approx(max(phases.values()))


def test_two_grains_that_touch_are_parted_by_a_film() -> None:
    """Spheres of radius 10 about y = ±8: cut off where they would overlap, with a film of 3 voxels between."""
    settings = phantom("sand", drift=0.0)
    settings["sand"] = {**settings["sand"], "film_voxels": 3.0}
    pair = sand.Sand(
        centres=np.array([[0.0, -8, 0], [0, 8, 0]]),
        radii=np.full((2, 3), 10.0),
        dense=np.array([False, True]),
        roughness=FLAT,
        voids=np.array([[0.0, -12, 0, 3, 3, 3]]),
        drift=FLAT,
    )
    attenuation, truth = sand.draw(pair, settings, 8)
    along = truth[:, 32]  # y = -32 … 31, through both centres
    assert along[32 - 18] == sand.BACKGROUND
    assert along[32 - 16] == sand.GRAIN
    assert along[32 - 12] == sand.BACKGROUND  # the void
    assert np.flatnonzero(along == sand.FILM).tolist() == [31, 32, 33]
    assert along[32 + 3] == along[32 + 17] == sand.DENSE
    assert attenuation[32 - 6, 32] == pytest.approx(1.6)
    assert attenuation[32, 32] == pytest.approx(0.6)
    assert attenuation[32 + 8, 32] == pytest.approx(1.95)
    # The film ends where the grains are farther apart than it is thick.
    assert truth[32, 32 + 12] == sand.BACKGROUND


def test_the_crack_goes_on_from_slice_to_slice_and_is_thin() -> None:
    crack = whole(phantom("ceramic", size=[16, 160, 160]))[1] == ceramic.CRACK
    overlap = [(crack[z] & crack[z + 1]).sum() / crack[z].sum() for z in range(len(crack) - 1)]
    assert min(overlap) > 0.6
    y, x = np.nonzero(crack[8])
    length = np.hypot(np.ptp(y), np.ptp(x))
    assert length > 40
    assert crack[8].sum() / length < 3


@pytest.mark.parametrize("specimen", ["sand", "ceramic"])
@pytest.mark.parametrize("width", [33, 64])
def test_the_specimen_lies_in_the_circle(specimen: str, width: int) -> None:
    for seed in range(3):
        settings = phantom(specimen, size=[16, width, width], seed=seed, angles=8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # radon warns when the image leaves its circle
            measure_slice(draw_slice(make_sample(settings), settings, 15)[0], settings, 15)


@pytest.mark.parametrize("specimen", ["sand", "ceramic"])
def test_files_are_equal_for_equal_settings_and_say_what_they_hold(tmp_path: Path, specimen: str) -> None:
    for name, workers in (("a", 1), ("b", 2)):
        simulate_scan(tmp_path / f"{name}.h5", tmp_path / f"{name}_truth.h5", phantom(specimen), workers)
    for kind in ("", "_truth"):
        assert file_digest(tmp_path / f"a{kind}.h5") == file_digest(tmp_path / f"b{kind}.h5")
    with h5py.File(tmp_path / "a_truth.h5") as truth, h5py.File(tmp_path / "a.h5") as scan:
        assert tuple(truth["truth"].attrs["classes"]) == SPECIMENS[specimen].classes
        assert specimen in scan["measurement/sample/name"][()].decode()


def test_the_crystal_is_the_one_it_was(tmp_path: Path) -> None:
    """Bytes of the files before there were other specimens."""
    simulate_scan(tmp_path / "s.h5", tmp_path / "t.h5", phantom("crystal", angles=60))
    assert file_digest(tmp_path / "t.h5") == "35cc0186cfe382af"


@pytest.mark.parametrize(
    ("specimen", "section", "where", "remedy"),
    [
        (
            "sand",
            {"attenuation": {"film": 1.7, "grain": 1.6, "dense": 1.95}},
            "phantom.sand.attenuation",
            "mend the attenuations",
        ),
        ("ceramic", {"attenuation": {"crack": 0.0, "matrix": 1.6}}, "phantom.ceramic.attenuation", "mend the"),
        ("sand", {"grain_voxels": 80.0}, "phantom.sand.grain_voxels", "set grain_voxels to 9 or less"),
    ],
)
def test_impossible_settings_are_refused(
    tmp_path: Path, specimen: str, section: dict[str, Any], where: str, remedy: str
) -> None:
    settings = phantom(specimen)
    settings[specimen] = {**settings[specimen], **section}
    with pytest.raises(InputError) as error:
        simulate_scan(tmp_path / "scan.h5", tmp_path / "truth.h5", settings)
    assert error.value.where == where
    assert error.value.remedy.startswith(remedy)
    assert not list(tmp_path.iterdir())


CATALYST = {"voxel_size_um": 0.001, "hardening": 0.0, "rings": 0.0, "blur": 0.0, "dose": 1e9}


@pytest.mark.parametrize("share", [0.003, 0.01])
def test_particles_are_as_rare_as_asked_and_lie_apart(share: float) -> None:
    own = {**defaults(SCHEMA)["nanoparticles"], "particle_share": share}
    settings = phantom("nanoparticles", **CATALYST, nanoparticles=own, size=[32, 96, 96])
    attenuation, truth = whole(settings)
    fractions = np.bincount(truth.ravel(), minlength=3) / truth.size
    # Spheres are added until the share is reached; the last, and those cut by the volume's ends, make the difference.
    assert 0.7 * share < fractions[nanoparticles.PARTICLE] < share + 0.001
    assert 0.2 < fractions[nanoparticles.SUPPORT] < 0.5
    assert attenuation[truth == nanoparticles.PARTICLE].min() > 0.5 * own["attenuation"]["particle"]
    y, x = np.ogrid[:96, :96]
    assert not truth[:, np.hypot(y - 48, x - 48) > 48].any()
    spheres = make_sample(settings).particles
    apart = np.linalg.norm(spheres[:, None, :3] - spheres[None, :, :3], axis=-1)
    touching = apart < spheres[:, None, 3] + spheres[None, :, 3]
    assert touching.sum() == len(spheres)


def test_a_missing_wedge_blurs_along_the_beam_alone() -> None:
    image = np.zeros((64, 64), np.float32)
    image[31:33, 31:33] = 3000.0
    settings = phantom("nanoparticles", **CATALYST, size=[16, 64, 64], angles=90)
    point = {wedge: measure_slice(image, {**settings, "missing_wedge": wedge}, 0) for wedge in (0, 40)}
    widths = {}
    for wedge, found in point.items():
        profiles = found[20:44, 31:33].sum(1), found[31:33, 20:44].sum(0)
        widths[wedge] = [np.maximum(p, 0).sum() / p.max() for p in profiles]
    assert widths[0][0] == pytest.approx(widths[0][1], rel=0.1)
    long, short = max(widths[40]), min(widths[40])
    assert long > 1.25 * short


def test_particles_without_room_are_refused() -> None:
    own = {**defaults(SCHEMA)["nanoparticles"], "open_from": 9.0}
    with pytest.raises(InputError, match=r"(?s)particle_share.*found room"):
        make_sample(phantom("nanoparticles", **CATALYST, nanoparticles=own))


def test_mitochondria_have_their_share_and_dark_membranes() -> None:
    settings = phantom("mitochondria", size=[32, 96, 96])
    image, truth = whole(settings)
    assert 0.03 < truth.mean() < 0.09
    grey = settings["mitochondria"]["grey"]
    assert image[truth == 1].mean() < image[truth == 0].mean()
    away = distance_transform_edt(truth)
    # Membranes lie inside the border, so that the class ends where they do.
    assert image[(away > 0) & (away <= 1.5)].mean() < grey["mitochondrion"] < image[truth == 0].mean()


def test_a_block_face_is_measured_as_no_tomography(tmp_path: Path) -> None:
    settings = phantom("mitochondria", size=[16, 48, 48])
    names = [tmp_path / f"{name}.h5" for name in ("scan", "truth", "labels")]
    simulate_scan(names[0], names[1], settings, labels_out=names[2])
    with h5py.File(names[0]) as file:
        assert file["exchange/data"].attrs["units"] == "1"
        assert "process" not in file
        grey = file["exchange/data"][()]
    assert (grey > 0).all()
    image, _ = whole(settings)
    assert (grey - gaussian_filter(image, (0, 0.5, 0.5))).std() == pytest.approx(0.1, rel=0.1)
    assert file_digest(names[1]) == file_digest(names[2])
