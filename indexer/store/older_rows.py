"""Rows of a ledger from before it said which subtitle file the transcripts of a video are from.

There is no telling which file it was, in which state. So that nothing is encoded again for that, the first run reads
which of these videos have a transcript at all: their rows get `UNKNOWN`, which differs from whatever a listing finds,
and a worker compares the words. In all others, null comes to mean what "" does. The ledger keeps that this was done.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.store.index import IndexStore
from indexer.store.ledger import LedgerSnapshot

UNKNOWN = "?"


def with_subtitles(store: IndexStore) -> pa.Table:
    """All videos of the ledger, where need be as `settle_subtitles` would leave them."""
    ledger = store.ledger.snapshot()
    unsettled = _transcribed(store, ledger)
    return ledger.videos if unsettled is None else _told(ledger, unsettled)


def settle_subtitles(store: IndexStore) -> pa.Table:
    """Brings the ledger up to date, once in its life, and returns all its videos.

    Raises:
        StorageError: the ledger could not be written.
    """
    ledger = store.ledger.snapshot()
    unsettled = _transcribed(store, ledger)
    if unsettled is None:
        return ledger.videos
    videos = _told(ledger, unsettled)
    store.ledger.commit(videos.filter(unsettled))
    store.ledger.settle()
    return videos


def _told(ledger: LedgerSnapshot, unsettled: pa.Array) -> pa.Table:
    told = pc.if_else(unsettled, UNKNOWN, ledger.videos["subtitles"])
    return ledger.videos.set_column(ledger.videos.schema.get_field_index("subtitles"), "subtitles", told)


def _transcribed(store: IndexStore, ledger: LedgerSnapshot) -> pa.Array | None:
    """Which videos have a transcript and do not say from which file, bool [V]; None where that needs no look."""
    is_null = pc.and_(pc.is_null(ledger.videos["subtitles"]), pc.equal(ledger.videos["status"], "indexed"))
    if ledger.is_settled or not pc.any(is_null).as_py():
        return None
    snapshot = store.snapshot(ledger.version)
    has_transcript = np.zeros(snapshot.videos.num_rows, dtype=bool)
    for rows, moments in snapshot.read_file_by_file(["transcript"]):
        spoken = moments["transcript"].is_valid().to_numpy()
        has_transcript[snapshot.rows.video_rows[rows[spoken]]] = True
    spoken_ids = snapshot.videos["video_id"].filter(pa.array(has_transcript))
    return pc.and_(is_null, pc.is_in(ledger.videos["video_id"], value_set=spoken_ids.combine_chunks()))
