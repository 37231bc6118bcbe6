"""Plain Parquet for everybody else: one row a moment, joined with the facts of its video."""

from __future__ import annotations

import pyarrow.parquet as pq

from indexer.storage import Location
from indexer.store.index import IndexStore
from indexer.store.joined import SCHEMA as SCHEMA
from indexer.store.joined import joined_moments
from indexer.store.outfile import whole_file


def export_moments(store: IndexStore, out: str | Location) -> int:
    """Writes all visible moments as one Parquet file, whole or not at all.

    Args:
        store: the index.
        out: the file to write; one that exists is replaced when the new one is complete.

    Returns:
        Number of moments written.

    Raises:
        UsageError: `out` is a folder.
        StorageError: it could not be written.
    """
    with whole_file(out, "the export", "moments.parquet") as path:
        snapshot = store.snapshot()
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for moments in joined_moments(snapshot):
                writer.write_table(moments)
    return snapshot.num_segments
