"""Clusters: cut points by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beamseg.clusters import LABELERS, MOST_LEVELS, kmeans, rebin


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
    counts = np.bincount(
        np.random.default_rng(0).normal(30000, 6000, 50000).astype(int).clip(1, 65535), minlength=65536
    )
    levels, weights = rebin(counts)
    first, again = (LABELERS["kmeans"](levels, weights, 6, 3) for _ in range(2))
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
