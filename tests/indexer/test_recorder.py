"""What a run remembers of the ledger."""

from __future__ import annotations

import time

import pyarrow as pa

from indexer import recorder, schema
from indexer.config import IndexConfig, RunConfig
from indexer.ingest.video_rows import empty_row, failure
from indexer.recorder import Recorder, known_videos
from indexer.store.index import IndexStore
from indexer.work import BatchResult


def test_known_videos_say_of_each_video_what_its_row_says(monkeypatch):
    """Also where rows come in several pieces, and a column that repeats itself has gaps."""
    monkeypatch.setattr(recorder, "_ROWS_AT_A_TIME", 3)
    rows = []
    for number in range(10):
        row = empty_row(f"/v/{number}.mp4", size_bytes=number, mtime_ns=10 * number, attempts=number + 1)
        failed = failure("read" if number % 2 else "decode", "Some", "reason")
        done = {"status": schema.INDEXED, "fingerprint": f"blake2b:{number}"}
        rows.append(row | (failed if number % 3 == 0 else done))
    tables = [pa.Table.from_pylist(part, schema=schema.VIDEOS) for part in (rows[:4], rows[4:])]

    known = known_videos(pa.concat_tables(tables))

    assert list(known) == [row["uri"] for row in rows]
    for row in rows:
        for name in ("uri", "size_bytes", "mtime_ns", "status", "fingerprint", "attempts", "error_stage"):
            assert getattr(known[row["uri"]], name) == row[name], name


def test_known_videos_of_an_empty_ledger_are_none():
    assert known_videos(schema.VIDEOS.empty_table()) == {}


def test_no_more_than_one_commit_interval_of_work_is_ever_uncommitted(tmp_path):
    """A kill loses what came since the last commit: at every moment, the ledger holds all that came before."""
    interval_s, tick_s = 0.3, 1.0
    arrived_s: dict[str, float] = {}
    worst_s = []

    def results():
        for number in range(12):
            time.sleep(0.1 if number != 6 else 2 * tick_s)
            row = empty_row(f"/v/{number}.mp4") | failure("open", "Some", "reason")
            videos = pa.Table.from_pylist([row], schema=schema.VIDEOS)
            arrived_s[row["uri"]] = time.monotonic()
            yield BatchResult(videos=videos)

    def look(progress):
        committed = set(store.ledger.snapshot().videos["uri"].to_pylist())
        lost = [at_s for uri, at_s in dict(arrived_s).items() if uri not in committed]
        worst_s.append(time.monotonic() - min(lost, default=time.monotonic()))

    config = IndexConfig(model="tiny_test", model_fingerprint="f", embedding_dim=32, feature_shape=(1, 32))
    store = IndexStore.open_or_create(tmp_path / "index", config)
    Recorder(store, RunConfig(commit_interval_s=interval_s), time.monotonic(), look).consume(results())

    assert store.ledger.snapshot().failed.num_rows == 12
    assert len(worst_s) > 10
    assert 0 < max(worst_s) < interval_s + tick_s + 1.0  # and a second for a busy machine
