"""Tables of SQLite's FTS5 that hold the words of moments: made, filled and opened.

Why FTS5: docs/design/keywords.md. Its queries are in `keywords.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from indexer.store.moment_texts import MomentText

# The name of the table says how texts are cut and stored: files made in another way are passed over, and rebuilt.
TABLE = "moments1"
_COLUMNS = "transcript, labels, title, name"
_TOKENIZE = 'tokenize = "unicode61 remove_diacritics 2"'


def created(path: str, content: str = ", content = ''") -> sqlite3.Connection:
    """A new database with an empty table; by default one that keeps no texts, only where words are."""
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute(f"CREATE VIRTUAL TABLE {TABLE} USING fts5({_COLUMNS}, {_TOKENIZE}{content})")
    return _with_vocabulary(connection)


def opened(path: Path) -> sqlite3.Connection:
    """A database that is only read."""
    # A snapshot is asked by one thread at a time, not always the same one.
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return _with_vocabulary(sqlite3.connect(uri, uri=True, check_same_thread=False))


def copied(source: sqlite3.Connection) -> sqlite3.Connection:
    """A copy that can be written to, in a temporary file."""
    target = sqlite3.connect("", check_same_thread=False)
    source.backup(target)
    return _with_vocabulary(target)


def insert(connection: sqlite3.Connection, texts: Iterable[MomentText], start: int = 0) -> None:
    """Adds texts, numbered from `start` on."""
    rows = ((number, *map(storable, text)) for number, text in enumerate(texts, start))
    connection.executemany(f"INSERT INTO {TABLE}(rowid, {_COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows)
    connection.commit()


def storable(text: str) -> str:
    """Names that are not UTF-8 hold what SQLite does not take."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")


def _with_vocabulary(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute(f"CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, {TABLE}, row)")
    return connection
