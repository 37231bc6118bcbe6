"""When results are committed."""

from __future__ import annotations

import time

import pyarrow as pa

from indexer import schema
from indexer.config import IndexConfig, RunConfig
from indexer.ingest.video_rows import empty_row, failure
from indexer.recorder import Recorder
from indexer.store.index import IndexStore
from indexer.work import BatchResult


def test_many_videos_do_not_wait_for_the_interval(tmp_path):
    def results():
        for number in range(25):
            rows = [empty_row(f"/v/{number}-{i}.mp4") | failure("open", "Some", "reason") for i in range(100)]
            yield BatchResult(videos=pa.Table.from_pylist(rows, schema=schema.VIDEOS))

    config = IndexConfig(model="tiny_test", model_fingerprint="f", embedding_dim=32, feature_shape=(1, 32))
    store = IndexStore.open_or_create(tmp_path / "index", config)
    version = store.ledger.version()
    recorder = Recorder(store, RunConfig(commit_interval_s=1000), time.monotonic(), lambda progress: None)
    recorder.consume(results())
    assert store.ledger.version() == version + 3
    assert (store.ledger.snapshot().failed.num_rows, recorder.summary.failed) == (2500, 2500)


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
