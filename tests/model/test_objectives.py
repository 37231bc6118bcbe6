"""The objectives: by hand, what guessing scores, and who is nobody's negative."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from model.objectives import (
    alignment_loss,
    contrastive_loss,
    masked_text_loss,
    masked_visual_word_loss,
    multi_label_loss,
)


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


def test_pairs_that_also_fit_are_no_negatives():
    torch.manual_seed(0)
    queries, videos, rows = _unit(3, 8), _unit(3, 8), torch.arange(3)
    also_fits = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    s = (3.0 * queries @ videos.T).double()
    terms = []
    for m in range(3):
        others = [n for n in range(3) if n != m and not also_fits[m, n]]
        for candidates in ([s[m, n] for n in others], [s[n, m] for n in others]):
            terms.append(torch.stack([s[m, m], *candidates]).logsumexp(dim=0) - s[m, m])
    expected = torch.stack(terms).mean().float()
    torch.testing.assert_close(contrastive_loss(queries, videos, rows, 3.0, also_fits), expected)


def test_contrastive_loss_without_a_single_negative_is_zero_with_finite_gradients():
    queries, videos = _unit(2, 8).requires_grad_(), _unit(2, 8).requires_grad_()
    loss = contrastive_loss(queries, videos, torch.arange(2), 20.0, torch.ones(2, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert queries.grad.isfinite().all()
    assert videos.grad.isfinite().all()


@pytest.mark.parametrize("loss", [masked_text_loss, masked_visual_word_loss])
def test_masked_losses_are_the_mean_negative_log_likelihood(loss):
    torch.manual_seed(0)
    logits, targets = torch.randn(9, 5, dtype=torch.float64), torch.randint(5, (9,))
    likelihood = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(loss(logits, targets), -likelihood[torch.arange(9), targets].log().mean())


@pytest.mark.parametrize("num_words", [2, 30_522, 20_736])
@pytest.mark.parametrize("loss", [masked_text_loss, masked_visual_word_loss])
def test_masked_losses_of_a_guess_are_the_logarithm_of_the_number_of_words(loss, num_words):
    targets = torch.tensor([0, 1, num_words - 1])
    assert loss(torch.full((3, num_words), 0.7), targets).item() == pytest.approx(math.log(num_words), rel=1e-5)


def test_alignment_loss_is_the_cross_entropy_of_two_classes():
    torch.manual_seed(0)
    logits, belongs = torch.randn(9, dtype=torch.float64), torch.rand(9) < 0.5
    two_classes = torch.stack([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(alignment_loss(logits, belongs), F.cross_entropy(two_classes, belongs.long()))


def test_alignment_loss_of_a_guess_is_log_2():
    assert alignment_loss(torch.zeros(4), torch.tensor([True, False, True, True])).item() == pytest.approx(math.log(2))


def test_multi_label_loss_follows_its_formula():
    torch.manual_seed(0)
    scores, labels = torch.randn(6, 4, dtype=torch.float64), torch.rand(6, 4) < 0.5
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    p, y = scores.sigmoid(), labels.double()
    expected = -(weight * y * p.log() + (1 - y) * (1 - p).log())
    torch.testing.assert_close(multi_label_loss(scores, labels, weight), expected.mean())
    torch.testing.assert_close(multi_label_loss(scores, labels), torch.nn.BCELoss()(p, y))


def test_multi_label_loss_of_a_guess_is_log_2_whatever_the_labels():
    labels = torch.rand(6, 4) < 0.2
    assert multi_label_loss(torch.zeros(6, 4), labels).item() == pytest.approx(math.log(2))


def test_multi_label_loss_takes_scores_of_any_size_where_bce_on_raw_scores_fails():
    scores, labels = torch.tensor([[200.0, -200.0]]), torch.tensor([[False, True]])
    assert multi_label_loss(scores, labels).item() == pytest.approx(200.0)
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        torch.nn.BCELoss()(scores, labels.float())
