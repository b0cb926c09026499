"""The transition matrix of every step of stage 2: by the histogram first, then by the network's own predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import training_case as case
from beamseg.transition import Transition, label_pairs

CPU = torch.device("cpu")
OF_HISTOGRAM = np.array([[0.8, 0.2], [0.4, 0.6]])


def test_it_grows_from_the_identity_to_the_histogram_s_over_the_first_half() -> None:
    transition = Transition(OF_HISTOGRAM, 100, CPU)
    transition.add(torch.tensor([[7.0, 3.0], [1.0, 1.0]]).double())
    torch.testing.assert_close(transition.at(0), torch.eye(2))
    torch.testing.assert_close(transition.at(25), torch.tensor([[0.9, 0.1], [0.2, 0.8]]))
    torch.testing.assert_close(transition.at(49), torch.tensor([[0.804, 0.196], [0.392, 0.608]]))


def test_from_the_middle_on_it_is_the_labels_of_what_the_network_takes_for_each_phase() -> None:
    transition = Transition(OF_HISTOGRAM, 100, CPU)
    transition.add(torch.tensor([[60.0, 40.0], [0.0, 0.0]]).double())
    # A phase that is nowhere keeps the histogram's row.
    torch.testing.assert_close(transition.at(50), torch.tensor([[0.6, 0.4], [0.4, 0.6]]))
    transition.add(torch.tensor([[0.0, 2.0], [1.0, 3.0]]).double())
    # Of 100 steps counts go back 7, so each step keeps 6/7 of them.
    first = torch.tensor([60 * 6 / 7, 40 * 6 / 7 + 2])
    torch.testing.assert_close(transition.at(99), torch.stack([first / first.sum(), torch.tensor([0.25, 0.75])]))


def test_pairs_are_counted_on_labelled_pixels() -> None:
    predicted = torch.tensor([[[0, 1, 1, 0]]])
    target = torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8)
    assert label_pairs(predicted, target, 2).tolist() == [[1, 0], [1, 1]]


def test_a_matrix_that_is_wrong_is_mended_while_the_network_learns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The histogram says that no label is wrong; 0.35 of the bright phase's are, strewn as noise is."""
    bright = case.phantom((6, 40, 40))[1]
    wrong = np.random.default_rng(1).random(bright.shape) < 0.35
    labels = np.where((bright == 1) & wrong, 0, bright).astype(np.uint8)
    predicted = case.learned(tmp_path, labels, steps=150, transition=np.eye(2))
    told = capsys.readouterr().out.splitlines()[-2:]
    shares = [[float(share.rstrip("%")) for share in line.split()] for line in told]
    assert shares[0][0] > 95
    assert shares[1] == pytest.approx([35, 65], abs=6)
    assert (predicted == 1)[bright[3] == 1].mean() > 0.9


def test_a_training_that_goes_on_has_the_counts_of_the_one_that_was_ended(tmp_path: Path) -> None:
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    whole = case.run_train(tmp_path / "whole", transition=OF_HISTOGRAM)
    with pytest.raises(SystemExit):
        case.run_train(
            tmp_path / "cut", case.Fatal(case.phantom()[0], 12, case.signal.SIGTERM), transition=OF_HISTOGRAM
        )
    cut = case.run_train(tmp_path / "cut", transition=OF_HISTOGRAM)
    assert whole.read_bytes() == cut.read_bytes()
