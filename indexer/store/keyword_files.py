"""Immutable files of keywords: written, listed, opened and deleted.

    keywords/NAME.sqlite         the inverted index; row i of it is row i of the ids; it keeps no texts
    keywords/NAME.rows.parquet   segment_id, batch_id
    keywords/NAME.json           written last: ledger version, size, SHA-256 of the other two

A file is never changed. One whose checksums do not agree is ignored, and the texts are read from the tables instead.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from indexer.errors import StorageError
from indexer.storage import Location, write_whole
from indexer.store.file_set import ROWS, FileSet, checked_files, read_rows
from indexer.store.fts5 import TABLE, created, insert
from indexer.store.moment_texts import MomentText

_SUFFIXES = (".json", ".sqlite", ROWS)


@dataclass(frozen=True, kw_only=True)
class KeywordManifest:
    """What NAME.json says.

    Attributes:
        name: stem of the three files.
        ledger_version: version of `videos/` that the file covers.
        table: name of the table in it.
        num_rows: moments.
        sha256: checksum of each of the other two files by suffix.
    """

    name: str
    ledger_version: int
    table: str
    num_rows: int
    sha256: dict[str, str]


class KeywordFile(NamedTuple):
    """A checked keyword file: where it lies on this machine, and the ids int64 [N] and batches [N] of its rows."""

    path: Path
    segment_ids: np.ndarray
    batch_ids: pa.Array


def build_keyword_file(
    folder: Location,
    *,
    texts: Iterable[MomentText],
    segment_ids: np.ndarray,
    batch_ids: pa.Array,
    ledger_version: int,
) -> KeywordManifest:
    """Writes a keyword file for a ledger version; it becomes visible with its manifest, written last.

    Args:
        folder: `keywords/` of an index.
        texts: words of N moments.
        segment_ids: int64 [N].
        batch_ids: string [N], the batch each row belongs to.
        ledger_version: version of `videos/` whose visible moments these are.

    Raises:
        StorageError: the files could not be written.
    """
    name = f"k{ledger_version:012d}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(exist_ok=True)
        files = FileSet(folder, name)
        with files.file(".sqlite") as path, _database(texts) as database:
            shutil.copyfile(database, path)
        files.write_rows(segment_ids, batch_ids)
        manifest = KeywordManifest(
            name=name,
            ledger_version=ledger_version,
            table=TABLE,
            num_rows=len(segment_ids),
            sha256=files.sha256,
        )
        write_whole(folder / f"{name}.json", json.dumps(asdict(manifest), indent=1).encode())
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            _delete(folder, name)
        detail = getattr(error, "strerror", None) or error
        raise StorageError(f"the keywords could not be written to {str(folder)!r}: {detail}") from error
    return manifest


def list_keyword_manifests(folder: Location) -> Iterator[KeywordManifest]:
    """Manifests in the folder, newest ledger version first; unreadable ones and those of other tables are left out."""
    for path in sorted(folder.glob("k*.json"), key=_file_name, reverse=True):
        try:
            manifest = KeywordManifest(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue
        if manifest.table == TABLE:
            yield manifest


def _file_name(path: Location) -> str:
    return path.name


def open_keyword_file(folder: Location, manifest: KeywordManifest) -> KeywordFile:
    """Checks the checksums of a keyword file. One in a bucket is read through a copy on this machine.

    Raises:
        IndexFormatError: a file is missing, cut short or changed.
        StorageError: its bucket cannot be reached.
    """
    paths = checked_files("keyword file", folder, manifest.name, manifest.sha256)
    return KeywordFile(paths[".sqlite"], *read_rows(paths[ROWS]))


def delete_other_keywords(folder: Location, kept: KeywordManifest, num_others: int) -> None:
    """Deletes all keyword files but one and some newest others; a reader that has one open here goes on reading it."""
    names = sorted((path.name.split(".")[0] for path in folder.glob("k*.json")), reverse=True)
    for name in [name for name in names if name != kept.name][num_others:]:
        _delete(folder, name)


def _delete(folder: Location, name: str) -> None:
    for suffix in _SUFFIXES:
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


@contextlib.contextmanager
def _database(texts: Iterable[MomentText]) -> Iterator[Path]:
    """A database of some texts, there until the block ends. Not made where it will lie, which may be a network's."""
    with tempfile.TemporaryDirectory(prefix="videobert-keywords-") as folder:
        path = Path(folder, "keywords.sqlite")
        with contextlib.closing(created(str(path))) as connection:
            insert(connection, texts)
            connection.execute(f"INSERT INTO {TABLE}({TABLE}) VALUES ('optimize')")
            connection.commit()
        yield path
