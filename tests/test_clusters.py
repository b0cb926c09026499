"""Clusters: cut points by hand, optima against every possibility, mixtures against scikit-learn."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_multiotsu
from sklearn.mixture import GaussianMixture

from beamseg.clusters import (
    LABELERS,
    MOST_LEVELS,
    binned,
    cluster_means,
    elbow,
    kmeans,
    label_levels,
    local_table,
    rebin,
    transition_matrix,
)
from beamseg.errors import InputError
from beamseg.mixture import gaussian_mixture, tied_mixture
from beamseg.multi_otsu import multi_otsu

SETTINGS = {"labeler": "kmeans", "n_clusters": 3, "bins": 65536}


def peaks(n: int = 60000, means: tuple[int, ...] = (12000, 26000, 45000), seed: int = 0) -> np.ndarray:
    """Counts of Gaussian peaks on 65,536 levels; level 0 is empty."""
    rng = np.random.default_rng(seed)
    levels = np.concatenate([rng.normal(mean, 2500, n) for mean in means])
    return np.bincount(levels.round().astype(int).clip(1, 65535), minlength=65536)


def within(levels: np.ndarray, weights: np.ndarray, split: tuple[int, ...]) -> float:
    """Sum of squared distances to the means of the classes that end at `split`."""
    ends = [0, *(last + 1 for last in split), len(levels)]
    total = 0.0
    for a, b in pairwise(ends):
        mean = np.average(levels[a:b], weights=weights[a:b])
        total += float((weights[a:b] * (levels[a:b] - mean) ** 2).sum())
    return total


def test_kmeans_cuts_between_well_separated_levels() -> None:
    levels = np.array([10.0, 11.0, 100.0, 102.0, 1000.0])
    weights = np.array([5.0, 5.0, 1.0, 3.0, 2.0])
    # Centroids 10.5, 101.5 and 1000; cuts are their midpoints.
    np.testing.assert_allclose(kmeans(levels, weights, 3, seed=0), [56.0, 550.75])


def test_kmeans_weighs_levels() -> None:
    cuts = kmeans(np.array([0.0, 10.0, 20.0]), np.array([100.0, 100.0, 1.0]), 2, seed=0)
    # {0} and {10, 20} costs 100·(10/101)² + (10·100/101)² = 99; the other split costs 50 · 100.
    np.testing.assert_allclose(cuts, [(0 + (1000 + 20) / 101) / 2])


def test_seed_gives_the_same_cuts() -> None:
    levels, weights = rebin(peaks())
    first, again = (kmeans(levels, weights, 6, 3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (np.diff(first) > 0).all()


@given(st.dictionaries(st.integers(1, 65535), st.integers(1, 1000), min_size=1, max_size=50), st.integers(2, 4096))
def test_rebin_keeps_mass_and_mean(filled: dict[int, int], most: int) -> None:
    counts = np.zeros(65536)
    counts[list(filled)] = list(filled.values())
    counts[0] = 12345
    levels, weights = rebin(counts, most)
    assert len(levels) <= most
    assert (np.diff(levels) > 0).all()
    np.testing.assert_allclose(weights.sum(), counts[1:].sum())
    np.testing.assert_allclose((levels * weights).sum(), (np.arange(65536) * counts).sum())


def test_rebin_of_a_full_histogram() -> None:
    levels, _ = rebin(np.ones(65536))
    assert len(levels) == MOST_LEVELS


def test_bins_are_equal_and_the_levels_themselves_where_there_are_enough() -> None:
    counts = np.ones(65536)
    levels, weights = binned(counts, 65536)
    np.testing.assert_array_equal(levels, np.arange(1, 65536))
    np.testing.assert_array_equal(weights, 1)
    levels, weights = binned(counts, 3)
    np.testing.assert_allclose(levels, [10923, 32768, 54613])
    np.testing.assert_array_equal(weights, [21845, 21845, 21845])
    sparse = np.zeros(65536)
    sparse[[0, 1, 65535]] = 9, 2, 3
    levels, weights = binned(sparse, 256)
    np.testing.assert_array_equal(weights, [2, 3])
    width = 65535 / 256
    np.testing.assert_allclose(levels, [0.5 + width / 2, 65535.5 - width / 2])


@given(
    st.dictionaries(st.integers(1, 30), st.integers(1, 6), min_size=1, max_size=9),
    st.integers(1, 5),
)
def test_multi_otsu_is_the_best_of_all_and_the_first_of_equals(filled: dict[int, int], most: int) -> None:
    levels = np.array(sorted(filled), dtype=float)
    weights = np.array([filled[int(level)] for level in levels], dtype=float)
    most = min(most, len(levels))
    for k, split in enumerate(multi_otsu(levels, weights, most), start=1):
        every = {s: within(levels, weights, s) for s in combinations(range(len(levels) - 1), k - 1)}
        least = min(every.values())
        first = min(s for s, value in every.items() if value <= least + 1e-9 * (1 + least))
        assert tuple(split) == first


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_multi_otsu_has_the_thresholds_of_skimage(classes: int, seed: int) -> None:
    _, weights = binned(peaks(means=(12000, 20000, 30000, 45000), seed=seed) + 1, 256)
    levels = np.arange(256.0)
    assert len(weights) == 256
    theirs = threshold_multiotsu(hist=(weights, levels), classes=classes)
    np.testing.assert_array_equal(levels[multi_otsu(levels, weights, classes)[-1]], theirs)


def test_no_cut_moved_by_a_level_is_better_with_ten_classes_on_all_levels() -> None:
    levels, weights = binned(peaks() + 1, 65536)
    split = multi_otsu(levels, weights, 10)[-1]
    least = within(levels, weights, tuple(split))
    for i in range(len(split)):
        for step in (-1, 1):
            moved = split.copy()
            moved[i] += step
            assert within(levels, weights, tuple(moved)) >= least


def test_a_multi_otsu_cut_lies_in_the_middle_of_a_gap() -> None:
    counts = np.zeros(65536, int)
    counts[[100, 110, 1000, 1010]] = 5
    table = label_levels(counts, {**SETTINGS, "labeler": "multi_otsu", "n_clusters": 2}, 0)
    np.testing.assert_array_equal(table[[0, 1, 555, 556, 65535]], [255, 0, 0, 1, 1])


def test_256_bins_cut_at_the_borders_of_bins() -> None:
    counts = peaks()
    cuts = np.flatnonzero(np.diff(label_levels(counts, {**SETTINGS, "labeler": "multi_otsu", "bins": 256}, 0)[1:])) + 1
    levels, weights = binned(counts, 256)
    last = multi_otsu(levels, weights, 3)[-1]
    np.testing.assert_array_equal(cuts, np.floor(levels[last] + 65535 / 512))


@pytest.mark.parametrize("tied", [False, True])
def test_mixture_is_that_of_scikit_learn(tied: bool) -> None:
    rng = np.random.default_rng(0)
    voxels = np.concatenate(
        [rng.normal(20000, 1500, 4000), rng.normal(27000, 3000, 6000), rng.normal(48000, 800, 2000)]
    )
    voxels = voxels.round().astype(int)
    levels, weights = np.unique(voxels, return_counts=True)
    mine = gaussian_mixture(levels.astype(float), weights.astype(float), 3, tied)
    how = {"tol": 1e-9, "max_iter": 5000, "reg_covar": 0, "covariance_type": "tied" if tied else "full"}
    theirs = GaussianMixture(3, means_init=mine.means[:, None], random_state=0, **how)
    theirs.fit(voxels[:, None].astype(float))
    order = np.argsort(theirs.means_[:, 0])
    np.testing.assert_allclose(mine.means, theirs.means_[order, 0], rtol=1e-4)
    variances = np.full(3, theirs.covariances_[0, 0]) if tied else theirs.covariances_[order, 0, 0]
    np.testing.assert_allclose(mine.variances, variances, rtol=1e-3)
    np.testing.assert_allclose(mine.shares, theirs.weights_[order], rtol=1e-3)
    assert mine.gain[-1] >= theirs.score(voxels[:, None].astype(float)) - 1e-6


@given(
    st.dictionaries(st.integers(1, 65535), st.integers(1, 1000), min_size=4, max_size=40),
    st.integers(1, 4),
    st.booleans(),
)
def test_a_step_of_the_mixture_loses_no_likelihood_and_no_variance_is_below_a_bin(
    filled: dict[int, int], k: int, tied: bool
) -> None:
    levels = np.array(sorted(filled), dtype=float)
    mixture = gaussian_mixture(levels, np.array([filled[int(v)] for v in levels], dtype=float), k, tied)
    assert (np.diff(mixture.gain) > -1e-9).all()
    assert (mixture.variances >= np.median(np.diff(levels)) ** 2 / 12 * (1 - 1e-12)).all()
    np.testing.assert_allclose(mixture.shares.sum(), 1)


def test_a_tied_mixture_gives_a_rare_phase_its_share() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(200_000) < 0.1
    voxels = (np.where(truth, 24_000, 20_000) + 2_000 * rng.standard_normal(len(truth))).round().astype(int)
    counts = np.bincount(voxels, minlength=65536)
    wrong = {}
    for labeler in ("kmeans", "gmm_tied"):
        wrong[labeler] = (
            label_levels(counts, {**SETTINGS, "labeler": labeler, "n_clusters": 2}, 0)[voxels] != truth
        ).mean()
    # The best cut lies at 22,000 + 2000² / 4000 log 9 = 24,197, by hand: 1.8 % of the common phase, 54 % of the rare.
    assert wrong["gmm_tied"] == pytest.approx(0.9 * 0.0179 + 0.1 * 0.539, abs=0.003)
    assert wrong["kmeans"] > 2 * wrong["gmm_tied"]


def test_rims_of_phases_take_no_cluster_from_them() -> None:
    """Two phases 1.8 σ apart, both far from a third; on 1.2 % of the voxels these share, all grey levels between."""
    rng = np.random.default_rng(0)
    means, shares = np.array([6_000, 40_000, 45_000, 57_000]), np.array([0.37, 0.448, 0.15, 0.02])
    phases = [rng.normal(mean, 2_800, int(400_000 * share)) for mean, share in zip(means, shares, strict=True)]
    voxels = np.concatenate([*phases, rng.uniform(6_000, 40_000, 4_800)]).round().astype(int).clip(1, 65535)
    levels, weights = rebin(np.bincount(voxels, minlength=65536))
    plain = gaussian_mixture(levels, weights, 4, tied=True)
    assert np.abs(plain.shares - shares).max() > 0.1
    mixture = tied_mixture(levels, weights, 4)
    np.testing.assert_allclose(mixture.shares, shares, atol=0.02)
    np.testing.assert_allclose(mixture.means, means, atol=600)
    assert mixture.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_without_rims_no_component_is_left_out(k: int) -> None:
    levels, weights = rebin(peaks())
    mine, plain = tied_mixture(levels, weights, k), gaussian_mixture(levels, weights, k, tied=True)
    np.testing.assert_array_equal(mine.shares, plain.shares)
    np.testing.assert_array_equal(mine.means, plain.means)


def test_as_many_clusters_as_levels_leave_no_room_for_rims() -> None:
    levels = np.array([100.0, 200.0, 900.0])
    assert len(tied_mixture(levels, np.ones(3), 3).means) == 3


def test_the_clusters_of_a_mixture_need_not_be_intervals() -> None:
    rng = np.random.default_rng(0)
    voxels = np.concatenate([rng.normal(30000, 500, 50000), rng.normal(31000, 8000, 50000)])
    counts = np.bincount(voxels.round().astype(int).clip(1, 65535), minlength=65536)
    table = label_levels(counts, {**SETTINGS, "labeler": "gmm", "n_clusters": 2}, 0)
    narrow, wide = table[30000], table[31000 + 8000]
    assert narrow != wide
    assert table[20000] == wide  # on both sides
    # Where the densities of N(30000, 500) and N(31000, 8000) are equal: 28,803 and 31,181, by hand.
    inside = np.flatnonzero(table == narrow)
    assert abs(inside[0] - 28803) < 100
    assert abs(inside[-1] - 31181) < 100
    np.testing.assert_array_equal(inside, np.arange(inside[0], inside[-1] + 1))


@pytest.mark.parametrize("labeler", sorted(LABELERS))
def test_labelers_find_the_same_three_peaks_and_repeat_themselves(labeler: str) -> None:
    counts = peaks(means=(10000, 30000, 50000))
    table, again = (label_levels(counts, {**SETTINGS, "labeler": labeler}, 0) for _ in range(2))
    np.testing.assert_array_equal(table, again)
    assert table[0] == 255
    np.testing.assert_array_equal(table[[10000, 30000, 50000]], [0, 1, 2])
    np.testing.assert_allclose(cluster_means(counts, table, 3), [10000, 30000, 50000], atol=60)


@pytest.mark.parametrize("labeler", sorted(LABELERS))
def test_more_clusters_than_levels_are_refused(labeler: str) -> None:
    counts = np.zeros(65536, int)
    counts[[0, 5, 9000]] = 7
    with pytest.raises(InputError, match="3 clusters, but the scans hold 2 distinct grey levels"):
        label_levels(counts, {**SETTINGS, "labeler": labeler}, 0)
    np.testing.assert_array_equal(label_levels(counts, {**SETTINGS, "labeler": labeler, "n_clusters": 2}, 0)[1:10], 0)


def test_bins_that_are_too_few_are_named() -> None:
    with pytest.raises(InputError, match=r"pseudo_label\.bins"):
        label_levels(peaks(), {**SETTINGS, "labeler": "multi_otsu", "bins": 2}, 0)


def test_a_darker_slab_has_the_same_numbers() -> None:
    counts = peaks()
    volume = cluster_means(counts, label_levels(counts, SETTINGS, 0), 3)
    shift = 9000  # more than half of the distance of the first two
    darker = np.concatenate([counts[shift:], np.zeros(shift, int)])
    darker[0] = 0
    table = local_table(darker, volume, SETTINGS, 0)
    np.testing.assert_array_equal(table[[12000 - shift, 26000 - shift, 45000 - shift]], [0, 1, 2])


@pytest.mark.parametrize("labeler", sorted(LABELERS))
def test_a_slab_of_fewer_levels_than_clusters_takes_the_nearest(labeler: str) -> None:
    settings = {**SETTINGS, "labeler": labeler}
    volume = np.array([12000.0, 26000.0, 45000.0])
    counts = np.zeros(65536, int)
    counts[[0, 13000, 44000]] = 10, 5, 5
    np.testing.assert_array_equal(local_table(counts, volume, settings, 0)[[0, 13000, 44000]], [255, 0, 2])
    without = np.array([np.nan, 26000.0, 45000.0])
    np.testing.assert_array_equal(local_table(counts, without, settings, 0)[[0, 13000, 44000]], [255, 1, 2])
    counts[13000] = 0
    np.testing.assert_array_equal(local_table(counts, volume, settings, 0)[[0, 44000]], [255, 2])
    counts[44000] = 0
    np.testing.assert_array_equal(local_table(counts, volume, settings, 0), 255)


def test_elbow_of_three_peaks_bends_at_three() -> None:
    found = elbow(peaks(means=(10000, 30000, 50000)))
    assert found["k"] == [2, 3, 4, 5, 6, 7, 8]
    # Variance of the peaks' means 2/3 · 20000², of each 2500²; two together leave (10000² · 2 / 3 + 2500²) of it.
    total = 2 / 3 * 20000**2 + 2500**2
    np.testing.assert_allclose(found["inertia"][:2], [(10000**2 * 2 / 3 + 2500**2) / total, 2500**2 / total], rtol=0.02)
    assert (np.diff(found["inertia"]) < 0).all()
    np.testing.assert_allclose(found["separation"][1], 20000 / 2500, rtol=0.02)
    assert int(np.argmax(found["separation"])) == 1
    assert max(found["separation"][2:]) < 12**0.5


def test_elbow_of_evenly_filled_levels_and_of_two() -> None:
    even = elbow(np.ones(65536, int))
    np.testing.assert_allclose(even["separation"], 12**0.5, rtol=1e-2)
    np.testing.assert_allclose(even["inertia"], 1 / np.square(even["k"]), rtol=1e-2)
    counts = np.zeros(65536, int)
    counts[[7, 9]] = 4
    assert elbow(counts) == {"k": [2], "inertia": [0.0], "separation": [None]}


@pytest.mark.parametrize("labeler", ["kmeans", "gmm", "gmm_tied"])
def test_the_transition_from_phases_to_clusters_is_that_of_the_truth(labeler: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 400_000, p=[0.5, 0.4, 0.1])
    noise = np.array([1500, 2500, 1500]) if labeler == "gmm" else 2000
    voxels = (np.array([10_000, 20_000, 25_000])[truth] + noise_of(noise, truth, rng)).round().astype(int)
    counts = np.bincount(voxels, minlength=65536)
    settings = {**SETTINGS, "labeler": labeler, "n_clusters": 3}
    table = label_levels(counts, settings, 0)
    found = transition_matrix(counts, table, settings)
    counted = np.bincount(truth * 3 + table[voxels], minlength=9).reshape(3, 3)
    np.testing.assert_allclose(found, counted / counted.sum(axis=1, keepdims=True), atol=0.02)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def noise_of(spread: np.ndarray | int, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(spread, 3)[truth] * rng.standard_normal(len(truth))


def test_shares_of_phases_and_the_transition_give_the_shares_of_clusters() -> None:
    counts = peaks()
    table = label_levels(counts, SETTINGS, 0)
    shares = gaussian_mixture(*rebin(counts), 3, tied=True).shares
    clusters = np.bincount(table[1:], counts[1:], minlength=3)[:3] / counts[1:].sum()
    np.testing.assert_allclose(shares @ transition_matrix(counts, table, SETTINGS), clusters, atol=1e-6)


def test_phases_are_mistaken_as_often_as_the_noise_crosses_the_cut() -> None:
    counts = peaks()
    table = label_levels(counts, SETTINGS, 0)
    # The cuts lie at 19,000 and 35,500: 7,000 and 9,500 from the means, 2.8 and 3.8 standard deviations.
    found = transition_matrix(counts, table, SETTINGS)
    assert found[0] == pytest.approx([1 - 0.00256, 0.00256, 0], abs=3e-4)
    assert found[2] == pytest.approx([0, 0.00007, 1 - 0.00007], abs=5e-5)
