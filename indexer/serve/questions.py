"""What requests may ask: the options of `videobert search` and `classify`, under the same names."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from indexer.errors import UsageError
from indexer.query.diversity import Diversity
from indexer.query.filters import Filters
from indexer.query.inputs import MAX_K, check_labels, check_query
from indexer.query.syntax import parse_query
from indexer.serve.service import Question
from indexer.serve.settings import ServeSettings

_DATE = "ISO date or time, UTC unless it says otherwise."
_MAX_ID = 2**63 - 1


class MomentFilters(BaseModel):
    """Which moments are looked at; all conditions must hold."""

    model_config = ConfigDict(extra="forbid")

    video: str | None = Field(None, description="Only videos whose file name, or with a slash whose path, fits a glob.")
    in_: str | None = Field(None, alias="in", description="Only within one video: its URI, path, or the end of either.")
    min_duration: float | None = Field(None, description="Only videos at least so long, seconds.")
    max_duration: float | None = Field(None, description="Only videos at most so long, seconds.")
    min_height: int | None = Field(None, description="Only videos at least so high, pixels.")
    modified_after: str | None = Field(None, description=f"Only files modified then or later. {_DATE}")
    modified_before: str | None = Field(None, description=f"Only files modified before. {_DATE}")
    indexed_after: str | None = Field(None, description=f"Only videos indexed then or later. {_DATE}")
    indexed_before: str | None = Field(None, description=f"Only videos indexed before. {_DATE}")
    label: list[str] = Field([], description="NAME or NAME>=SCORE: only moments with this class. Repeatable.")
    speech: bool | None = Field(None, description="Only moments with (true), or without (false), a transcript.")
    language: list[str] = Field(
        [], description="Only videos in this language: en, de. Repeatable, or separated by commas: any of them."
    )
    where: list[str] = Field(
        [],
        description="COLUMN=VALUE, or != < <= > >=, on a column of the service's metadata or of the table of videos. "
        "Repeatable.",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: Any) -> Any:
        """A field that was left empty in a form is none."""
        if not isinstance(values, dict):
            return values
        kept = {
            name: [one for one in value if one != ""] if isinstance(value, list) else value
            for name, value in values.items()
        }
        return {name: value for name, value in kept.items() if value not in ("", [])}

    def filters(self, settings: ServeSettings) -> Filters:
        """As the index takes them.

        Raises:
            UsageError: a filter is malformed.
        """
        for value in (self.video, self.in_, *self.label, *self.language, *self.where):
            check_text(value or "", settings)
        return Filters(
            video=self.video,
            in_video=self.in_,
            min_duration_s=self.min_duration,
            max_duration_s=self.max_duration,
            min_height=self.min_height,
            modified_after=self.modified_after,
            modified_before=self.modified_before,
            indexed_after=self.indexed_after,
            indexed_before=self.indexed_before,
            labels=tuple(self.label),
            has_speech=self.speech,
            language=tuple(self.language),
            where=tuple(self.where),
            metadata=settings.metadata if self.where else None,
        )


class SearchParameters(MomentFilters):
    """A search: by words, or by a moment that others should be like."""

    query: str | None = Field(
        None,
        description='What the moment shows. "Quoted words" must have been said, -word excludes, begin* is a prefix.',
    )
    like: int | None = Field(None, ge=0, le=_MAX_ID, description="Instead of a query: the segment_id of a moment.")
    k: int = Field(10, ge=1, le=MAX_K, description=f"Moments wanted, 1 to {MAX_K}.")
    per_video: int | None = Field(None, ge=1, description="Most moments of one video.")
    show_alike: bool = Field(False, description="Near-duplicates one by one, not as one moment.")
    links: bool = Field(False, description="Whether results have the addresses of their thumbnail and clip.")

    def question(self, settings: ServeSettings) -> Question:
        """The search, checked.

        Raises:
            UsageError: not exactly one of query and like is given, or the query or a filter is malformed.
        """
        if (self.query is None) == (self.like is None):
            raise UsageError("give either a query or like=SEGMENT_ID, for example /search?query=a+dog")
        asked: str | int = self.like or 0
        if self.query is not None:
            asked = check_query(check_text(self.query, settings))
            parse_query(asked)
        diversity = Diversity(per_video=self.per_video, collapse=not self.show_alike)
        return Question(asked, self.k, self.filters(settings), diversity)


class ClassifyParameters(MomentFilters):
    """A classification of all moments, or of those that filters leave; a part of them at a time."""

    labels: str = Field(description="Labels to choose from, separated by commas.")
    start: int = Field(0, ge=0, le=_MAX_ID, description="Number of the first moment that is scored, by video and time.")
    limit: int = Field(1_000, ge=1, description="Moments that are scored.")

    def names(self, settings: ServeSettings) -> list[str]:
        """The labels, checked.

        Raises:
            UsageError: there are none, or too many, or the limit is too high.
        """
        if self.limit > settings.max_labelled:
            raise UsageError(f"limit must be at most {settings.max_labelled}, got {self.limit}: ask for parts by start")
        return check_labels(check_text(self.labels, settings).split(","))


def check_text(text: str, settings: ServeSettings) -> str:
    """The text.

    Raises:
        UsageError: it is longer than a service reads, or holds what is no character.
    """
    if len(text) > settings.max_query_chars:
        raise UsageError(f"a text must be at most {settings.max_query_chars} characters, got {len(text)}: shorten it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"a text must be valid Unicode, got a lone surrogate at character {error.start}") from error
    return text
