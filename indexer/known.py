"""What the ledger knows of the videos, as a run compares files with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from indexer import schema
from indexer.errors import IndexNotFoundError
from indexer.ingest.on_disk import OnDisk
from indexer.ingest.plan import KnownVideo
from indexer.storage import Location
from indexer.store.index import IndexStore
from indexer.store.older_rows import settle_subtitles, with_subtitles

_REMEMBERED = ("uri", "size_bytes", "mtime_ns", "status", "fingerprint", "attempts", "error_stage", "subtitles")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a ledger knows.

    Attributes:
        videos: all its videos.
        num_moments: of all of them.
    """

    videos: OnDisk[KnownVideo]
    num_moments: int


def known_videos(store: IndexStore) -> Known:
    """Reads the ledger; one that an older version of this project made is brought up to date first.

    Raises:
        StorageError: it could not be written.
    """
    return _known(store, settle_subtitles)


def known_videos_unchanged(index_path: str | Location) -> OnDisk[KnownVideo]:
    """Likewise, of an index that need not exist, and without writing to it."""
    try:
        store = IndexStore.open(index_path)
    except IndexNotFoundError:
        return OnDisk(KnownVideo)
    return _known(store, with_subtitles).videos


def _known(store: IndexStore, brought_up_to_date: Callable[[IndexStore], pa.Table]) -> Known:
    known, is_older = _read(store.ledger.parts([*_REMEMBERED, "num_segments"]))
    if is_older and not store.ledger.is_settled():
        known, _ = _read([brought_up_to_date(store)])
    return known


def _read(parts: Iterable[pa.Table]) -> tuple[Known, bool]:
    """The videos, and whether any of them does not say which subtitle file there was."""
    videos, num_moments, is_older = OnDisk(KnownVideo), 0, False
    for part in parts:
        num_moments += pc.sum(part["num_segments"]).as_py() or 0
        is_indexed = pc.equal(part["status"], schema.INDEXED)
        is_older |= bool(pc.any(pc.and_(pc.is_null(part["subtitles"]), is_indexed)).as_py())
        columns = [part[name].to_pylist() for name in _REMEMBERED]
        videos.add_all(KnownVideo(**dict(zip(_REMEMBERED, row, strict=True))) for row in zip(*columns, strict=True))
    return Known(videos=videos, num_moments=num_moments), is_older
