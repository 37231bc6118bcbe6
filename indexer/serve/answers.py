"""The shape of the answers, for the OpenAPI page. That they are what `search --json` prints is held by a test."""

from __future__ import annotations

from typing import NotRequired

# pydantic asks for the one of typing_extensions before Python 3.12.
from typing_extensions import TypedDict


class LabelAnswer(TypedDict):
    label: str
    score: float


class AlikeAnswer(TypedDict):
    """A near-duplicate of a moment."""

    video: str
    start_s: float
    end_s: float
    segment_id: int


class MomentAnswer(TypedDict):
    """A moment found. `segment_id` has 63 bits: JavaScript rounds it, so take the `links` instead."""

    rank: int
    video: str
    start_s: float
    end_s: float
    score: float
    confidence: float
    labels: list[LabelAnswer]
    transcript: str | None
    segment_id: int
    snippet: NotRequired[str]
    num_alike: NotRequired[int]
    alike: NotRequired[list[AlikeAnswer]]
    thumbnail: NotRequired[str]
    clip: NotRequired[str]


class SearchAnswer(TypedDict):
    """As `videobert search --json`."""

    query: str
    matched: bool
    results: list[MomentAnswer]


class ClassifiedAnswer(TypedDict):
    """A line of `videobert classify --json`."""

    video: str
    start_s: float
    end_s: float
    labels: list[LabelAnswer]
    none_of_these: float
    segment_id: int
    answer: str | None


class ClassifyAnswer(TypedDict):
    """`moments` is how many there are, of which `results` may be a part."""

    moments: int
    start: int
    results: list[ClassifiedAnswer]


class HealthAnswer(TypedDict):
    """`version` is that of the ledger; `refresh_error` says why no newer one can be read.

    Of several replicas this is what the one that is furthest behind says; `replicas` is how many there are.
    """

    ready: bool
    version: int
    videos: int
    moments: int
    refresh_error: str | None
    replicas: int


class ErrorAnswer(TypedDict):
    """One line: what is wrong, the rule, the value got."""

    error: str
