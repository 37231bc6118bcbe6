"""Full text over moments: how it is asked, and by which expressions."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from indexer.store.fts5 import TABLE, copied, created, insert, opened, storable
from indexer.store.keyword_files import KeywordFile
from indexer.store.moment_texts import MomentText

# Columns of `MomentText` in which the plain words of a query count; that of labels is in the vectors already.
SPOKEN_OR_WRITTEN = ("transcript", "title")
_SNIPPET_WORDS = 16


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
        self._connection = created("") if file is None else opened(file.path)
        if len(new_rows):
            # A copy that takes the new moments: one set of statistics, so that all scores compare. SQLite moves what
            # outgrows its cache to a temporary file.
            self._connection, unchanged = copied(self._connection), self._connection
            unchanged.close()
            insert(self._connection, new_texts, start=len(file_to_row))

    def match(self, expression: str) -> np.ndarray:
        """Rows of the snapshot, int64, whose words fulfil an expression made by the functions below."""
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.execute(f"SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH ?", (expression,))
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
        query = f"SELECT rowid, -bm25({TABLE}) FROM {TABLE} WHERE {TABLE} MATCH ?"
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
    return f'"{storable(quoted)}"' + ("*" if is_prefix else "")


def any_of(expressions: Sequence[str]) -> str:
    """An expression that is fulfilled where one of at least one others is."""
    return "(" + " OR ".join(expressions) + ")"


def in_columns(columns: Sequence[str], expression: str) -> str:
    """An expression that looks at some columns of `MomentText` only."""
    return f"{{{' '.join(columns)}}} : {expression}"


def tokens_of(text: str) -> list[str]:
    """The words of a text as the engine cuts them: lower case, without accents, no punctuation; each once, in order."""
    with contextlib.closing(created(":memory:")) as connection:
        insert(connection, [MomentText(text, "", "", "")])
        connection.execute(f"CREATE VIRTUAL TABLE positions USING fts5vocab({TABLE}, instance)")
        found = connection.execute("SELECT term FROM positions ORDER BY offset").fetchall()
    return list(dict.fromkeys(term for (term,) in found))


def snippets(texts: Sequence[MomentText], expression: str) -> list[str | None]:
    """Some words around what fulfils an expression in each text, that in **asterisks**; None where nothing does."""
    found: list[str | None] = [None] * len(texts)
    with contextlib.closing(created(":memory:", content="")) as connection:
        insert(connection, texts)
        marked = f"snippet({TABLE}, -1, '**', '**', '…', {_SNIPPET_WORDS})"
        query = f"SELECT rowid, {marked} FROM {TABLE} WHERE {TABLE} MATCH ?"
        for row, snippet in connection.execute(query, (expression,)):
            found[row] = snippet
    return found
