"""From scored segments to moments: overlapping and equally good neighbouring hits of one video become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A neighbour that only touches the best hit joins it if it loses at most this share of its score; else it is another
# scene.
_NEIGHBOUR_MARGIN = 0.1
# Segments that lie closer than this touch.
TOUCHING_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A segment found by a query: its row in the snapshot, its video's row, its span in seconds, its score.

    `bonus` is the part of the score that is for words.
    """

    row: int
    video_row: int
    start_s: float
    end_s: float
    score: float
    bonus: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MergedHit:
    """Hits of one video that are one moment: the span of all, and the best of them."""

    best: Hit
    start_s: float
    end_s: float


def merge_hits(hits: Sequence[Hit]) -> list[MergedHit]:
    """Merges hits of the same video that overlap, or that touch and score nearly alike.

    Args:
        hits: best score first.

    Returns:
        Moments, best score first; those of one video do not overlap.
    """
    by_video: dict[int, list[MergedHit]] = {}
    for hit in hits:
        moments = by_video.setdefault(hit.video_row, [])
        joined = [moment for moment in moments if _belongs(hit, moment)]
        merged = MergedHit(
            best=joined[0].best if joined else hit,
            start_s=min([hit.start_s, *(moment.start_s for moment in joined)]),
            end_s=max([hit.end_s, *(moment.end_s for moment in joined)]),
        )
        others = [moment for moment in moments if moment not in joined]
        by_video[hit.video_row] = sorted([merged, *others], key=lambda moment: -moment.best.score)
    return sorted((moment for moments in by_video.values() for moment in moments), key=lambda m: -m.best.score)


def least_score(moment: MergedHit) -> float:
    """What a neighbour that only touches must score to belong to a moment."""
    return moment.best.score - _NEIGHBOUR_MARGIN * abs(moment.best.score)


def _belongs(hit: Hit, moment: MergedHit) -> bool:
    gap_s = max(hit.start_s, moment.start_s) - min(hit.end_s, moment.end_s)
    overlaps = gap_s < -TOUCHING_S
    touches = gap_s <= TOUCHING_S
    return overlaps or (touches and hit.score >= least_score(moment))
