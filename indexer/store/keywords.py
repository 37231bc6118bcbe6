"""Immutable full-text files: what is said, seen and written in moments, in SQLite's FTS5. The only file that knows it.

    keywords/NAME.sqlite         the inverted index; row i of it is row i of the ids; it keeps no texts
    keywords/NAME.rows.parquet   segment_id, batch_id
    keywords/NAME.json           written last: ledger version, size, SHA-256 of the other two

A file is never changed. One whose checksums do not agree is ignored, and the texts are read from the tables instead.
Why FTS5: docs/design/keywords.md.
"""

from __future__ import annotations

import contextlib
import json
import math
import posixpath
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from indexer.errors import IndexFormatError, StorageError
from indexer.storage import DamagedCopyError, Location, verified_copy, write_whole
from indexer.store.file_set import ROWS, FileSet, read_rows

# The name of the table says how texts are cut and stored: files made in another way are passed over, and rebuilt.
_TABLE = "moments1"
_COLUMNS = "transcript, labels, title, name"
_TOKENIZE = 'tokenize = "unicode61 remove_diacritics 2"'
_SUFFIXES = (".json", ".sqlite", ROWS)
# A label that the model itself hardly believes in is no word of the moment.
MIN_LABEL_SCORE = 0.1
# Columns of `MomentText` in which the plain words of a query count; that of labels is in the vectors already.
SPOKEN_OR_WRITTEN = ("transcript", "title")
_SNIPPET_WORDS = 16


class MomentText(NamedTuple):
    """The words of one moment.

    Attributes:
        transcript: what is said.
        labels: names of the classes seen.
        title: that of the video's container.
        name: the file name of the video, without extension.
    """

    transcript: str
    labels: str
    title: str
    name: str


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


def moment_texts(moments: pa.Table, uris: Sequence[str], titles: Sequence[str | None]) -> Iterator[MomentText]:
    """The words of some moments.

    Args:
        moments: columns `transcript` and `labels` of `schema.SEGMENTS`.
        uris, titles: of the video of each moment.
    """
    rows = zip(moments["transcript"].to_pylist(), moments["labels"].to_pylist(), uris, titles, strict=True)
    for transcript, labels, uri, title in rows:
        believed = [label["label"] for label in labels or [] if label["score"] >= MIN_LABEL_SCORE]
        yield MomentText(transcript or "", ", ".join(believed), title or "", _name(uri))


def _name(uri: str) -> str:
    path = unquote(uri) if uri.startswith("file://") else uri
    return posixpath.splitext(path.rsplit("/", 1)[-1])[0]


class KeywordFile(NamedTuple):
    """A checked keyword file: where it lies on this machine, and the ids int64 [N] and batches [N] of its rows."""

    path: Path
    segment_ids: np.ndarray
    batch_ids: pa.Array


class KeywordCoverage(NamedTuple):
    """How much of a snapshot a keyword file covers.

    Attributes:
        file: the newest usable file, if there is one.
        file_to_row: int64, the row of the snapshot for each row of the file; -1: no longer visible.
        new_rows: rows of the snapshot that the file does not hold.
        damaged: what was wrong with newer files that had to be passed over.
    """

    file: KeywordFile | None
    file_to_row: np.ndarray
    new_rows: np.ndarray
    damaged: tuple[str, ...] = ()

    @property
    def uncovered(self) -> int:
        return len(self.new_rows)

    @property
    def tombstones(self) -> int:
        return int((self.file_to_row < 0).sum())


