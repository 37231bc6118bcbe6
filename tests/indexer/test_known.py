"""What a run remembers of the ledger."""

from __future__ import annotations

import pyarrow as pa
import pytest

from indexer import schema
from indexer.config import IndexConfig
from indexer.ingest.video_rows import empty_row, failure
from indexer.known import known_videos, known_videos_unchanged
from indexer.store import delta
from indexer.store.index import IndexStore


@pytest.fixture
def store(tmp_path) -> IndexStore:
    config = IndexConfig(model="tiny_test", model_fingerprint="f", embedding_dim=32, feature_shape=(1, 32))
    return IndexStore.open_or_create(tmp_path / "index", config)


def test_known_videos_say_of_each_video_what_its_row_says(store, monkeypatch):
    """Also where rows come in several files, each in several pieces."""
    monkeypatch.setattr(delta, "_ROWS_AT_ONCE", 3)
    rows = []
    for number in range(10):
        row = empty_row(f"/v/{number}.mp4", size_bytes=number, mtime_ns=10 * number, attempts=number + 1)
        failed = failure("read" if number % 2 else "decode", "Some", "reason")
        done = {"status": schema.INDEXED, "fingerprint": f"blake2b:{number}", "subtitles": "", "num_segments": number}
        rows.append(row | (failed if number % 3 == 0 else done))
    for part in (rows[6:], rows[:6]):
        store.ledger.commit(pa.Table.from_pylist(part, schema=schema.VIDEOS))

    known = known_videos(store)

    assert [video.uri for video in known.videos] == [row["uri"] for row in rows]
    assert known.num_moments == sum(number for number in range(10) if number % 3)
    for row in rows:
        for name in ("uri", "size_bytes", "mtime_ns", "status", "fingerprint", "attempts", "error_stage", "subtitles"):
            assert getattr(known.videos.get(row["uri"]), name) == row[name], name
    assert list(known_videos_unchanged(store.path)) == list(known.videos)


def test_known_videos_of_an_empty_ledger_or_none_are_none(store, tmp_path):
    assert (len(known_videos(store).videos), known_videos(store).num_moments) == (0, 0)
    assert list(known_videos_unchanged(tmp_path / "no index")) == []
