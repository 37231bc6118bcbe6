"""ConSE by hand, and the mean over frames."""

from __future__ import annotations

import torch

from model.conse import centred, class_probabilities, conse_embedding, mean_over_frames


def test_conse_is_the_weighted_mean_of_centred_labels_of_length_one():
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 1.0]])  # their mean is (0, 0.5)
    probabilities = torch.tensor([[0.75, 0.0, 0.0, 0.25]])
    # 0.75 · (1, -0.5) + 0.25 · (0, 0.5) = (0.75, -0.25), of length sqrt(0.625)
    expected = torch.tensor([[0.75, -0.25]]) / 0.625**0.5
    torch.testing.assert_close(conse_embedding(probabilities, centred(labels)), expected)


def test_temperature_spreads_probabilities_out():
    logits = torch.tensor([[0.0, 3.0]])
    sharp, flat = class_probabilities(logits), class_probabilities(logits, temperature=3.0)
    assert sharp.sum().item() == flat.sum().item() == 1
    torch.testing.assert_close(flat[0, 1] / flat[0, 0], torch.tensor(1.0).exp())
    assert flat.max() < sharp.max()


def test_conse_of_nothing_is_zero():
    assert conse_embedding(torch.zeros(1, 3), torch.eye(3)).tolist() == [[0, 0, 0]]


def test_mean_over_frames_ignores_padding_even_if_it_is_nan():
    values = torch.tensor([[[1.0], [3.0], [torch.nan]], [[5.0], [torch.nan], [torch.nan]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert mean_over_frames(values, mask).tolist() == [[2.0], [5.0]]


def test_mean_over_frames_is_zero_when_there_is_none():
    assert mean_over_frames(torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool)).tolist() == [[0, 0, 0]]
    assert mean_over_frames(torch.ones(1, 0, 3), torch.zeros(1, 0, dtype=torch.bool)).tolist() == [[0, 0, 0]]
