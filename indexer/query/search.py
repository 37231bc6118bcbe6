"""From queries as vectors and words to moments: search, merge, describe."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from indexer.query.calibration import Calibration
from indexer.query.diversity import MAX_ALIKE_NAMED, Choice, Diversity, Shown, choose
from indexer.query.hybrid import Found, HybridSearch
from indexer.query.moments import Hit, MergedHit, merge_hits
from indexer.query.neighbours import missing_neighbours
from indexer.query.results import AlikeMoment, Label, Moment, SearchResult
from indexer.query.syntax import ParsedQuery
from indexer.store.keywords import any_of, snippets
from indexer.store.moment_texts import moment_texts
from indexer.store.snapshot import Snapshot

# How many segments a moment is allowed to swallow before more are fetched.
_FETCH_FACTOR = 3
# Whether there is an answer is read off so many moments, even where fewer are wanted.
_LEAST_FOUND = 3
# How often more is fetched before a video may have more than the usual number of moments.
_ROUNDS_FOR_OTHERS = 2


class Searcher:
    """Answers queries to one snapshot.

    Args:
        snapshot: what is searched; not empty.
        calibration: that of the snapshot.
        allowed: bool [N]; only these moments are looked at, None allows all.
        diversity: how varied the moments have to be.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        calibration: Calibration,
        allowed: np.ndarray | None = None,
        diversity: Diversity | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._calibration = calibration
        self._allowed = allowed
        self._diversity = diversity or Diversity()

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
        found = self._find_moments(hybrid, len(queries), max(k, _LEAST_FOUND))
        confidences = [self._confidences(hybrid, i, queries[i], vectors[i], shown) for i, shown in enumerate(found)]
        matched = [self._is_match(*each) for each in zip(queries, confidences, strict=True)]
        found = [shown[:k] for shown in found]
        details = self._details([one.moment.best.row for shown in found for one in shown])
        results = [
            self._moments(hybrid, i, queries[i], shown, confidences[i], details) for i, shown in enumerate(found)
        ]
        return [
            SearchResult(query=text, matched=is_match, results=moments, snapshot=self._snapshot)
            for text, is_match, moments in zip(asked, matched, results, strict=True)
        ]

    def _is_match(self, query: ParsedQuery, confidences: np.ndarray) -> bool:
        has_required = bool(query.required and len(confidences))
        return has_required or any(self._calibration.is_match(float(confidence)) for confidence in confidences)

    def _find_moments(self, hybrid: HybridSearch, num_queries: int, k: int) -> list[list[Shown]]:
        """Fetches more segments until every query has k moments, or all that it may find have been looked at."""
        found: list[list[Shown]] = [[] for _ in range(num_queries)]
        wanting, num_fetched = list(range(num_queries)), k * _FETCH_FACTOR
        for rounds in itertools.count(1):
            for i, one in zip(wanting, hybrid.best(num_fetched, wanting), strict=True):
                found[i], num_within = self._chosen(hybrid, i, self._hits(one), k)
                is_full = num_within == k or (len(found[i]) == k and rounds >= _ROUNDS_FOR_OTHERS)
                if is_full or num_fetched >= hybrid.num_allowed(i):
                    wanting = [number for number in wanting if number != i]
            if not wanting:
                return found
            num_fetched *= 4
        raise AssertionError("unreachable")

    def _chosen(self, hybrid: HybridSearch, number: int, hits: list[Hit], k: int) -> Choice:
        merged = merge_hits(hits)
        more = missing_neighbours(
            merged, hits, self._snapshot.rows, lambda rows: self._hits(hybrid.scored(number, rows))
        )
        if more:
            merged = merge_hits(sorted([*hits, *more], key=lambda hit: -hit.score))
        vectors = self._snapshot.vectors_of(np.array([one.best.row for one in merged], dtype=np.int64))
        return choose(merged, vectors, k, self._diversity)

    def _confidences(
        self, hybrid: HybridSearch, number: int, query: ParsedQuery, vector: np.ndarray, shown: Sequence[Shown]
    ) -> np.ndarray:
        """How sure to be of each moment: as the vectors say, or by how much of the query was said."""
        rows = np.array([one.moment.best.row for one in shown], dtype=np.int64)
        moments = self._snapshot.vectors_of(rows)
        seen = self._calibration.confidences(moments @ vector, moments, query.text)
        if not any(one.moment.best.bonus for one in shown):
            return seen
        return np.maximum(seen, hybrid.words[number].said(self._snapshot.keywords, rows.tolist()))

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
        table = self._snapshot.read(unique, ["labels", "transcript"], keep=True)
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
        shown: Sequence[Shown],
        confidences: np.ndarray,
        details: dict[int, dict[str, Any]],
    ) -> list[Moment]:
        words, rows = hybrid.words[number], [one.moment.best.row for one in shown]
        has_words = any(one.moment.best.bonus for one in shown)
        expressions = [*query.required, *([words.expression] if has_words and words.expression else [])]
        marked = snippets([details[row]["words"] for row in rows], any_of(expressions)) if expressions else None
        return [
            self._moment(i, one, details[row], float(confidences[i - 1]), marked[i - 1] if marked else None)
            for i, (one, row) in enumerate(zip(shown, rows, strict=True), 1)
        ]

    def _moment(self, rank: int, shown: Shown, detail: dict[str, Any], sure: float, snippet: str | None) -> Moment:
        return Moment(
            rank=rank,
            video=detail["uri"],
            start_s=shown.moment.start_s,
            end_s=shown.moment.end_s,
            score=shown.moment.best.score,
            confidence=sure,
            labels=[Label(**label) for label in detail["labels"] or []],
            transcript=detail["transcript"],
            segment_id=int(self._snapshot.rows.segment_ids[shown.moment.best.row]),
            snippet=snippet,
            num_alike=len(shown.alike),
            alike=[self._alike(moment) for moment in shown.alike[:MAX_ALIKE_NAMED]],
        )

    def _alike(self, moment: MergedHit) -> AlikeMoment:
        return AlikeMoment(
            video=self._snapshot.videos["uri"][moment.best.video_row].as_py(),
            start_s=moment.start_s,
            end_s=moment.end_s,
            segment_id=int(self._snapshot.rows.segment_ids[moment.best.row]),
        )
