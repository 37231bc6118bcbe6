"""Classification of whole videos: the labels of a table, zero-shot or by a trained head.

Shapes: V labelled videos, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.errors import UsageError
from indexer.evaluate.bootstrap import Bootstrap, Figure, mean_of
from indexer.evaluate.metrics import average_precision
from indexer.query.inputs import check_labels


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class: how many videos have it, how many were given it, and how well that went (NaN where undefined)."""

    label: str
    videos: int
    predicted: int
    average_precision: float
    precision: float
    recall: float


def classes_of(labels: Mapping[str, Sequence[str]]) -> list[str]:
    """The classes of a table, sorted.

    Raises:
        UsageError: there is only one, which every method gets right, or too many.
    """
    classes = check_labels(sorted({label for some in labels.values() for label in some}))
    if len(classes) < 2:
        raise UsageError(f"classification needs at least two different labels in the data, got only {classes[0]!r}")
    return classes


def video_scores(videos: Sequence[str], owners: Sequence[str], scores: np.ndarray) -> np.ndarray:
    """Mean over the moments of each video: scores [N, C + 1] -> [V, C + 1].

    Args:
        videos: the V wanted.
        owners: the video of each of the N moments.
    """
    number = {uri: i for i, uri in enumerate(videos)}
    rows = np.array([number.get(uri, -1) for uri in owners])
    total = np.zeros((len(videos), scores.shape[1]))
    np.add.at(total, rows[rows >= 0], scores[rows >= 0])
    return total / np.maximum(np.bincount(rows[rows >= 0], minlength=len(videos)), 1)[:, None]


def class_figures(scores: np.ndarray, truth: np.ndarray) -> dict[str, Figure]:
    """Top-1, mean average precision, and how often "none of these" would have been the answer.

    Args:
        scores: float [V, C + 1], the last column for "none of these".
        truth: bool [V, C].
    """
    draws, classes = Bootstrap(np.arange(len(scores))), np.flatnonzero(truth.any(axis=0))
    best = scores[:, :-1].argmax(axis=1)
    right = truth[np.arange(len(scores)), best] & _alone_at_the_top(scores[:, :-1])

    def mean_average_precision(weights: np.ndarray) -> np.ndarray:
        each = [average_precision(scores[:, c], truth[:, c], weights) for c in classes]
        known = ~np.isnan(np.stack(each))
        return np.where(known, np.nan_to_num(np.stack(each)), 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)

    return {
        "top-1": draws.figure(mean_of(right), float(truth.mean())),
        "mAP": draws.figure(mean_average_precision, float(truth[:, classes].mean())),
        "none of these": draws.figure(mean_of(scores[:, -1] > scores[:, :-1].max(axis=1))),
    }


def class_rows(scores: np.ndarray, truth: np.ndarray, classes: Sequence[str]) -> list[ClassRow]:
    """One row a class; a video is given its best class, "none of these" aside."""
    best = scores[:, :-1].argmax(axis=1)
    rows = []
    for number, label in enumerate(classes):
        true, said = truth[:, number], best == number
        hits = float((true & said).sum())
        rows.append(
            ClassRow(
                label=label,
                videos=int(true.sum()),
                predicted=int(said.sum()),
                average_precision=float(average_precision(scores[:, number], true)[0]),
                precision=hits / said.sum() if said.any() else float("nan"),
                recall=hits / true.sum() if true.any() else float("nan"),
            )
        )
    return rows


def _alone_at_the_top(scores: np.ndarray) -> np.ndarray:
    """Whether no two classes share the highest score: a tie counts against."""
    top: np.ndarray = (scores == scores.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return top
