"""What a search and a classification return; the JSON contract of the command line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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
        score: cosine similarity of query and moment, -1 to 1; compare within one query only.
        confidence: 0 to 1; the share of everyday sentences whose best hit in this index scores less.
        labels: ImageNet classes seen, most probable first.
        transcript: what is said or written there, if known.
        segment_id: the best segment of the moment.
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


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The answer to one query.

    Attributes:
        query: as asked.
        matched: whether the best moment scores well enough to be an answer at all.
        results: moments, best first.
    """

    query: str
    matched: bool
    results: list[Moment]

    def to_dict(self) -> dict[str, Any]:
        return _rounded(asdict(self))


@dataclass(frozen=True, kw_only=True)
class ClassifiedMoment:
    """A moment and how well each of the asked labels fits: scores add up to 1, highest first."""

    video: str
    start_s: float
    end_s: float
    labels: list[Label]
    segment_id: int

    def to_dict(self) -> dict[str, Any]:
        return _rounded(asdict(self))


def _rounded(value: Any) -> Any:
    """Six decimals: more are noise, and make JSON hard to read."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
