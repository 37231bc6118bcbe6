"""Vectors and words as one search: the cosine, and for words that were said or written a bonus.

    score = cosine + WORD_WEIGHT · spread · share²

`spread` is how much the best scores of unrelated queries differ in this index, so that the weight means the same for
every model. `share` is BM25 over what it would be if the moment had each telling word of the query once, 0 to 1. Its
square keeps one common word of many from mattering. Why so: docs/design/keywords.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from indexer.query.syntax import ParsedQuery
from indexer.store.keywords import SPOKEN_OR_WRITTEN, Keywords, any_of, in_columns, phrase, tokens_of
from indexer.store.snapshot import Snapshot
from model.augment_text import stop_words

# Measured with benchmarks/hybrid_search.py.
WORD_WEIGHT = 16.0
# Of a long text the words that tell most.
_MAX_WORDS = 64


@dataclass(frozen=True, kw_only=True)
class PlainWords:
    """The telling words of a query.

    Attributes:
        tokens: the words, without stop words unless there are no others; the rarest first.
        rarity: float64, how much each of them tells.
    """

    tokens: list[str]
    rarity: np.ndarray

    @classmethod
    def of(cls, text: str, keywords: Keywords) -> PlainWords:
        """The words of a text, as they count in one index."""
        tokens = tokens_of(text)
        tokens = [token for token in tokens if token not in stop_words()] or tokens
        rarity = keywords.rarity(tokens)
        order = np.argsort(-rarity, kind="stable")[:_MAX_WORDS]
        return cls(tokens=[tokens[i] for i in order], rarity=rarity[order])

    def shares(self, keywords: Keywords) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64 [R] of the moments that have any of the words, and their shares float64 [R]."""
        rows, scores = keywords.bm25(self.tokens)
        return rows, np.minimum(scores / self.rarity.sum(), 1.0) if len(rows) else scores

    def said(self, keywords: Keywords, rows: Sequence[int]) -> np.ndarray:
        """Which part of the words each of some moments has, float64 in 0 to 1, weighed by how much they tell."""
        if not self.tokens:
            return np.zeros(len(rows))
        has = [np.isin(rows, keywords.match(in_columns(SPOKEN_OR_WRITTEN, phrase(token)))) for token in self.tokens]
        return self.rarity @ np.array(has) / self.rarity.sum()

    @property
    def expression(self) -> str | None:
        """Any of the words, spoken or written; for snippets."""
        if not self.tokens:
            return None
        return in_columns(SPOKEN_OR_WRITTEN, any_of([phrase(token) for token in self.tokens]))


class Found(NamedTuple):
    """Moments found for one query, best first: rows int64, scores float64, and how much of each is for words."""

    rows: np.ndarray
    scores: np.ndarray
    bonuses: np.ndarray


class HybridSearch:
    """Several queries to one snapshot.

    Args:
        snapshot: what is searched.
        queries: Q of them.
        vectors: float32 [Q, dim], length 1.
        spread: see above.
        allowed: bool [N]; only these moments are looked at, None allows all.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        queries: Sequence[ParsedQuery],
        vectors: np.ndarray,
        spread: float,
        allowed: np.ndarray | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._vectors = vectors
        self._everywhere = allowed
        self._allowed = [_allowed(query, snapshot, allowed) for query in queries]
        self.words = [PlainWords.of(query.text, snapshot.keywords) for query in queries]
        self._bonuses = [self._bonus(i, spread) for i in range(len(queries))]

    def num_allowed(self, number: int) -> int:
        """Moments that a query may find."""
        allowed = self._allowed[number]
        return self._snapshot.num_segments if allowed is None else int(allowed.sum())

    def best(self, num: int, numbers: Sequence[int]) -> list[Found]:
        """For some of the queries the moments that are among the `num` best by cosine or the `num` best by words."""
        together = [i for i in numbers if self._allowed[i] is self._everywhere]
        by_vector = {}
        if together:
            scores, rows = self._snapshot.search(self._vectors[together], num, self._everywhere)
            by_vector = {i: (scores[j], rows[j]) for j, i in enumerate(together)}
        for i in set(numbers) - set(together):
            scores, rows = self._snapshot.search(self._vectors[i : i + 1], num, self._allowed[i])
            by_vector[i] = (scores[0], rows[0])
        return [self._fused(i, *by_vector[i], num) for i in numbers]

    def _bonus(self, number: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows with any of the words, highest bonus first, and their bonuses."""
        rows, shares = self.words[number].shares(self._snapshot.keywords)
        allowed = self._allowed[number]
        if allowed is not None:
            rows, shares = rows[allowed[rows]], shares[allowed[rows]]
        order = np.argsort(-shares, kind="stable")
        return rows[order], WORD_WEIGHT * spread * shares[order] ** 2

    def scored(self, number: int, rows: np.ndarray) -> Found:
        """Any moments for one query, best first, without those that it may not find.

        Args:
            rows: int64 [R].
        """
        allowed = self._allowed[number]
        rows = rows if allowed is None else rows[allowed[rows]]
        return self._ranked(number, self._cosines(number, rows), rows)

    def _fused(self, number: int, scores: np.ndarray, rows: np.ndarray, num: int) -> Found:
        scores, rows = scores[rows >= 0].astype(np.float64), rows[rows >= 0]
        with_words = self._bonuses[number][0][:num]
        missing = with_words[~np.isin(with_words, rows)]
        if len(missing):
            scores = np.concatenate([scores, self._cosines(number, missing)])
            rows = np.concatenate([rows, missing])
        return self._ranked(number, scores, rows)

    def _cosines(self, number: int, rows: np.ndarray) -> np.ndarray:
        return (self._snapshot.vectors_of(rows) @ self._vectors[number]).astype(np.float64)

    def _ranked(self, number: int, scores: np.ndarray, rows: np.ndarray) -> Found:
        with_words, bonus_of = self._bonuses[number]
        bonuses = np.zeros(len(rows))
        if len(with_words):
            order = np.argsort(with_words)
            at = order[np.minimum(np.searchsorted(with_words, rows, sorter=order), len(order) - 1)]
            bonuses = np.where(with_words[at] == rows, bonus_of[at], 0.0)
        best = np.argsort(-(scores + bonuses), kind="stable")
        return Found(rows[best], (scores + bonuses)[best], bonuses[best])


def _allowed(query: ParsedQuery, snapshot: Snapshot, allowed: np.ndarray | None) -> np.ndarray | None:
    """What a query may find: `allowed` itself where it says no more."""
    if not (query.required or query.excluded):
        return allowed
    mask = np.ones(snapshot.num_segments, dtype=bool) if allowed is None else allowed.copy()
    for expression in query.required:
        has = np.zeros(len(mask), dtype=bool)
        has[snapshot.keywords.match(expression)] = True
        mask &= has
    for expression in query.excluded:
        mask[snapshot.keywords.match(expression)] = False
    return mask
