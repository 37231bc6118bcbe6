"""When the files of vectors and keywords are written anew, and with what. They are made from the tables alone."""

from __future__ import annotations

import numpy as np

from indexer.storage import Location
from indexer.store.keyword_files import build_keyword_file, delete_other_keywords
from indexer.store.moment_vectors import Coverage
from indexer.store.snapshot import Snapshot
from indexer.store.tuning import text_queries
from indexer.store.vector_shards import MapShards, ShardedCoding
from indexer.store.vector_writer import build_vector_file
from indexer.store.vectors import FLAT, VectorManifest, delete_older, delete_others, kind_for

# A run leaves the vector file of a large collection as it is up to these shares of its moments: scanning so many costs
# a search about as much again, and a new file costs minutes. `compact` covers them all.
_MOST_UNCOVERED, _MOST_TOMBSTONES = 0.02, 0.1
# Two shards. Of fewer moments, starting tasks and reading vectors a second time would cost more than they save.
_SHARDED_FROM = 1_000_000


def build_vectors(
    snapshot: Snapshot,
    folder: Location,
    *,
    anew: bool = False,
    if_due: bool = False,
    queries: np.ndarray | None = None,
    map_shards: MapShards | None = None,
) -> VectorManifest | None:
    """Writes a vector file for a ledger version; None where it is covered already, or empty.

    Args:
        snapshot: of the version.
        folder: `vectors/` of the index.
        anew: write it even where one seems to cover the version, and delete all others.
        if_due: leave it where what is not covered costs a search little beside what a new file would cost.
        queries: float32 [Q, dim], what a search in a large collection is tuned with; None: everyday sentences.
        map_shards: runs tasks on other machines, which a collection of a million moments is worth; None has none.
    """
    coverage = snapshot.coverage
    is_covered = not coverage.uncovered and not coverage.tombstones and not coverage.damaged
    if snapshot.num_segments == 0 or (is_covered and not anew):
        return None
    rows, dim = snapshot.rows, snapshot.config.embedding_dim
    kind = kind_for(len(rows), dim)
    if if_due and kind == coverage.kind != FLAT and not coverage.damaged and not _is_stale(coverage):
        return None
    if queries is None and kind != FLAT:
        queries = text_queries(snapshot.config)
    manifest = build_vector_file(
        folder,
        parts=snapshot.embeddings_by_file(),
        dim=dim,
        segment_ids=rows.segment_ids,
        batch_ids=rows.batch_ids,
        ledger_version=snapshot.ledger.version,
        kind=kind,
        queries=queries,
        # Where most moments are new, lists of the old ones (of another model, perhaps) are no use.
        previous=None if anew or 2 * coverage.covered < len(rows) else snapshot.vector_file,
        code=ShardedCoding(folder, rows, dim, map_shards) if map_shards and len(rows) >= _SHARDED_FROM else None,
    )
    if anew or coverage.damaged:
        delete_others(folder, manifest)
    delete_older(folder)
    return manifest


def _is_stale(coverage: Coverage) -> bool:
    num_moments = coverage.covered + coverage.uncovered
    return coverage.uncovered > _MOST_UNCOVERED * num_moments or coverage.tombstones > _MOST_TOMBSTONES * num_moments


def build_keywords(snapshot: Snapshot, folder: Location) -> bool:
    """Writes a keyword file for a ledger version, and whether it did: not where one is whole, or empty."""
    coverage = snapshot.keyword_coverage
    is_whole = coverage.file and not (coverage.uncovered or coverage.tombstones or coverage.damaged)
    if snapshot.num_segments == 0 or is_whole:
        return False
    manifest = build_keyword_file(
        folder,
        texts=snapshot.all_texts(),
        segment_ids=snapshot.rows.segment_ids,
        batch_ids=snapshot.rows.batch_ids,
        ledger_version=snapshot.ledger.version,
    )
    delete_other_keywords(folder, manifest, num_others=0 if coverage.damaged else 1)
    return True
