"""Peak memory of committing and of building an index's files does not follow the number of its videos and moments."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from indexer import schema
from indexer.config import IndexConfig, SamplingConfig
from indexer.store.index import IndexStore
from indexer.store.segments_table import SegmentFile, write_segment_file

DIM, MOMENTS_PER_VIDEO, MOMENTS_PER_FILE = 256, 100, 5_000
FEW, MANY = 10_000, 40_000
# 130 to 600 were measured: ids and times of a moment take some 100, and some MB of buffers are filled by many only.
# Holding vectors and words until all were there took 6,600.
MOST_BYTES_A_MOMENT = 1_500
CENTRES = np.random.default_rng(1).standard_normal((100, DIM)).astype(np.float32)
CONFIG = IndexConfig(
    model="made-up", model_fingerprint="f" * 64, embedding_dim=DIM, feature_shape=(1, 1), sampling=SamplingConfig()
)
# What is loaded once is loaded for the first index.
MEASURE = """
import json, pathlib, sys
from indexer.store.index import IndexStore

found = {}
for index in sys.argv[1:]:
    store = IndexStore.open(index)
    manifest = store.build_vectors()
    assert store.build_keywords()
    store.build_keys()
    status = pathlib.Path("/proc/self/status").read_text()
    found[manifest.num_vectors] = 1024 * int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps(found))
"""

# 8 MB were measured; 20 with Delta's allocator as it comes, 25 with a checkpoint of the log every hundred commits, 46
# with both.
COMMITS, VIDEOS_A_COMMIT, MOST_GROWTH = (20, 120), 96, 15 << 20
COMMIT = """
import json, pathlib, pickle, sys
from indexer.store.index import IndexStore

store, found = IndexStore.open(sys.argv[1]), {}
with open(sys.argv[2], "rb") as file:
    for number in range(1, int(sys.argv[3]) + 1):
        store.commit(*pickle.load(file))
        status = pathlib.Path("/proc/self/status").read_text()
        found[number] = 1024 * int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps(found))
"""
on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read where Linux tells them")


@on_linux
def test_committing_takes_as_much_memory_for_six_times_the_commits(tmp_path):
    IndexStore.open_or_create(tmp_path / "index", CONFIG)
    with open(tmp_path / "commits", "wb") as file:
        for number in range(COMMITS[-1]):
            videos = np.arange(number * VIDEOS_A_COMMIT, (number + 1) * VIDEOS_A_COMMIT)
            statistics = json.dumps({"numRecords": 8, "minValues": {"segment_id": 0}, "maxValues": {"segment_id": 9}})
            files = [
                SegmentFile(name=f"part-{video:032}.parquet", size_bytes=1, num_rows=8, statistics=statistics)
                for video in videos[::8]
            ]
            pickle.dump((_videos(videos), files), file)
    command = [sys.executable, "-c", COMMIT, str(tmp_path / "index"), str(tmp_path / "commits"), str(COMMITS[-1])]
    peaks = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert peaks[str(COMMITS[-1])] - peaks[str(COMMITS[0])] < MOST_GROWTH


@on_linux
def test_building_takes_as_much_memory_for_four_times_the_moments(tmp_path):
    indexes = [_index(tmp_path / str(number), number) for number in (FEW, MANY)]
    command = [sys.executable, "-c", MEASURE, *indexes]
    peaks = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert peaks[str(MANY)] - peaks[str(FEW)] < MOST_BYTES_A_MOMENT * (MANY - FEW)


def _index(path: Path, num_moments: int) -> str:
    store = IndexStore.open_or_create(path, CONFIG)
    drawn = np.random.default_rng(0)
    for start in range(0, num_moments, MOMENTS_PER_FILE):
        moments = _moments(np.arange(start, start + MOMENTS_PER_FILE), drawn)
        store.segments.add([write_segment_file(store.segments.folder, moments)])
    store.ledger.commit(_videos(np.arange(num_moments // MOMENTS_PER_VIDEO)))
    return str(path)


def _moments(numbers: np.ndarray, drawn: np.random.Generator) -> pa.Table:
    vectors = CENTRES[numbers % len(CENTRES)] + 0.3 * drawn.standard_normal((len(numbers), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = {
        "segment_id": numbers,
        "video_id": numbers // MOMENTS_PER_VIDEO,
        "batch_id": ["b"] * len(numbers),
        "start_s": 10.0 * (numbers % MOMENTS_PER_VIDEO),
        "end_s": 10.0 * (numbers % MOMENTS_PER_VIDEO) + 10,
        "embedding": list(vectors),
        "transcript": [" ".join(f"word{n}" for n in drawn.integers(0, 2_000, 40)) for _ in numbers],
        "num_frames": np.ones(len(numbers), np.int32),
    }
    return _table(values, schema.SEGMENTS, len(numbers))


def _videos(numbers: np.ndarray) -> pa.Table:
    values = {
        "video_id": numbers,
        "uri": [f"/v/{number}.mp4" for number in numbers],
        "status": [schema.INDEXED] * len(numbers),
        "batch_id": ["b"] * len(numbers),
        "num_segments": np.full(len(numbers), MOMENTS_PER_VIDEO),
        "partial": [False] * len(numbers),
        **dict.fromkeys(
            ("size_bytes", "mtime_ns", "num_frames", "attempts", "indexed_at"), np.zeros(len(numbers), int)
        ),
    }
    return _table(values, schema.VIDEOS, len(numbers))


def _table(values: dict[str, object], kind: pa.Schema, count: int) -> pa.Table:
    arrays = [
        pa.array(values[field.name]).cast(field.type) if field.name in values else pa.nulls(count, field.type)
        for field in kind
    ]
    return pa.table(arrays, schema=kind)
