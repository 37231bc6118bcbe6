"""What to measure on: a table of videos with captions, spans or labels, matched with the videos of an index."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from indexer.errors import UsageError
from indexer.evaluate.table import read_table
from indexer.query.video_names import VideoNames

_VIDEO = ("video", "path", "uri", "file")
_CAPTION, _LABELS = ("caption", "captions"), ("labels", "label")
_START, _END = ("start_s", "start"), ("end_s", "end")
_SEPARATOR = ";"

NOT_INDEXED, EMPTY, BAD_SPAN, NO_VIDEO = (
    "video not in the index",
    "empty caption or label",
    "bad span",
    "no video named",
)


@dataclass(frozen=True, kw_only=True)
class Caption:
    """One caption of one video, and the spans that it speaks of, if they are known."""

    row: int
    text: str
    video: str
    spans: tuple[tuple[float, float], ...]


@dataclass
class Skipped:
    """Rows that were left out for one reason: how many, and what the first one says."""

    count: int = 0
    first: str = ""


class Questions:
    """What a table asks.

    Attributes:
        labels: the labels of each video that has some.
        skipped: rows left out, by reason.
        num_rows: of the table.
    """

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self.labels: dict[str, tuple[str, ...]] = {}
        self.skipped: dict[str, Skipped] = {}
        self._captions: dict[tuple[str, str], Caption] = {}

    @property
    def captions(self) -> list[Caption]:
        """One a (video, text), in the order of the table."""
        return list(self._captions.values())

    def skip(self, reason: str, detail: str) -> None:
        noted = self.skipped.setdefault(reason, Skipped(first=detail))
        noted.count += 1

    def add(
        self, row: int, video: str, captions: Sequence[str], labels: Sequence[str], span: tuple[float, float] | None
    ) -> None:
        """What one row says; the spans of a caption that stands in several rows are all right."""
        if labels:
            self.labels[video] = tuple(dict.fromkeys([*self.labels.get(video, ()), *labels]))
        for text in captions:
            before = self._captions.get((video, text))
            spans = (*(before.spans if before else ()), *([span] if span else []))
            self._captions[video, text] = Caption(
                row=before.row if before else row, text=text, video=video, spans=spans
            )


def read_questions(data: str, videos: Iterable[str]) -> Questions:
    """Reads a .tsv, .csv or .parquet file with a column of videos and one of captions, labels, or both.

    A video is named by its URI, by its path seen from the table's folder, or by the end of its URI if only one ends so.
    Row numbers count from 1, without the heading.

    Args:
        data: path of the table.
        videos: URIs of the index.

    Raises:
        UsageError: the table cannot be read, lacks a column, names a video that could be several, or no row is left.
    """
    names, rows = read_table(data)
    columns, questions = _Columns.find(data, names), Questions(num_rows=len(rows))
    known = VideoNames(videos, data)
    for number, row in enumerate(rows, 1):
        _read_row(number, columns.of(row), known, questions)
    if not questions.captions and not questions.labels:
        raise UsageError(f"nothing in {data!r} can be measured on this index: {_why(questions)}")
    return questions


class _Row(NamedTuple):
    video: str
    captions: list[str]
    labels: list[str]
    ends: tuple[Any, Any]


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """Which column of a table holds what."""

    video: str
    caption: str | None
    labels: str | None
    start: str | None
    end: str | None

    @classmethod
    def find(cls, data: str, names: Sequence[str]) -> _Columns:
        by_name = {name.strip().lower(): name for name in reversed(names)}

        def first(wanted: Sequence[str]) -> str | None:
            return next((by_name[name] for name in wanted if name in by_name), None)

        video, caption, labels, start, end = map(first, (_VIDEO, _CAPTION, _LABELS, _START, _END))
        if video is None or (caption is None and labels is None):
            wanted = f"{', '.join(_VIDEO[:-1])} or {_VIDEO[-1]}" if video is None else "caption or label"
            has = ", ".join(map(repr, names)) or "none"
            raise UsageError(f"the table {data!r} has no column named {wanted}; it has {has}: rename one")
        if (start is None) != (end is None):
            raise UsageError(
                f"the table {data!r} has {start or end!r} without its other end: add it, or drop the column"
            )
        return cls(video=video, caption=caption, labels=labels, start=start, end=end)

    def of(self, row: Mapping[str, Any]) -> _Row:
        return _Row(
            video=_text(row.get(self.video)),
            captions=_texts(row.get(self.caption)) if self.caption else [],
            labels=_texts(row.get(self.labels), _SEPARATOR) if self.labels else [],
            ends=(row.get(self.start), row.get(self.end)) if self.start and self.end else (None, None),
        )


def _read_row(number: int, row: _Row, known: VideoNames, questions: Questions) -> None:
    """Adds what the row asks, or the reason why it asks nothing."""
    if not row.video:
        return questions.skip(NO_VIDEO, f"row {number}")
    uri = known.find(row.video, number)
    if uri is None:
        return questions.skip(NOT_INDEXED, f"row {number} ({row.video!r})")
    if not row.captions and not row.labels:
        return questions.skip(EMPTY, f"row {number} ({row.video!r})")
    try:
        span = _span(*row.ends)
    except ValueError as error:
        return questions.skip(BAD_SPAN, f"row {number}: {error}")
    questions.add(number, uri, row.captions, row.labels, span)


def _why(questions: Questions) -> str:
    reasons = [f"{skipped.count} x {reason}, first {skipped.first}" for reason, skipped in questions.skipped.items()]
    return "; ".join(reasons) or "it has no rows"


def _text(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def _texts(value: Any, separator: str | None = None) -> list[str]:
    """The texts of a cell: a list, one text, or several texts with a separator between; blank ones are dropped."""
    values = value if isinstance(value, list) else _text(value).split(separator) if separator else [value]
    return [text for text in map(_text, values) if text]


def _span(start: Any, end: Any) -> tuple[float, float] | None:
    """The span in seconds, or None where neither end is given. Raises ValueError where it is none."""
    if not _text(start) and not _text(end):
        return None
    shown = f"a span must be two numbers of seconds, 0 <= start < end, got {_text(start)!r} and {_text(end)!r}"
    try:
        numbers = float(start), float(end)
    except (TypeError, ValueError):
        raise ValueError(shown) from None
    if not (math.isfinite(numbers[1]) and 0 <= numbers[0] < numbers[1]):
        raise ValueError(shown)
    return numbers
