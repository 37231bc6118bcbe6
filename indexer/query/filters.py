"""Filters: which moments a search looks at. Exact: they become one boolean mask that vectors and words both respect."""

from __future__ import annotations

import datetime
import fnmatch
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.errors import UsageError
from indexer.ingest.languages import language_code
from indexer.ingest.paths import uri_to_path
from indexer.query.conditions import Condition, compare, parse_condition
from indexer.query.metadata import join_metadata
from indexer.query.video_names import VideoNames
from indexer.store.snapshot import Snapshot

_LABEL = re.compile(r"(?P<label>[^<>=]+?)\s*(?:>=\s*(?P<score>[^<>=]+))?")


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Conditions on moments and their videos, all of which must hold. None, and empty, is no condition.

    Attributes:
        video: a glob; without a slash it is compared with file names, else with the path or its end.
        in_video: one video: its URI, path, or the end of either.
        min_duration_s, max_duration_s: length of the video, seconds, both inclusive.
        min_height: display height of the video, pixels.
        modified_after, modified_before: when the file was modified: an ISO date or time, UTC unless it says otherwise;
            from the first, inclusive, to the second, exclusive.
        indexed_after, indexed_before: when it was indexed, likewise.
        labels: "NAME" or "NAME>=SCORE": classes that are stored with the moment.
        has_speech: whether there is a transcript for the moment.
        language: languages of the video, of which it must have one: codes as "en" or "pt-BR", whose region does not
            count; several in one text are separated by commas.
        where: "COLUMN=VALUE", or != < <= > >=, on columns of the metadata or of `videos/`.
        metadata: path of a table that is joined by path: see `indexer.query.metadata`.
    """

    video: str | None = None
    in_video: str | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None
    min_height: int | None = None
    modified_after: str | None = None
    modified_before: str | None = None
    indexed_after: str | None = None
    indexed_before: str | None = None
    labels: tuple[str, ...] = ()
    has_speech: bool | None = None
    language: str | tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    metadata: str | None = None

    def __post_init__(self) -> None:
        for name in ("min_duration_s", "max_duration_s", "min_height"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise UsageError(f"{name} must be at least 0, got {value!r}")
        for name in ("modified_after", "modified_before", "indexed_after", "indexed_before"):
            _date(name, getattr(self, name))
        for label in self.labels:
            _label(label)
        object.__setattr__(self, "language", _codes(self.language))
        for text in self.where:
            parse_condition(text)
        if self.metadata is not None and not self.where:
            raise UsageError(f"the metadata {self.metadata!r} filters nothing without a condition: add --where")

    @property
    def is_empty(self) -> bool:
        """Whether there is no condition at all."""
        return all(getattr(self, field.name) == field.default for field in fields(self))

    def mask(self, snapshot: Snapshot) -> np.ndarray:
        """bool [N]: the moments of a snapshot that fulfil all conditions.

        Raises:
            UsageError: a video, a column or a value does not fit this index or the metadata.
            StorageError: the metadata cannot be reached.
        """
        allowed = np.ones(snapshot.videos.num_rows, dtype=bool)
        for mask in self._of_videos(snapshot):
            allowed &= mask
        moments = allowed[snapshot.rows.video_rows]
        if self.has_speech is not None:
            moments &= _have_speech(snapshot) == self.has_speech
        for label in self.labels:
            moments &= _have_label(snapshot, *_label(label))
        return moments

    def _of_videos(self, snapshot: Snapshot) -> Iterator[np.ndarray]:
        """One mask bool [V] a condition on videos."""
        videos = snapshot.videos
        if self.video is not None:
            yield _match_glob(self.video, videos["uri"].to_pylist())
        if self.in_video is not None:
            uri = VideoNames(videos["uri"].to_pylist()).find(self.in_video)
            if uri is None:
                raise UsageError(
                    f"the video {self.in_video!r} is not in the index: `videobert search --json` prints their names"
                )
            yield _numpy(pc.equal(videos["uri"], uri))
        for column, least in (("duration_s", self.min_duration_s), ("height", self.min_height)):
            if least is not None:
                yield _numpy(pc.greater_equal(videos[column], least))
        if self.max_duration_s is not None:
            yield _numpy(pc.less_equal(videos["duration_s"], self.max_duration_s))
        yield from self._of_dates(videos)
        if self.language:
            yield _in_language(videos["language"], self.language)
        if self.where:
            yield from self._of_columns(snapshot)

    def _of_dates(self, videos: pa.Table) -> Iterator[np.ndarray]:
        modified_ns = videos["mtime_ns"].to_numpy()
        indexed_ns = pc.cast(videos["indexed_at"], pa.timestamp("ns", tz="UTC")).cast(pa.int64()).to_numpy()
        for name, times in (("modified", modified_ns), ("indexed", indexed_ns)):
            after = _date(f"{name}_after", getattr(self, f"{name}_after"))
            before = _date(f"{name}_before", getattr(self, f"{name}_before"))
            if after is not None:
                yield times >= after
            if before is not None:
                yield times < before

    def _of_columns(self, snapshot: Snapshot) -> Iterator[np.ndarray]:
        uris = snapshot.videos["uri"].to_pylist()
        own = None
        if self.metadata is not None:
            own = join_metadata(self.metadata, uris, snapshot.ledger.videos["uri"].to_pylist())
        for condition in map(parse_condition, self.where):
            yield _numpy(compare(_column(condition, own, snapshot.videos), condition))


def _column(condition: Condition, own: pa.Table | None, videos: pa.Table) -> pa.ChunkedArray:
    for table in [own, videos] if own is not None else [videos]:
        if condition.column in table.column_names:
            return table[condition.column]
    names = [*(own.column_names if own is not None else []), *videos.column_names]
    hint = "" if own is not None else "; columns of your own come with --metadata FILE"
    raise UsageError(f"there is no column {condition.column!r} to filter by: choose from {', '.join(names)}{hint}")


def _numpy(values: pa.ChunkedArray) -> np.ndarray:
    """What is not known does not pass."""
    return values.fill_null(False).to_numpy()


def _match_glob(pattern: str, uris: list[str]) -> np.ndarray:
    if "/" in pattern and not pattern.startswith(("/", "*", "s3://", "file://")):
        pattern = f"*/{pattern}"
    expression = re.compile(fnmatch.translate(pattern))
    names = [uri if pattern.startswith("file://") else uri_to_path(uri) for uri in uris]
    if "/" not in pattern:
        names = [name.rsplit("/", 1)[-1] for name in names]
    return np.array([expression.match(name) is not None for name in names], dtype=bool)


def _date(name: str, value: str | None) -> int | None:
    """ns since 1970."""
    if value is None:
        return None
    try:
        time = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{name} must be a date or time such as 2025-03-31 or 2025-03-31T14:00, got {value!r}"
        ) from error
    time = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
    return int((time - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) / datetime.timedelta(microseconds=1)) * 1000


def _codes(language: str | Iterable[str]) -> tuple[str, ...]:
    """One text or several, each of one code or several, as they are written."""
    texts = [language] if isinstance(language, str) else language
    return tuple(code.strip() for text in texts for code in text.split(",") if code.strip())


def _in_language(languages: pa.ChunkedArray, wanted: Iterable[str]) -> np.ndarray:
    known = set(pc.unique(languages).to_pylist()) - {None}
    codes = []
    for written in wanted:
        code = language_code(written)
        if code not in known:
            held = f"the languages in the index are {', '.join(sorted(known))}" if known else "it states none"
            held += f"; of {languages.null_count} of {len(languages)} videos it is not known"
            raise UsageError(f"no video of the index is in the language {written!r}: {held}")
        codes.append(code)
    return _numpy(pc.is_in(languages, value_set=pa.array(codes, pa.string())))


def _label(text: str) -> tuple[str, float]:
    """The name in lower case, and the score that it must have."""
    found = _LABEL.fullmatch(text.strip())
    try:
        score = float(found["score"] or 0) if found else -1.0
    except ValueError:
        score = -1.0
    if found is None or not 0 <= score <= 1:
        raise UsageError(f"a label filter is NAME or NAME>=SCORE with a score of 0 to 1, got {text!r}")
    return found["label"].lower(), score


def _have_speech(snapshot: Snapshot) -> np.ndarray:
    result = np.zeros(snapshot.num_segments, dtype=bool)
    for rows, table in snapshot.read_file_by_file(["transcript"]):
        result[rows] = _numpy(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(table["transcript"])), 0))
    return result


def _have_label(snapshot: Snapshot, label: str, score: float) -> np.ndarray:
    result = np.zeros(snapshot.num_segments, dtype=bool)
    for rows, table in snapshot.read_file_by_file(["labels"]):
        column = table["labels"].combine_chunks()
        stored = column.flatten()
        named = pc.equal(pc.utf8_lower(stored.field("label")), label)
        sure = pc.greater_equal(stored.field("score"), pa.scalar(np.float32(score)))
        fitting = pc.and_(named, sure).fill_null(False).to_numpy(zero_copy_only=False)
        result[rows[pc.list_parent_indices(column).to_numpy()[fitting]]] = True
    return result
