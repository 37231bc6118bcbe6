"""Where a moment begins and ends: its neighbours in time are looked at even where the search has not fetched them.

Without this the bounds of a moment would depend on how many results were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.query.moments import TOUCHING_S, Hit, MergedHit, least_score
from indexer.store.segment_rows import SegmentRows

# Rows int64 [R] to hits, in any order; rows that the query may not find are left out.
Score = Callable[[np.ndarray], Iterable[Hit]]


@dataclass
class _Walk:
    """From the best segment of a moment into one direction of time."""

    place: int
    step: int
    here: Hit
    least: float


def missing_neighbours(moments: Sequence[MergedHit], hits: Iterable[Hit], rows: SegmentRows, score: Score) -> list[Hit]:
    """Hits that belong to moments by the rules of `merge_hits`, and are not among those fetched.

    Args:
        moments: merged hits.
        hits: the hits fetched.
        rows: of the snapshot.
        score: of any rows.
    """
    known: dict[int, Hit | None] = {hit.row: hit for hit in hits}
    fetched = set(known)
    found: dict[int, Hit] = {}
    walks = [
        _Walk(int(rows.places[moment.best.row]), step, moment.best, least_score(moment))
        for moment in moments
        for step in (-1, 1)
    ]
    window = 1
    while walks:
        wanted = {row for walk in walks for row in _ahead(walk, window, rows)} - known.keys()
        known |= dict.fromkeys(wanted)
        known |= {hit.row: hit for hit in score(np.array(sorted(wanted), dtype=np.int64))} if wanted else {}
        walks = [walk for walk in walks if _go(walk, window, rows, known, found)]
        window *= 2
    return [hit for row, hit in found.items() if row not in fetched]


def _ahead(walk: _Walk, window: int, rows: SegmentRows) -> Iterator[int]:
    """The next rows of the same video."""
    for place in range(walk.place + walk.step, walk.place + walk.step * (window + 1), walk.step):
        if not 0 <= place < len(rows) or rows.video_rows[rows.in_order[place]] != walk.here.video_row:
            return
        yield int(rows.in_order[place])


def _go(walk: _Walk, window: int, rows: SegmentRows, known: dict[int, Hit | None], found: dict[int, Hit]) -> bool:
    """Walks on while rows belong to the moment. Returns whether it may go on beyond the window."""
    num_steps = 0
    for row in list(_ahead(walk, window, rows)):
        hit = known[row]
        if hit is None or hit.score < walk.least or _gap_s(walk.here, hit) > TOUCHING_S:
            return False
        found[row] = hit
        walk.place, walk.here = walk.place + walk.step, hit
        num_steps += 1
    return num_steps == window


def _gap_s(a: Hit, b: Hit) -> float:
    return max(a.start_s, b.start_s) - min(a.end_s, b.end_s)
