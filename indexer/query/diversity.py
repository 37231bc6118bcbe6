"""Which of the moments found are shown: near-duplicates as one, and no video fills the list that others are in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from indexer.errors import UsageError
from indexer.query.moments import MergedHit

# Cosine of two moments that look alike to a person: copies of a file, other encodings of it, a camera that sees nothing
# move. Measured in docs/design/calibration.md.
ALIKE_COSINE = 0.985
# As long as other videos have answers, one video has at most so many.
USUAL_PER_VIDEO = 3
# Moments that are alike are named up to this number; beyond it they are only counted.
MAX_ALIKE_NAMED = 20
_SAME_BONUS = 1e-9


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """How varied the answer has to be.

    Attributes:
        per_video: most moments of one video; None: 3 as long as there are others, then as many as there are.
        collapse: whether near-duplicates are shown as one moment.
    """

    per_video: int | None = None
    collapse: bool = True

    def __post_init__(self) -> None:
        if self.per_video is not None and self.per_video < 1:
            raise UsageError(f"per_video must be at least 1, got {self.per_video!r}: leave it out for no fixed limit")


@dataclass
class Shown:
    """A moment that is shown, and those that it stands for, best first."""

    moment: MergedHit
    alike: list[MergedHit] = field(default_factory=list)


class Choice(NamedTuple):
    """Up to k moments, best first, and how many of them keep to the limit of a video."""

    shown: list[Shown]
    num_within: int


def choose(moments: Sequence[MergedHit], vectors: np.ndarray, k: int, diversity: Diversity) -> Choice:
    """Chooses up to k moments, and finds those like them.

    Args:
        moments: best first.
        vectors: float32 [M, dim], those of their best segments.
        k: moments wanted.
        diversity: how varied.
    """
    limit = USUAL_PER_VIDEO if diversity.per_video is None else diversity.per_video
    distinct: list[Shown] = []
    heads = np.empty((len(moments), vectors.shape[1]), dtype=np.float32)
    of_video: Counter[int] = Counter()
    within: list[int] = []
    for moment, vector in zip(moments, vectors, strict=True):
        twin = _twin(moment, vector, distinct, heads) if diversity.collapse else None
        if twin is not None:
            twin.alike.append(moment)
        elif len(within) < k:
            of_video[moment.best.video_row] += 1
            if of_video[moment.best.video_row] <= limit:
                within.append(len(distinct))
            heads[len(distinct)] = vector
            distinct.append(Shown(moment))
    beyond = [] if diversity.per_video else [i for i in range(len(distinct)) if i not in set(within)]
    chosen = sorted(within + beyond[: k - len(within)])
    return Choice([distinct[i] for i in chosen], len(within))


def _twin(moment: MergedHit, vector: np.ndarray, shown: Sequence[Shown], heads: np.ndarray) -> Shown | None:
    """The moment shown that this one is like: it looks the same, and has as much of the words asked for."""
    cosines = heads[: len(shown)] @ vector
    for number in np.flatnonzero(cosines >= ALIKE_COSINE).tolist():
        if abs(shown[number].moment.best.bonus - moment.best.bonus) <= _SAME_BONUS:
            return shown[number]
    return None
