"""Takes damaged segment files out of an index, and the videos whose moments they held, so that these are indexed again.

What an unreadable file held is known from the ledger, which says how many moments each video has. It is also the first
to be changed: a process that is killed between the two commits leaves an index that names no moment it does not
have, and the next `verify --repair` does the rest. The files themselves stay where they are until `compact` deletes
them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from indexer import schema
from indexer.errors import IndexFormatError
from indexer.storage import location
from indexer.store.delta import read_parquet_files
from indexer.store.index import IndexStore
from indexer.store.segment_keys import joined, read_keys
from indexer.store.segment_rows import SegmentRows
from indexer.store.sweep import maintenance_lock


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What was taken out; the contract of `verify --repair --json`.

    Attributes:
        files: segment files that are missing or damaged, paths or URIs.
        videos: URIs of those whose moments were not all there, in order.
    """

    files: list[str]
    videos: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def drop_damaged(store: IndexStore) -> Dropped | None:
    """Takes out the segment files that are missing or damaged, and all of the videos whose moments are not all there.

    Returns:
        What was taken out; None where nothing is damaged, and nothing is written then.

    Raises:
        IndexFormatError: the ledger or a log is damaged.
        IndexDirectoryError: the index is being compacted or refreshed by another process.
        StorageError: the storage cannot be reached, or refused.
    """
    files, videos = _find(store)
    if not files and not videos.num_rows:
        return None
    with maintenance_lock(store.path):
        files, videos = _find(store)  # again: a compaction may have ended meanwhile
        store.ledger.remove(set(videos["video_id"].to_pylist()))
        store.segments.drop(files)
    return Dropped(files=files, videos=sorted(set(videos["uri"].to_pylist())))


def _find(store: IndexStore) -> tuple[list[str], pa.Table]:
    """Segment files that are damaged, and the videos that have not as many moments in the others as the ledger says.

    The files are listed after the ledger is read: those of all its moments are among them then.
    """
    videos = store.ledger.snapshot(columns=["video_id", "uri", "status", "batch_id", "num_segments"]).indexed
    sizes = store.segments.sizes()
    damaged = {file for file, size_bytes in sizes.items() if _is_damaged(file, size_bytes)}
    rows = SegmentRows(joined(read_keys(sorted(sizes.keys() - damaged))), videos)
    found = np.bincount(rows.video_rows, minlength=videos.num_rows)
    return sorted(damaged), videos.filter(pa.array(found != videos["num_segments"].to_numpy()))


def _is_damaged(file: str, size_bytes: int) -> bool:
    """Whether what was written is lost; a file that only cannot be opened now, by this user, is not."""
    try:
        read_parquet_files([file], schema.SEGMENTS)
        return location(file).stat().st_size != size_bytes
    except IndexFormatError as error:
        cause = error.__cause__
        return isinstance(cause, FileNotFoundError) or getattr(cause, "errno", None) is None
