"""What to train on: images and videos with captions, or with labels, from a table or from one folder a class."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.errors import SourceError, UsageError
from indexer.ingest.paths import VIDEO_EXTENSIONS, source_path

CAPTIONS, CLASSES = "captions", "classes"
TASKS = (CAPTIONS, CLASSES)
IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
TABLE_EXTENSIONS = (".csv", ".tsv", ".parquet")

_SOURCE_COLUMNS = ("path", "jpeg", "image", "video", "file", "uri")
_TEXT_COLUMNS = {CAPTIONS: ("captions", "caption"), CLASSES: ("labels", "label")}
_SEPARATOR = ";"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image or video.

    Attributes:
        name: which one, for people: the row of the table, or the path.
        path: the file; empty where `read` gives the bytes of an image.
        texts: its captions, or its labels.
        read: gives the bytes of an image that is stored in the table.
    """

    name: str
    path: str
    texts: tuple[str, ...]
    read: Callable[[], bytes] | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A record that is left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What was found.

    Attributes:
        task: "captions" or "classes".
        records: in the order of the data.
        problems: rows that say nothing.
        several: classes: whether a record may have several labels.
    """

    task: str
    records: list[Record]
    problems: list[Problem]
    several: bool = False


def read_collection(data: str, task: str | None = None) -> Collection:
    """Read a folder with one folder a class, or a table: .csv, .tsv or .parquet.

    Args:
        data: path of the folder or the table.
        task: "captions" or "classes"; None recognises it: a table with a column of captions is captions.

    Raises:
        UsageError: it is neither, lacks a column, or no row can be used.
    """
    if task not in (None, *TASKS):
        raise UsageError(f"the task must be {' or '.join(TASKS)}, got {task!r}")
    if os.path.isdir(data):
        if task == CAPTIONS:
            raise UsageError(f"{data!r} is a folder, and captions come in a table: give a .csv, .tsv or .parquet file")
        collection = _read_folders(data)
    elif data.lower().endswith(TABLE_EXTENSIONS) and os.path.exists(data):
        collection = _read_table(data, task)
    else:
        what = f"ends in {os.path.splitext(data)[1]!r}" if os.path.exists(data) else "does not exist"
        raise UsageError(
            f"the data must be a folder with one folder a class, or a file of {', '.join(TABLE_EXTENSIONS)}; "
            f"{data!r} {what}"
        )
    if not collection.records:
        problems = collection.problems
        first = f"; the first: {problems[0].name}: {problems[0].reason}" if problems else ""
        raise UsageError(f"{data!r} holds nothing to train on: {len(problems)} rows were left out{first}")
    return collection


def _read_folders(folder: str) -> Collection:
    root, records = Path(folder).absolute(), []
    for place in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        for path in sorted(place.rglob("*")):
            if path.suffix.lower() in IMAGE_EXTENSIONS | VIDEO_EXTENSIONS and path.is_file():
                records.append(Record(name=str(path.relative_to(root)), path=str(path), texts=(place.name,)))
    return Collection(task=CLASSES, records=records, problems=[])


def _read_table(path: str, task: str | None) -> Collection:
    names, rows = _parquet_rows(path) if path.lower().endswith(".parquet") else _text_rows(path)
    task = task or next((kind for kind in TASKS if _first(names, _TEXT_COLUMNS[kind])), None)
    texts = _first(names, _TEXT_COLUMNS[task]) if task else None
    source = _first(names, _SOURCE_COLUMNS)
    if task is None or texts is None or source is None:
        wanted = _TEXT_COLUMNS[task] if task else ("captions", "caption", "labels", "label")
        missing = f"{', '.join(wanted[:-1])} or {wanted[-1]}" if texts is None else ", ".join(_SOURCE_COLUMNS)
        raise UsageError(
            f"the table {path!r} has no column named {missing}; "
            f"it has {', '.join(map(repr, names)) or 'none'}: rename one"
        )
    records: list[Record] = []
    problems: list[Problem] = []
    several = False
    for number, row in enumerate(rows, 1):
        found = _texts(row.get(texts), split=task == CLASSES)
        several |= task == CLASSES and (len(found) > 1 or isinstance(row.get(texts), list))
        record = _record(number, row.get(source), tuple(found), os.path.dirname(os.path.abspath(path)))
        if isinstance(record, Record) and not found:
            record = Problem(name=record.name, reason=f"the column {texts!r} is empty")
        records.append(record) if isinstance(record, Record) else problems.append(record)
    return Collection(task=task, records=records, problems=problems, several=several)


def _first(names: Iterable[str], wanted: Iterable[str]) -> str | None:
    by_name = {name.strip().lower(): name for name in reversed(list(names))}
    return next((by_name[name] for name in wanted if name in by_name), None)


def _texts(value: Any, *, split: bool) -> list[str]:
    """Captions, or labels without repetition; blank ones are dropped."""
    if not isinstance(value, list):
        text = "" if value is None else str(value)
        value = text.split(_SEPARATOR) if split else [text]
    stripped = [" ".join(str(text).split()) for text in value if text is not None]
    return list(dict.fromkeys(text for text in stripped if text))


def _record(number: int, source: Any, texts: tuple[str, ...], folder: str) -> Record | Problem:
    name = f"row {number}"
    if isinstance(source, Mapping):  # an image as Hugging Face's data sets store it
        source = source.get("bytes") or source.get("path")
    if callable(source):
        return Record(name=name, path="", texts=texts, read=source)
    if not isinstance(source, str) or not source.strip():
        return Problem(name=name, reason="it names no file")
    try:
        path = source_path(source.strip(), relative_to=folder)
    except SourceError as error:
        return Problem(name=name, reason=str(error))
    return Record(name=f"{name} ({source.strip()!r})", path=path, texts=texts)


def _text_rows(path: str) -> tuple[list[str], Iterable[dict[str, Any]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = "\t" if path.lower().endswith(".tsv") else max(",;\t", key=header.count)
            if delimiter == "\t":
                reader = csv.DictReader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
            else:
                reader = csv.DictReader(file, delimiter=delimiter)
            names, rows = list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read the table {path!r}: {error}; save it as UTF-8 text") from error
    return names, rows


def _parquet_rows(path: str) -> tuple[list[str], Iterable[dict[str, Any]]]:
    """Rows without the bytes of images, which are read when they are needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        source = _first(names, _SOURCE_COLUMNS)
        blobs = _Blobs(path, source) if source and _holds_bytes(file.schema_arrow.field(source).type) else None
        wanted = [name for columns in _TEXT_COLUMNS.values() for name in [_first(names, columns)] if name]
        if source and blobs is None:
            wanted.append(source)
        rows = file.read(columns=wanted).to_pylist() if wanted else []
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"cannot read the table {path!r}: {error}; it must be a Parquet file") from error
    if blobs is not None and source is not None:
        rows = [{**row, source: blobs.reader(number)} for number, row in enumerate(rows)]
    return names, rows


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


class _Blobs:
    """The images in a column of a Parquet file; one row group is in memory at a time."""

    def __init__(self, path: str, column: str) -> None:
        import pyarrow as pa

        self._path, self._column = path, column
        self._first, self._values = 0, pa.chunked_array([], pa.binary())

    def reader(self, row: int) -> Callable[[], bytes]:
        return lambda: self._read(row)

    def _read(self, row: int) -> bytes:
        import pyarrow.parquet as pq

        if not 0 <= row - self._first < len(self._values):
            file, first = pq.ParquetFile(self._path), 0
            for group in range(file.num_row_groups):
                length = file.metadata.row_group(group).num_rows
                if row < first + length:
                    self._first = first
                    self._values = file.read_row_group(group, columns=[self._column])[self._column]
                    break
                first += length
        value = self._values[row - self._first].as_py()
        return (value.get("bytes") if isinstance(value, dict) else value) or b""