class Keywords:
    """Full text over the moments of one snapshot: a keyword file, completed by the moments that it does not cover.

    Args:
        coverage: the file.
        new_texts: words of the moments that it does not cover, in the order of `new_rows`.
    """

    def __init__(self, coverage: KeywordCoverage, new_texts: Iterable[MomentText]) -> None:
        file, file_to_row, new_rows, _ = coverage
        self._to_row = np.concatenate([file_to_row, new_rows])
        self._connection = _opened(file)
        if len(new_rows):
            # A copy that takes the new moments: one set of statistics, so that all scores compare. SQLite moves what
            # outgrows its cache to a temporary file.
            self._connection, opened = _copy(self._connection), self._connection
            opened.close()
            _insert(self._connection, new_texts, start=len(file_to_row))

    def match(self, expression: str) -> np.ndarray:
        """Rows of the snapshot, int64, whose words fulfil an expression made by the functions below."""
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.execute(f"SELECT rowid FROM {_TABLE} WHERE {_TABLE} MATCH ?", (expression,))
            return self._visible(np.fromiter((row for (row,) in cursor), np.int64))[0]

    def bm25(self, tokens: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Moments with any of some words, spoken or written.

        Args:
            tokens: words as `tokens_of` cuts them.

        Returns:
            Rows int64 [R], and BM25 float64 [R] (k1 = 1.2, b = 0.75), higher is better.
        """
        if not tokens:
            return np.empty(0, np.int64), np.empty(0)
        expression = in_columns(SPOKEN_OR_WRITTEN, any_of([phrase(token) for token in tokens]))
        query = f"SELECT rowid, -bm25({_TABLE}) FROM {_TABLE} WHERE {_TABLE} MATCH ?"
        with contextlib.closing(self._connection.cursor()) as cursor:
            found = cursor.execute(query, (expression,)).fetchall()
        rows, kept = self._visible(np.array([row for row, _ in found], np.int64))
        return rows, np.array([score for _, score in found], np.float64)[kept]

    def rarity(self, tokens: Sequence[str]) -> np.ndarray:
        """How much each word tells, float64: the inverse document frequency of BM25, at least 1e-6."""
        total = len(self._to_row)
        counts = [
            self._connection.execute("SELECT doc FROM vocabulary WHERE term = ?", (token,)).fetchone()
            for token in tokens
        ]
        known = [count[0] if count else 0 for count in counts]
        return np.array([max(1e-6, math.log((total - n + 0.5) / (n + 0.5))) for n in known])

    def _visible(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the snapshot for rows of the table that are visible, and which those are."""
        rows = self._to_row[numbers]
        kept = rows >= 0
        return rows[kept], kept


def phrase(words: str, *, is_prefix: bool = False) -> str:
    """An expression for words that follow each other; with `is_prefix` the last may go on."""
    quoted = words.replace("\0", " ").replace('"', '""')
    return f'"{_storable(quoted)}"' + ("*" if is_prefix else "")


def any_of(expressions: Sequence[str]) -> str:
    """An expression that is fulfilled where one of at least one others is."""
    return "(" + " OR ".join(expressions) + ")"


def in_columns(columns: Sequence[str], expression: str) -> str:
    """An expression that looks at some columns of `MomentText` only."""
    return f"{{{' '.join(columns)}}} : {expression}"


def tokens_of(text: str) -> list[str]:
    """The words of a text as the engine cuts them: lower case, without accents, no punctuation; each once, in order."""
    with contextlib.closing(_created(":memory:")) as connection:
        _insert(connection, [MomentText(text, "", "", "")])
        connection.execute(f"CREATE VIRTUAL TABLE positions USING fts5vocab({_TABLE}, instance)")
        found = connection.execute("SELECT term FROM positions ORDER BY offset").fetchall()
    return list(dict.fromkeys(term for (term,) in found))


def snippets(texts: Sequence[MomentText], expression: str) -> list[str | None]:
    """Some words around what fulfils an expression in each text, that in **asterisks**; None where nothing does."""
    found: list[str | None] = [None] * len(texts)
    with contextlib.closing(_created(":memory:", content="")) as connection:
        _insert(connection, texts)
        marked = f"snippet({_TABLE}, -1, '**', '**', '…', {_SNIPPET_WORDS})"
        query = f"SELECT rowid, {marked} FROM {_TABLE} WHERE {_TABLE} MATCH ?"
        for row, snippet in connection.execute(query, (expression,)):
            found[row] = snippet
    return found


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
            table=_TABLE,
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
        if manifest.table == _TABLE:
            yield manifest


def _file_name(path: Location) -> str:
    return path.name


def open_keyword_file(folder: Location, manifest: KeywordManifest) -> KeywordFile:
    """Checks the checksums of a keyword file. One in a bucket is read through a copy on this machine.

    Raises:
        IndexFormatError: a file is missing, cut short or changed.
        StorageError: its bucket cannot be reached.
    """
    paths = {}
    for suffix, wanted in manifest.sha256.items():
        name = f"{manifest.name}{suffix}"
        try:
            paths[suffix] = verified_copy(folder / name, wanted)
        except OSError as error:
            raise IndexFormatError(f"the keyword file {name!r} cannot be read: {error.strerror or error}") from error
        except DamagedCopyError as error:
            raise IndexFormatError(
                f"the keyword file {name!r} is damaged: its checksum differs from the one in its manifest"
            ) from error
    return KeywordFile(paths[".sqlite"], *read_rows(paths[ROWS]))


def delete_other_keywords(folder: Location, kept: KeywordManifest, num_others: int) -> None:
    """Deletes all keyword files but one and some newest others; a reader that has one open here goes on reading it."""
    names = sorted((path.name.split(".")[0] for path in folder.glob("k*.json")), reverse=True)
    for name in [name for name in names if name != kept.name][num_others:]:
        _delete(folder, name)


def _delete(folder: Location, name: str) -> None:
    for suffix in _SUFFIXES:
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def _opened(file: KeywordFile | None) -> sqlite3.Connection:
    if file is None:
        return _created("")
    # A snapshot is asked by one thread at a time, not always the same one.
    uri = f"{file.path.absolute().as_uri()}?mode=ro&immutable=1"
    return _with_vocabulary(sqlite3.connect(uri, uri=True, check_same_thread=False))


def _copy(source: sqlite3.Connection) -> sqlite3.Connection:
    target = sqlite3.connect("", check_same_thread=False)
    source.backup(target)
    return _with_vocabulary(target)


def _created(path: str, content: str = ", content = ''") -> sqlite3.Connection:
    """A new database with an empty table; by default one that keeps no texts, only where words are."""
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute(f"CREATE VIRTUAL TABLE {_TABLE} USING fts5({_COLUMNS}, {_TOKENIZE}{content})")
    return _with_vocabulary(connection)


def _with_vocabulary(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute(f"CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, {_TABLE}, row)")
    return connection


def _insert(connection: sqlite3.Connection, texts: Iterable[MomentText], start: int = 0) -> None:
    rows = ((number, *map(_storable, text)) for number, text in enumerate(texts, start))
    connection.executemany(f"INSERT INTO {_TABLE}(rowid, {_COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows)
    connection.commit()


def _storable(text: str) -> str:
    """Names that are not UTF-8 hold what SQLite does not take."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")


@contextlib.contextmanager
def _database(texts: Iterable[MomentText]) -> Iterator[Path]:
    """A database of some texts, there until the block ends. Not made where it will lie, which may be a network's."""
    with tempfile.TemporaryDirectory(prefix="videobert-keywords-") as folder:
        path = Path(folder, "keywords.sqlite")
        with contextlib.closing(_created(str(path))) as connection:
            _insert(connection, texts)
            connection.execute(f"INSERT INTO {_TABLE}({_TABLE}) VALUES ('optimize')")
            connection.commit()
        yield path
