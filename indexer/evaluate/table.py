"""Reads the rows of a .tsv, .csv or .parquet file."""

from __future__ import annotations

import csv
import io
from typing import Any

from indexer.errors import UsageError
from indexer.storage import location, open_binary

_EXTENSIONS = (".tsv", ".csv", ".parquet")


def read_table(path: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of the columns, and the rows by name.

    Raises:
        UsageError: there is no such file, it is of another kind, or it cannot be read.
        StorageError: its bucket cannot be reached.
    """
    if not path.lower().endswith(_EXTENSIONS):
        raise UsageError(f"the data must be a {', '.join(_EXTENSIONS[:-1])} or {_EXTENSIONS[-1]} file, got {path!r}")
    try:
        with open_binary(location(path)) as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f"cannot read the table {path!r}: {error.strerror or error}") from error
    return _parquet(path, content) if path.lower().endswith(".parquet") else _text(path, content)


def _text(path: str, content: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        text = content.decode("utf-8-sig")
        header = text.split("\n", 1)[0]
        delimiter = "\t" if path.lower().endswith(".tsv") else max(",;\t", key=header.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        return list(reader.fieldnames or []), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read the table {path!r}: {error}; save it as UTF-8 text") from error


def _parquet(path: str, content: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"cannot read the table {path!r}: it is not a readable Parquet file") from error
    return table.column_names, table.to_pylist()
