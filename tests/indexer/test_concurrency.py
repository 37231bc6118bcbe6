"""Several processes at one index: indexers that share videos, readers, compactions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer import VideoIndex
from indexer.errors import IndexDirectoryError, IndexNotFoundError
from indexer.query.diversity import Diversity
from indexer.store.compact import compact
from indexer.store.index import IndexStore
from indexer.store.verify import verify

ROOT = Path(__file__).parents[2]

# One video a batch, and a commit for each: the more commits, the more races.
INDEXER = """
import sys
import indexer.batches
from indexer.config import RunConfig, SamplingConfig
from indexer.pipeline import index_videos
from model.weights import load_model

indexer.batches._MAX_VIDEOS = indexer.batches._MAX_SMALL_VIDEOS = 1
load_model("tiny_test")
print("ready", flush=True)
sys.stdin.readline()
index, *sources = sys.argv[1:]
run = RunConfig(commit_interval_s=0.001)
index_videos(sources, index, model="tiny_test", sampling=SamplingConfig(), run=run, in_process=True)
"""
SLEEPING_COMPACTION = """
import sys, time
import indexer.store.compact as compaction
from indexer.store.index import IndexStore

def wait(*args):
    print("ready", flush=True)
    time.sleep(100)

compaction._merge_all = wait
compaction.compact(IndexStore.open(sys.argv[1]))
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a script in a process of its own and returns when it says "ready"; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(script: str, *arguments: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def ready(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def let_go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def assert_done(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def write_folders(synthetic: Any, num_each: int) -> list[Path]:
    """Three folders of short videos; two moments each."""
    folders = [synthetic.folder / "sources" / name for name in "abc"]
    for folder in folders:
        folder.mkdir(parents=True)
        for i in range(num_each):
            synthetic.write(f"sources/{folder.name}/{i}.mp4", range(0, 11_000 + 100 * i, 500))
    return folders


def assert_same_rows(ours: list[dict[str, Any]], alone: list[dict[str, Any]]) -> None:
    assert len({row["segment_id"] for row in ours}) == len(ours), "no moment is there twice"
    assert ours == alone


def check_snapshot(index: VideoIndex) -> int:
    """That one version of the index is consistent, and that a search says nothing else. Returns its videos."""
    videos, rows = index.snapshot.videos, index.snapshot.rows
    counts = np.bincount(rows.video_rows, minlength=videos.num_rows)
    np.testing.assert_array_equal(counts, videos["num_segments"].to_numpy())
    assert len(np.unique(rows.segment_ids)) == len(rows)
    moments = index.search("black and white blocks", k=1000, diversity=Diversity(collapse=False)).results
    assert {moment.video for moment in moments} == set(index.videos)
    for moment in moments[:3]:
        assert (index.thumbnail(moment.segment_id) or b"").startswith(b"\xff\xd8")
    return int(videos.num_rows)


def read_until(done: Callable[[], bool], path: Path) -> list[int]:
    """Reads the newest version again and again. Returns how many videos each version had."""
    index, seen = None, []
    while True:
        was_done = done()
        try:
            if index is None:
                index = VideoIndex.open(path)
            index.reload()
        except IndexNotFoundError:
            continue
        seen.append(check_snapshot(index))
        if was_done:
            return seen


def test_two_indexers_of_overlapping_sources_make_what_one_alone_makes(synthetic, start, run_index, rows_of, tmp_path):
    a, b, c = write_folders(synthetic, 2)
    first, second = (start(INDEXER, tmp_path / "index", *sources) for sources in ([a, b], [b, c]))
    let_go(ready(first), ready(second))

    seen = read_until(lambda: first.poll() is not None and second.poll() is not None, tmp_path / "index")

    assert_done(first, second)
    assert seen == sorted(seen), "no video went away again"
    assert seen[-1] == 6
    run_index(a, b, c, into="alone")
    assert_same_rows(rows_of(), rows_of("alone"))
    store = IndexStore.open(tmp_path / "index")
    assert verify(store) == []
    compact(store, older_than_hours=0)
    assert_same_rows(rows_of(), rows_of("alone"))
    assert verify(store) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("attempt", range(3))
def test_three_indexers_a_reader_and_compactions_at_once(synthetic, start, run_index, rows_of, tmp_path, attempt):
    a, b, c = write_folders(synthetic, 12)
    index = tmp_path / "index"
    run_index(a / "0.mp4")
    indexers = [start(INDEXER, index, *sources) for sources in ([a, b], [b, c], [c, a])]
    let_go(*map(ready, indexers))
    num_compactions, stopped = 0, threading.Event()

    def compact_again_and_again() -> None:
        nonlocal num_compactions
        while not stopped.wait(0.1):
            compact(IndexStore.open(index))
            num_compactions += 1

    thread = threading.Thread(target=compact_again_and_again)
    thread.start()
    try:
        seen = read_until(lambda: all(process.poll() is not None for process in indexers), index)
    finally:
        stopped.set()
        thread.join()

    assert_done(*indexers)
    assert num_compactions > 3
    assert seen == sorted(seen)
    assert seen[-1] == 36
    assert len(set(seen)) > 3, "it was read while it grew"
    run_index(a, b, c, into="alone")
    assert_same_rows(rows_of(), rows_of("alone"))
    assert verify(IndexStore.open(index)) == []


def test_second_compaction_is_refused_and_goes_on_when_the_first_has_died(videos, run_index, start, tmp_path):
    run_index(videos)
    first = ready(start(SLEEPING_COMPACTION, tmp_path / "index"))

    with pytest.raises(IndexDirectoryError, match="is being compacted or refreshed by another process: wait for it"):
        compact(IndexStore.open(tmp_path / "index"))

    first.send_signal(signal.SIGKILL)
    first.wait()
    compact(IndexStore.open(tmp_path / "index"))
    assert verify(IndexStore.open(tmp_path / "index")) == []
