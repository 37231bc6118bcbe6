"""Frame features of files that were looked at before, by the bytes of the file: Parquet files that are only added.

Shapes: T frames, K tokens per frame, D numbers per token.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.errors import StorageError

_ITEMS_PER_FILE = 512
_STORED = np.dtype("<f2")
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("frame_times_s", pa.list_(pa.float32()), nullable=False),
        pa.field("features", pa.binary(), nullable=False),
    ]
)


class Features(NamedTuple):
    """Of one file: `values` float16 [T, K, D], and the presentation times float32 [T] of its frames, seconds."""

    values: np.ndarray
    times_s: np.ndarray


class FeatureCache:
    """A folder of them, for one model and one way to choose frames.

    Args:
        folder: is made if it is not there.
        feature_shape: (K, D).
    """

    def __init__(self, folder: Path, feature_shape: tuple[int, int]) -> None:
        self._folder, self._feature_shape = folder, feature_shape
        self._waiting: dict[str, Features] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"the feature cache {str(folder)!r} cannot be made: {error.strerror or error}"
            ) from error
        self._lengths: dict[str, int] = {}
        for path in self._files():
            for row in pq.read_table(path, columns=["key", "frame_times_s"]).to_pylist():
                self._lengths[row["key"]] = len(row["frame_times_s"])

    def __contains__(self, key: str) -> bool:
        return key in self._lengths

    def num_frames(self, key: str) -> int:
        return self._lengths[key]

    def add(self, key: str, features: Features) -> None:
        """Keeps features; they are written some hundred items at a time, and by `flush`."""
        self._waiting[key] = features
        self._lengths[key] = len(features.times_s)
        if len(self._waiting) >= _ITEMS_PER_FILE:
            self.flush()

    def flush(self) -> None:
        """Writes what waits.

        Raises:
            StorageError: it cannot be written.
        """
        if not self._waiting:
            return
        columns = {
            "key": list(self._waiting),
            "frame_times_s": [features.times_s.tolist() for features in self._waiting.values()],
            "features": [features.values.astype(_STORED).tobytes() for features in self._waiting.values()],
        }
        path = self._folder / f"{uuid.uuid4().hex}.parquet"
        temporary = path.with_suffix(".tmp")
        try:
            pq.write_table(pa.table(columns, schema=_SCHEMA), temporary)
            os.replace(temporary, path)
        except OSError as error:
            raise StorageError(f"the feature cache cannot be written to {str(self._folder)!r}: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)
        self._waiting.clear()

    def read(self, keys: Iterable[str], visit: Callable[[str, Features], None]) -> None:
        """Calls `visit` with each of the keys once, in any order; one file is in memory at a time."""
        self.flush()
        wanted = set(keys)
        for path in self._files():
            for batch in pq.ParquetFile(path).iter_batches(batch_size=_ITEMS_PER_FILE):
                for row in batch.to_pylist():
                    if row["key"] in wanted:
                        wanted.remove(row["key"])
                        values = np.frombuffer(row["features"], _STORED).reshape(-1, *self._feature_shape)
                        visit(row["key"], Features(values, np.array(row["frame_times_s"], np.float32)))

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.parquet"))
