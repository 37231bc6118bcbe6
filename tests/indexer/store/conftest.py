"""A small index made by hand: videos a, b, c with two moments each."""

import datetime
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from indexer import schema
from indexer.config import IndexConfig, SamplingConfig
from indexer.store.index import IndexStore
from indexer.store.segments_table import write_segment_file

DIM = 16
CONFIG = IndexConfig(
    model="tiny_test", model_fingerprint="f" * 64, embedding_dim=DIM, feature_shape=(1, 4), sampling=SamplingConfig()
)


def video_row(uri: str, **values: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(schema.VIDEOS.names)
    row |= {
        "video_id": schema.video_id(uri),
        "uri": uri,
        "status": schema.INDEXED,
        "batch_id": "b0",
        "size_bytes": 10,
        "mtime_ns": 20,
        "num_segments": 2,
        "num_frames": 6,
        "duration_s": 15.0,
        "partial": False,
        "attempts": 1,
        "indexed_at": datetime.datetime.now(datetime.UTC),
    }
    return row | values


def segment_row(uri: str, start_s: float, batch_id: str, vector: np.ndarray) -> dict[str, Any]:
    return {
        "segment_id": schema.segment_id(uri, start_s),
        "video_id": schema.video_id(uri),
        "batch_id": batch_id,
        "start_s": start_s,
        "end_s": start_s + 10,
        "embedding": vector,
        "labels": [{"label": f"label of {uri}", "score": 0.5}],
        "transcript": None,
        "thumbnail": f"jpeg {uri} {start_s}".encode(),
        "num_frames": 3,
        "frame_times_s": [start_s, start_s + 1, start_s + 2],
        "frame_features": np.zeros((3, 1, 4), "<f2").tobytes(),
    }


class Maker:
    """Adds videos to a store, as a run would."""

    def __init__(self, store: IndexStore) -> None:
        self.store = store
        self.random = np.random.default_rng(0)
        self.vectors: dict[tuple[str, float], np.ndarray] = {}

    def unit(self) -> np.ndarray:
        vector = self.random.standard_normal(DIM).astype(np.float32)
        return vector / np.linalg.norm(vector)

    def add(self, *uris: str, batch_id: str = "b0") -> int:
        segments = []
        for uri in uris:
            for start_s in (0.0, 10.0):
                self.vectors[uri, start_s] = self.unit()
                segments.append(segment_row(uri, start_s, batch_id, self.vectors[uri, start_s]))
        file = write_segment_file(self.store.segments.folder, pa.Table.from_pylist(segments, schema=schema.SEGMENTS))
        rows = [video_row(uri, batch_id=batch_id) for uri in uris]
        return self.store.commit(pa.Table.from_pylist(rows, schema=schema.VIDEOS), [file])

    def remove(self, uri: str) -> int:
        return self.store.ledger.remove([schema.video_id(uri)])

    def copied_to(self, folder: Path) -> "Maker":
        """A copy of the index, that goes on with the same random numbers."""
        copy = Maker(IndexStore.open(shutil.copytree(str(self.store.path), folder)))
        copy.random, copy.vectors = deepcopy(self.random), dict(self.vectors)
        return copy


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Maker]:
    def make(name: str = "index") -> Maker:
        return Maker(IndexStore.open_or_create(tmp_path / name, CONFIG))

    return make


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Maker]:
    """`make_store` for fixtures that outlive one test."""
    return lambda: Maker(IndexStore.open_or_create(tmp_path_factory.mktemp("made") / "index", CONFIG))


@pytest.fixture(scope="session")
def _maker_once(make_once: Callable[[], Maker]) -> Maker:
    made = make_once()
    made.add("/v/a.mp4", "/v/b.mp4")
    made.add("/v/c.mp4", batch_id="b1")
    return made


@pytest.fixture
def maker(_maker_once: Maker, tmp_path: Path) -> Maker:
    return _maker_once.copied_to(tmp_path / "index")


@pytest.fixture(scope="session")
def row_of() -> Callable[..., dict[str, Any]]:
    return video_row


@pytest.fixture(scope="session")
def config() -> IndexConfig:
    return CONFIG
