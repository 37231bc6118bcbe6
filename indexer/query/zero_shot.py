"""Moments of one snapshot against a list of labels: which ones, in which order, with which scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.query.labels import LabelScorer
from indexer.query.results import Classification, ClassifiedMoment
from indexer.store.snapshot import Snapshot

# From this share of all moments on, reading the files whole is cheaper than picking rows.
_MOST = 0.25


def moments_in_order(snapshot: Snapshot, allowed: np.ndarray | None) -> np.ndarray:
    """Rows int64 of the moments, by URI of the video and time.

    Args:
        allowed: bool [N]; only these, None is all.
    """
    uris, rows = snapshot.videos["uri"], snapshot.rows
    places = np.empty(len(uris), np.int64)
    places[pc.sort_indices(uris).to_numpy()] = np.arange(len(uris))
    order = np.lexsort((rows.start_s, places[rows.video_rows]))
    return order if allowed is None else order[allowed[order]]


def classify_moments(
    snapshot: Snapshot, labels: Sequence[str], scorer: LabelScorer | None, rows: np.ndarray, *, num_moments: int
) -> Classification:
    """The answer for some moments, in the order of `rows`.

    Args:
        labels: L labels, checked.
        scorer: made for them; may be None where there are no rows.
        rows: int64 [R].
        num_moments: how many there are of which `rows` are a part.
    """
    scores = np.empty((0, len(labels) + 1), np.float32) if scorer is None else _score_some(snapshot, scorer, rows)
    return as_classified(snapshot, labels, rows, scores, num_moments=num_moments)


def as_classified(
    snapshot: Snapshot, labels: Sequence[str], rows: np.ndarray, scores: np.ndarray, *, num_moments: int
) -> Classification:
    """Scores float32 [R, L + 1] of moments as they are returned, in the order of `rows`."""
    uris, keys = snapshot.videos["uri"], snapshot.rows
    moments = [
        ClassifiedMoment.of(
            labels,
            scores[number],
            video=uris[int(keys.video_rows[row])].as_py(),
            start_s=keys.start_s[row],
            end_s=keys.end_s[row],
            segment_id=keys.segment_ids[row],
        )
        for number, row in enumerate(rows)
    ]
    return Classification(moments, num_moments=num_moments, snapshot=snapshot)


def score_moments(snapshot: Snapshot, scorer: LabelScorer) -> np.ndarray:
    """Scores float32 [N, L + 1] of all moments; the last column is for none of the labels."""
    scores = np.empty((snapshot.num_segments, scorer.num_labels + 1), dtype=np.float32)
    for rows, table in snapshot.read_file_by_file(["embedding", "labels"]):
        scores[rows] = scorer.score(_vectors(table), table["labels"])
    return scores


def _score_some(snapshot: Snapshot, scorer: LabelScorer, rows: np.ndarray) -> np.ndarray:
    if len(rows) > _MOST * snapshot.num_segments:
        return score_moments(snapshot, scorer)[rows]
    table = snapshot.read(rows, ["embedding", "labels"])
    return scorer.score(_vectors(table), table["labels"])


def _vectors(table: pa.Table) -> np.ndarray:
    return table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
