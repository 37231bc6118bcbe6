"""Rows kept in order in a temporary file of this process: a run lists as many videos as there are, in the same memory.

The file is SQLite's, in the folder for temporary files (TMPDIR). Nobody else sees it, and it is gone with the process,
however that ends; while there are few rows it stays in memory.
"""

from __future__ import annotations

import dataclasses
import operator
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from indexer.errors import StorageError

Row = TypeVar("Row")

_CACHE_KIB = 512
_ROWS_AT_A_TIME = 1000


class OnDisk(Collection[Row], Generic[Row]):
    """Rows of one kind, in the order of some of their fields, which also tell them apart. Any thread may use it.

    Args:
        kind: a dataclass, with fields of text, whole numbers and None.
        order: names of fields; "-" before a name: falling.

    Every method raises a StorageError where the temporary file cannot be written.
    """

    def __init__(self, kind: Callable[..., Row], order: tuple[str, ...] = ("uri",)) -> None:
        self._names = names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        keys = [name.removeprefix("-") for name in order]
        falling = {name[1:] for name in order if name.startswith("-")}
        columns = ", ".join(names)
        self._of_row = operator.attrgetter(*names)
        self._key_of = operator.attrgetter(*keys)
        self._kind = kind
        self._lock = threading.Lock()
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size = -{_CACHE_KIB}", "journal_mode = off", "synchronous = off"):
            self._connection.execute(f"PRAGMA {setting}")
        primary = ", ".join(f"{name} DESC" if name in falling else name for name in keys)
        self._connection.execute(f"CREATE TABLE kept ({columns}, PRIMARY KEY ({primary})) WITHOUT ROWID")
        self._connection.execute("BEGIN")  # never ended: nothing of it has to outlast the process
        self._add = f"INSERT OR REPLACE INTO kept VALUES ({', '.join('?' * len(names))})"
        self._get = f"SELECT {columns} FROM kept WHERE {' AND '.join(f'{name} = ?' for name in keys)}"
        self._all = f"SELECT {columns} FROM kept ORDER BY {primary}"
        self._between = f"SELECT {columns} FROM kept WHERE {keys[0]} >= ? AND {keys[0]} < ? ORDER BY {primary}"

    def add(self, *rows: Row) -> None:
        """Adds rows, in place of those that have the same key."""
        self.add_all(rows)

    def add_all(self, rows: Iterable[Row]) -> None:
        """Likewise, however many there are."""
        with self._used() as connection:
            connection.executemany(self._add, (_stored(self._of_row(row)) for row in rows))

    def get(self, *key: str | int) -> Row | None:
        """The row with these values of the fields that rows are ordered by."""
        with self._used() as connection:
            found = connection.execute(self._get, _stored(key)).fetchone()
        return self._row(found) if found else None

    def beginning(self, start: str) -> Iterator[Row]:
        """The rows whose first key begins so."""
        first = start.encode(errors="surrogateescape")
        return self._rows(self._between, (first, first + b"\xff"))

    def __contains__(self, row: object) -> bool:
        """Whether there is one with the key of this one."""
        key = self._key_of(row)
        return self.get(*key if isinstance(key, tuple) else (key,)) is not None

    def __len__(self) -> int:
        with self._used() as connection:
            return int(connection.execute("SELECT count(*) FROM kept").fetchone()[0])

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def __iter__(self) -> Iterator[Row]:
        return self._rows(self._all, ())

    def _rows(self, query: str, values: tuple[bytes, ...]) -> Iterator[Row]:
        with self._used() as connection:
            rows = connection.execute(query, values)
        while True:
            with self._used():
                some = rows.fetchmany(_ROWS_AT_A_TIME)
            if not some:
                return
            yield from map(self._row, some)

    def _row(self, values: tuple[Any, ...]) -> Row:
        return self._kind(**dict(zip(self._names, _loaded(values), strict=True)))

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise StorageError(
                    f"the list of videos could not be kept in a temporary file: {error}; make room in the folder for "
                    "temporary files, or name another one in TMPDIR"
                ) from error


def _stored(values: Iterable[Any]) -> list[Any]:
    """Text as UTF-8, with the bytes of file names that are none; as blobs, which are compared byte by byte."""
    return [value.encode(errors="surrogateescape") if isinstance(value, str) else value for value in values]


def _loaded(values: Iterable[Any]) -> list[Any]:
    return [value.decode(errors="surrogateescape") if isinstance(value, bytes) else value for value in values]
