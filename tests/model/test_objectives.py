"""The contrastive loss: by hand, what guessing scores, and who is nobody's negative."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from model.objectives import contrastive_loss


def _unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def test_one_query_a_video_is_the_symmetric_cross_entropy_of_clip():
    torch.manual_seed(0)
    queries, videos, rows = _unit(6, 8), _unit(6, 8), torch.arange(6)
    logits = 7 * queries @ videos.T
    expected = (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2
    torch.testing.assert_close(contrastive_loss(queries, videos, rows, 7.0), expected)


@pytest.mark.parametrize("queries_per_video", [1, 3])
def test_guessing_scores_the_logarithm_of_the_number_of_candidates(queries_per_video):
    same = F.normalize(torch.ones(1, 8), dim=1)
    rows = torch.arange(5).repeat_interleave(queries_per_video)
    loss = contrastive_loss(same.expand(len(rows), -1), same.expand(5, -1), rows, 20.0)
    assert loss.item() == pytest.approx((math.log(5) + math.log(len(rows) - queries_per_video + 1)) / 2)


def test_perfect_match_scores_nearly_nothing_even_with_several_queries_a_video():
    rows = torch.tensor([0, 0, 1, 2])
    assert contrastive_loss(torch.eye(3)[rows], torch.eye(3), rows, 50.0) < 1e-6


def test_queries_of_one_video_are_not_each_others_negatives():
    torch.manual_seed(0)
    queries, videos, rows = _unit(5, 8), _unit(3, 8), torch.tensor([0, 0, 1, 2, 2])
    weight = (3.0 * queries @ videos.T).exp()
    terms = []
    for m, n in enumerate(rows.tolist()):
        other_videos = sum(weight[m, i] for i in range(3) if i != n)
        other_queries = sum(weight[i, n] for i in range(5) if rows[i] != n)
        terms += [-(weight[m, n] / (weight[m, n] + other)).log() for other in (other_videos, other_queries)]
    torch.testing.assert_close(contrastive_loss(queries, videos, rows, 3.0), torch.stack(terms).mean())
