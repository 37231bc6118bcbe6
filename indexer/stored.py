"""What an index holds already, for workers that take it over instead of decoding."""

from __future__ import annotations

import functools

from indexer.store.index import IndexStore
from indexer.store.snapshot import Snapshot


class StoredMoments:
    """An index as a worker reads it: when it is asked for the first time, and only once."""

    def __init__(self, index_path: str) -> None:
        self._index_path = index_path

    @functools.cached_property
    def snapshot(self) -> Snapshot:
        """Raises IndexDirectoryError if it cannot be read."""
        return IndexStore.open(self._index_path).snapshot()
