"""What rankings are worth: ranks, recall, reciprocal rank, average precision, overlap of spans, and what chance gives.

Shapes: Q queries, N candidates, C classes. A tie counts against: a wrong candidate that scores the same ranks first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ranks_of_right(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Rank of the best right candidate of each query, 1 is first; N + 1 where there is none.

    Args:
        scores: float [Q, N]; not a number and -inf rank last.
        right: bool [Q, N].

    Returns:
        int64 [Q].
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    best = np.where(right, known, -np.inf).max(axis=1, initial=-np.inf)
    ahead = ((known >= best[:, None]) & ~right).sum(axis=1)
    return np.where(right.any(axis=1), 1 + ahead, scores.shape[1] + 1)


def chance_of_rank(num_candidates: int, num_right: np.ndarray, k: int) -> np.ndarray:
    """Probability that a random order has a right candidate among its first k: float [Q].

    Args:
        num_candidates: N.
        num_right: int [Q], right candidates of each query, 0 to N.
        k: at least 0.
    """
    wrong = num_candidates - num_right
    missed = np.ones(len(num_right))
    for place in range(min(k, num_candidates)):
        missed *= np.maximum(wrong - place, 0) / (num_candidates - place)
    return 1 - missed


def chance_reciprocal_rank(num_candidates: int, num_right: np.ndarray) -> np.ndarray:
    """Expected reciprocal rank of the best right candidate in a random order: float [Q]."""
    expected, missed = np.zeros(len(num_right)), np.ones(len(num_right))
    for place in range(num_candidates):
        found = missed * np.minimum(num_right / (num_candidates - place), 1)
        expected += found / (place + 1)
        missed -= found
        if missed.max(initial=0) < 1e-9:
            break
    return expected


def chance_median_rank(num_candidates: int, num_right: np.ndarray) -> float:
    """Median over the queries of the median rank of the best right candidate in a random order."""
    ranks, missed = np.zeros(len(num_right)), np.ones(len(num_right))
    wrong = num_candidates - num_right
    for place in range(num_candidates):
        missed *= np.maximum(wrong - place, 0) / (num_candidates - place)
        ranks[(missed <= 0.5) & (ranks == 0)] = place + 1
        if ranks.all():
            break
    return float(np.median(ranks)) if len(ranks) else float("nan")


def overlap(span: tuple[float, float], other: tuple[float, float]) -> float:
    """Intersection over union of two spans in seconds, 0 to 1."""
    shared = min(span[1], other[1]) - max(span[0], other[0])
    union = max(span[1], other[1]) - min(span[0], other[0])
    return max(0.0, shared) / union if union > 0 else 0.0


def rank_of_span(
    found: Sequence[tuple[str, float, float]], video: str, spans: Sequence[tuple[float, float]], least_overlap: float
) -> int:
    """Place of the first moment found that overlaps a right span enough, 1 is first; one more than all if none does.

    Args:
        found: (video, start_s, end_s), best first.
        video: the right one.
        spans: the right spans in it.
        least_overlap: intersection over union that counts.
    """
    for place, (name, start_s, end_s) in enumerate(found, 1):
        if name == video and any(overlap((start_s, end_s), span) >= least_overlap for span in spans):
            return place
    return len(found) + 1


def average_precision(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean over the true items of the precision at the score of each.

    All items of a score are taken before its precision is read, so that a tie counts against.
    Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010, section 4.2, without interpolation.

    Args:
        scores: float [N].
        truth: bool [N].
        weights: float [D, N], how often each item counts in each of D draws; None counts each once in one draw.

    Returns:
        float [D]; NaN for a draw without a true item.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    counts = np.ones((1, len(scores))) if weights is None else weights[:, order]
    last_of_score = np.searchsorted(-ordered, -ordered, side="right") - 1
    true = counts * truth[order]
    seen = np.cumsum(counts, axis=1)[:, last_of_score]
    precision = np.cumsum(true, axis=1)[:, last_of_score] / np.maximum(seen, 1e-12)
    total = true.sum(axis=1)
    return np.divide((true * precision).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
