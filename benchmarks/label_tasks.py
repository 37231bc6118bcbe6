"""Lists of labels for pictures whose right labels are known: what zero-shot labels are fitted and measured on.

Shapes: N pictures or moments, L labels in a list, C concepts. Half of the lists hold exactly one label that fits, half
hold none; a list never holds a label of which it is unknown whether it fits.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CONCEPTS = Path(__file__).with_name("concepts.tsv")
LIST_LENGTHS = (1, 2, 3, 5, 10, 20)
_NUM_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Lists of one length.

    Attributes:
        rows: int [T], the picture of each list.
        labels: int [T, L], the concepts on it; the one that fits stands first, where there is one.
        answers: int [T], 0, or L where none fits.
    """

    rows: np.ndarray
    labels: np.ndarray
    answers: np.ndarray


def read_concepts() -> dict[str, frozenset[str]]:
    """Labels, and the words in a caption that say that the label fits."""
    with CONCEPTS.open(encoding="utf-8", newline="") as stream:
        return {row["label"]: frozenset(row["words"].split()) for row in csv.DictReader(stream, delimiter="\t")}


def concepts_in(captions: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Which concepts fit pictures with several captions, and which do not: bool [N, C] each.

    A concept fits if two captions name it, and does not if none does; named once, it is unknown.
    """
    named = np.zeros((len(captions), len(read_concepts())), dtype=np.int64)
    for row, texts in enumerate(captions):
        for text in texts:
            words = set(re.findall("[a-z]+", text.lower()))
            named[row] += [bool(words & wanted) for wanted in read_concepts().values()]
    return named >= 2, named == 0


def draw_lists(
    fits: np.ndarray, unfit: np.ndarray, rows: np.ndarray, concepts: np.ndarray, num_lists: int, seed: int
) -> list[Lists]:
    """Lists of every length, from some rows and some concepts. Every concept that fits at all fits equally often.

    Args:
        fits, unfit: bool [N, C].
        rows, concepts: int, those to draw from.
        num_lists: of each length.
    """
    random = np.random.default_rng(seed)
    usable = [concept for concept in concepts if fits[rows, concept].sum() >= 2]
    return [_draw(fits, unfit, rows, concepts, usable, length, num_lists, random) for length in LIST_LENGTHS]


def _draw(
    fits: np.ndarray,
    unfit: np.ndarray,
    rows: np.ndarray,
    concepts: np.ndarray,
    usable: Sequence[int],
    length: int,
    num_lists: int,
    random: np.random.Generator,
) -> Lists:
    chosen: list[int] = []
    labels: list[list[int]] = []
    answers: list[int] = []
    while len(chosen) < num_lists:
        right = [int(random.choice(usable))] if random.random() < 0.5 else []
        row = random.choice(rows[fits[rows, right[0]]] if right else rows)
        wrong = concepts[unfit[row, concepts]]
        if len(wrong) < length - len(right):
            continue
        labels.append([*right, *random.choice(wrong, length - len(right), replace=False)])
        chosen.append(int(row))
        answers.append(0 if right else length)
    return Lists(rows=np.array(chosen), labels=np.array(labels, dtype=np.int64), answers=np.array(answers))


def figures_of(lists: Sequence[Lists], scores: Sequence[np.ndarray]) -> dict[str, float]:
    """How good scores [T, L + 1] are on lists of every length; shares from 0 to 1.

    "answer" counts "none of these" as an answer, "top-1" only asks which label is best where one fits. AUC and ECE are
    of the statement "this label fits" over all labels of all lists; `none AUC` and `none ECE` of "none fits".
    """
    labels = np.concatenate([score[:, :-1].ravel() for score in scores])
    true = np.concatenate([_truth(one).ravel() for one in lists])
    none = np.concatenate([score[:, -1] for score in scores])
    no_label = np.concatenate([one.answers == one.labels.shape[1] for one in lists])
    pairs = list(zip(lists, scores, strict=True))
    return {
        "answer": float(np.mean([(score.argmax(axis=1) == one.answers).mean() for one, score in pairs])),
        "top-1": float(
            np.mean([(score[one.answers == 0, :-1].argmax(axis=1) == 0).mean() for one, score in pairs[1:]])
        ),
        "AUC": area_under_roc(labels, true),
        "ECE": calibration_error(labels, true),
        "none AUC": area_under_roc(none, no_label),
        "none ECE": calibration_error(none, no_label),
    }


def area_under_roc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Probability that a true item scores more than a false one, ties count half (Mann-Whitney)."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    num_true = int(truth.sum())
    if num_true in (0, len(truth)):
        return float("nan")
    return float((ranks[truth].sum() - num_true * (num_true + 1) / 2) / (num_true * (len(truth) - num_true)))


def calibration_error(scores: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error: mean difference of score and share of true items, over ten bins of the score.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015.
    """
    bins = np.minimum((scores * _NUM_BINS).astype(int), _NUM_BINS - 1)
    error = 0.0
    for number in np.unique(bins):
        inside = bins == number
        error += inside.mean() * abs(scores[inside].mean() - truth[inside].mean())
    return float(error)


def _truth(lists: Lists) -> np.ndarray:
    truth = np.zeros(lists.labels.shape, dtype=bool)
    truth[lists.answers == 0, 0] = True
    return truth
