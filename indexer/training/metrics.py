"""How good rankings and classifications are.

Shapes: M queries, N items, C classes.
"""

from __future__ import annotations

import numpy as np

RANKS = (1, 5, 10)


def retrieval_metrics(similarity: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Recall@1, 5 and 10 in percent, mean reciprocal rank and median rank of queries among items.

    Args:
        similarity: float [M, N].
        target: int [M], the right item of each query. An item that scores the same as the right one ranks behind it.
    """
    own = similarity[np.arange(len(similarity)), target]
    ranks = 1 + (similarity > own[:, None]).sum(axis=1)  # 1 is best
    recalls = {f"recall@{k}": 100 * float((ranks <= k).mean()) for k in RANKS}
    return recalls | {"mrr": float((1 / ranks).mean()), "median_rank": float(np.median(ranks))}


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean, over the true items, of the precision at the score of each: scores [N], truth bool [N]. NaN without any.

    A tie counts against: all items of a score are taken before its precision is read.
    Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010, section 4.2, without interpolation.
    """
    if not truth.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(truth[order])
    last_of_score = np.searchsorted(-scores[order], -scores[order], side="right") - 1
    precision = found[last_of_score] / (last_of_score + 1)
    return float(precision[truth[order]].mean())


def class_table(
    scores: np.ndarray, truth: np.ndarray, predicted: np.ndarray, labels: list[str]
) -> list[dict[str, object]]:
    """One row a class: items that have it, average precision, precision, recall and F1, 0 to 1, NaN where undefined.

    Args:
        scores: float [N, C].
        truth, predicted: bool [N, C].
        labels: C names.
    """
    rows: list[dict[str, object]] = []
    for number, label in enumerate(labels):
        true, said = truth[:, number], predicted[:, number]
        right = int((true & said).sum())
        precision = right / said.sum() if said.any() else float("nan")
        recall = right / true.sum() if true.any() else float("nan")
        f1 = 2 * right / (true.sum() + said.sum()) if (true | said).any() else float("nan")
        rows.append(
            {
                "label": label,
                "items": int(true.sum()),
                "predicted": int(said.sum()),
                "average_precision": average_precision(scores[:, number], true),
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
            }
        )
    return rows


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Items of each true class (row) that were given each class (column): int [C, C]."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (truth, predicted), 1)
    return matrix
