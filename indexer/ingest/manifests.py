"""Lists of videos: .txt (one path a line), .csv, .tsv and .parquet (a column of paths)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator

from indexer.errors import SourceError
from indexer.storage import open_binary

MANIFEST_EXTENSIONS = (".txt", ".csv", ".tsv", ".parquet")
COLUMNS = ("path", "uri", "video", "file")


def is_manifest(path: str) -> bool:
    return path.lower().endswith(MANIFEST_EXTENSIONS)


def read_manifest(path: str) -> Iterator[str]:
    """What the manifest lists, in its order and as it is written there; empty entries are left out.

    Raises:
        SourceError: it cannot be read, has no column of paths, or lists nothing.
        StorageError: its bucket cannot be reached.
    """
    readers = {".txt": _read_text, ".csv": _read_table, ".tsv": _read_table, ".parquet": _read_parquet}
    is_empty = True
    try:
        for entry in map(str.strip, readers[os.path.splitext(path)[1].lower()](path)):
            if entry:
                is_empty = False
                yield entry
    except OSError as error:
        raise SourceError(f"cannot read the manifest {path!r}: {error.strerror or error}") from error
    except csv.Error as error:
        raise SourceError(f"cannot read the manifest {path!r}: {error}; save it as one path a line") from error
    if is_empty:
        raise SourceError(f"the manifest {path!r} lists no video; write one path a line, or a column named path")


def _lines(path: str) -> Iterator[str]:
    """The file's lines; bytes that are not UTF-8 are kept as Python keeps them in file names."""
    with io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from file


def _read_text(path: str) -> Iterator[str]:
    return (line for line in _lines(path) if not line.lstrip().startswith("#"))


def _read_table(path: str) -> Iterator[str]:
    rows = csv.reader(_lines(path), delimiter=_delimiter(path))
    names = next(rows, [])
    column = names.index(_path_column(path, names))
    return (row[column] for row in rows if len(row) > column)


def _delimiter(path: str) -> str:
    header = next(_lines(path), "")
    return max(",;\t", key=header.count) if any(mark in header for mark in ",;\t") else ","


def _path_column(path: str, names: Iterable[str]) -> str:
    by_name: dict[str, str] = {}
    for name in names:
        by_name.setdefault(name.strip().lower(), name)
    for wanted in COLUMNS:
        if wanted in by_name:
            return by_name[wanted]
    raise SourceError(
        f"the manifest {path!r} has no column named {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; "
        f"it has {', '.join(map(repr, by_name.values())) or 'none'}; rename the one that holds the paths"
    )


def _read_parquet(path: str) -> Iterator[str]:
    import pyarrow as pa  # only here: most runs read no Parquet manifest
    import pyarrow.parquet

    try:
        with open_binary(path) as source, pyarrow.parquet.ParquetFile(source) as file:
            column = _path_column(path, file.schema_arrow.names)
            kind = file.schema_arrow.field(column).type
            for batch in file.iter_batches(columns=[column]):
                for value in batch.column(0).drop_null().to_pylist():
                    if not isinstance(value, str):
                        raise SourceError(
                            f"the column {column!r} of the manifest {path!r} holds {kind}, not text; "
                            "store paths as text"
                        )
                    yield value
    except pa.ArrowException as error:
        raise SourceError(f"cannot read the manifest {path!r}: it is not a readable Parquet file") from error
