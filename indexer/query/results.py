"""What a search and a classification return; the JSON contract of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

NONE_OF_THESE = "none of these"


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label and its score, 0 to 1."""

    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A span of a video that answers a query.

    Attributes:
        rank: 1 is the best.
        video: URI of the video.
        start_s, end_s: the half-open span [start_s, end_s), seconds.
        score: cosine similarity of query and moment, higher where words of the query were said or are in the title or
            file name; compare within one query only.
        confidence: 0 to 1; the share of everyday sentences whose best hit in this index is less similar, or, where
            that is more, the part of the query's telling words that were said or written.
        labels: ImageNet classes seen, most probable first.
        transcript: what is said or written there, if known.
        segment_id: the best segment of the moment.
        snippet: some words around those that matched, these in **asterisks**; None where none did.
    """

    rank: int
    video: str
    start_s: float
    end_s: float
    score: float
    confidence: float
    labels: list[Label]
    transcript: str | None
    segment_id: int
    snippet: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Without a snippet where no words matched."""
        values = asdict(self)
        return values if self.snippet is not None else {k: v for k, v in values.items() if k != "snippet"}


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The answer to one query.

    Attributes:
        query: as asked.
        matched: whether any moment is similar enough to be an answer at all, or has the words that must occur.
        results: moments, best first.
    """

    query: str
    matched: bool
    results: list[Moment]

    def to_dict(self) -> dict[str, Any]:
        return _rounded(asdict(self) | {"results": [moment.to_dict() for moment in self.results]})


@dataclass(frozen=True, kw_only=True)
class ClassifiedMoment:
    """A moment and how likely each of the asked labels fits.

    Attributes:
        video: URI of the video.
        start_s, end_s: the half-open span [start_s, end_s), seconds.
        labels: the labels asked for, all of them, highest score first.
        none_of_these: how likely none of them fits; with the scores of the labels it adds up to 1.
        segment_id: the moment.
    """

    video: str
    start_s: float
    end_s: float
    labels: list[Label]
    none_of_these: float
    segment_id: int

    @classmethod
    def of(
        cls, names: Sequence[str], scores: np.ndarray, *, video: str, start_s: float, end_s: float, segment_id: int
    ) -> ClassifiedMoment:
        """From the scores of L labels and, last, of none: float [L + 1]."""
        return cls(
            video=video,
            start_s=float(start_s),
            end_s=float(end_s),
            labels=[Label(label=names[j], score=float(scores[j])) for j in np.argsort(-scores[:-1], kind="stable")],
            none_of_these=float(scores[-1]),
            segment_id=int(segment_id),
        )

    @property
    def answer(self) -> str | None:
        """The likeliest label, or None where "none of these" is likelier."""
        best = self.labels[0]
        return best.label if best.score >= self.none_of_these else None

    @property
    def ranked(self) -> list[Label]:
        """The labels and "none of these" among them, highest score first."""
        none = Label(label=NONE_OF_THESE, score=self.none_of_these)
        return sorted([*self.labels, none], key=lambda label: -label.score)

    def to_dict(self) -> dict[str, Any]:
        return _rounded({**asdict(self), "answer": self.answer})


def _rounded(value: Any) -> Any:
    """Six decimals: more are noise, and make JSON hard to read."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
