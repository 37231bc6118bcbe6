"""From queries as vectors and words to moments: search, merge, describe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from indexer.query.calibration import Calibration
from indexer.query.hybrid import Found, HybridSearch
from indexer.query.moments import Hit, MergedHit, merge_hits
from indexer.query.results import Label, Moment, SearchResult
from indexer.query.syntax import ParsedQuery
from indexer.store.keywords import any_of, moment_texts, snippets
from indexer.store.snapshot import Snapshot

# How many segments a moment is allowed to swallow before more are fetched.
_FETCH_FACTOR = 3


class Searcher:
    """Answers queries to one snapshot.

    Args:
        snapshot: what is searched; not empty.
        calibration: that of the snapshot.
        allowed: bool [N]; only these moments are looked at, None allows all.
    """

    def __init__(self, snapshot: Snapshot, calibration: Calibration, allowed: np.ndarray | None = None) -> None:
        self._snapshot = snapshot
        self._calibration = calibration
        self._allowed = allowed

    def answer(
        self, asked: Sequence[str], queries: Sequence[ParsedQuery], vectors: np.ndarray, k: int
    ) -> list[SearchResult]:
        """One result a query, in their order.

        Args:
            asked: the Q queries as they were asked.
            queries: taken apart.
            vectors: float32 [Q, dim], length 1.
            k: moments wanted.
        """
        hybrid = HybridSearch(self._snapshot, queries, vectors, self._calibration.spread, self._allowed)
        found = self._find_moments(hybrid, len(queries), k)
        details = self._details([moment.best.row for moments in found for moment in moments])
        results = [self._moments(hybrid, i, queries[i], moments, details) for i, moments in enumerate(found)]
        return [
            SearchResult(query=text, matched=self._is_match(query, moments), results=moments)
            for text, query, moments in zip(asked, queries, results, strict=True)
        ]

    def _is_match(self, query: ParsedQuery, moments: Sequence[Moment]) -> bool:
        has_required = bool(query.required and moments)
        return has_required or any(self._calibration.is_match(moment.confidence) for moment in moments)

    def _find_moments(self, hybrid: HybridSearch, num_queries: int, k: int) -> list[list[MergedHit]]:
        """Fetches more segments until every query has k moments, or all that it may find have been looked at."""
        num_fetched = k * _FETCH_FACTOR
        while True:
            found = [merge_hits(self._hits(one))[:k] for one in hybrid.best(num_fetched)]
            if all(len(found[i]) == k or num_fetched >= hybrid.num_allowed(i) for i in range(num_queries)):
                return found
            num_fetched *= 4

    def _hits(self, found: Found) -> list[Hit]:
        stored = self._snapshot.rows
        return [
            Hit(
                row=int(row),
                video_row=int(stored.video_rows[row]),
                start_s=float(stored.start_s[row]),
                end_s=float(stored.end_s[row]),
                score=float(score),
                bonus=float(bonus),
            )
            for row, score, bonus in zip(*found, strict=True)
        ]

    def _details(self, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What is shown of each segment; `words` is its text for snippets."""
        unique = sorted(set(rows))
        table = self._snapshot.read(unique, ["segment_id", "labels", "transcript"])
        videos = self._snapshot.videos.select(["uri", "title"]).take(self._snapshot.rows.video_rows[unique])
        uris = videos["uri"].to_pylist()
        words = moment_texts(table, uris, videos["title"].to_pylist())
        columns = zip(unique, table.to_pylist(), uris, words, strict=True)
        return {row: values | {"uri": uri, "words": text} for row, values, uri, text in columns}

    def _moments(
        self,
        hybrid: HybridSearch,
        number: int,
        query: ParsedQuery,
        merged: Sequence[MergedHit],
        details: dict[int, dict[str, Any]],
    ) -> list[Moment]:
        words, rows = hybrid.words[number], [one.best.row for one in merged]
        has_words = any(one.best.bonus for one in merged)
        said = words.said(self._snapshot.keywords, rows) if has_words else np.zeros(len(rows))
        expressions = [*query.required, *([words.expression] if has_words and words.expression else [])]
        marked = snippets([details[row]["words"] for row in rows], any_of(expressions)) if expressions else None
        return [
            self._moment(i, one, details[one.best.row], float(said[i - 1]), marked[i - 1] if marked else None)
            for i, one in enumerate(merged, 1)
        ]

    def _moment(self, rank: int, merged: MergedHit, detail: dict[str, Any], said: float, snippet: str | None) -> Moment:
        cosine = merged.best.score - merged.best.bonus
        return Moment(
            rank=rank,
            video=detail["uri"],
            start_s=merged.start_s,
            end_s=merged.end_s,
            score=merged.best.score,
            confidence=max(self._calibration.confidence(cosine), said),
            labels=[Label(**label) for label in detail["labels"] or []],
            transcript=detail["transcript"],
            segment_id=detail["segment_id"],
            snippet=snippet,
        )
