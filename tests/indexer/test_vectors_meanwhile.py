"""Vector files that a process of its own writes while a run goes on."""

import subprocess
import time

import pytest

from indexer.config import RunConfig
from indexer.errors import WorkerError
from indexer.pipeline import _tasks_of
from indexer.store.index import IndexStore
from indexer.store.vector_shards import code_shard
from indexer.store.vectors import list_manifests
from indexer.store.verify import verify
from indexer.vectors_meanwhile import VectorsMeanwhile

_LIMIT_S = 120


@pytest.fixture
def due_at_once(monkeypatch):
    monkeypatch.setattr("indexer.store.vectors.FLAT_UP_TO_BYTES", 0)


def wait_until(condition):
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < _LIMIT_S
        time.sleep(0.05)


def manifests(path):
    return list(list_manifests(path / "vectors"))


def test_a_run_writes_vectors_before_its_end(videos, run_index, tmp_path, due_at_once):
    seen = []

    def look(progress):
        if progress.phase == "encoding in this process" and progress.summary.segments and not seen:
            store = IndexStore.open(tmp_path / "index")
            if store.snapshot().num_segments:
                wait_until(lambda: manifests(tmp_path / "index"))
                seen.append(manifests(tmp_path / "index")[0].ledger_version)

    run_index(videos, commit_interval_s=1e-6, on_progress=look)
    store = IndexStore.open(tmp_path / "index")
    assert seen[0] < store.ledger.version(), "it was written before the last commit"
    coverage = store.snapshot().coverage
    assert (coverage.covered, coverage.uncovered) == (4, 0)


@pytest.mark.parametrize(
    ("known", "added", "is_due"),
    [(0, 60_000, True), (500_000, 60_000, True), (0, 50_000, False), (1_000_000, 60_000, False)],
)
def test_a_file_is_due_when_a_scan_is_slow_and_the_file_has_grown_by_a_tenth(tmp_path, known, added, is_due):
    """The index is not there: the process that is started fails, and no other is."""
    meanwhile = VectorsMeanwhile(tmp_path / "nothing", known, 384)
    meanwhile.committed(added)
    process = meanwhile._process
    assert (process is not None) == is_due
    if process is not None:
        assert process.wait(_LIMIT_S) != 0
        meanwhile.committed(known + added)
        assert meanwhile._process is process
    meanwhile.stop()


def test_what_is_committed_meanwhile_counts_for_the_next_file(videos, run_index, tmp_path):
    run_index(videos)
    meanwhile = VectorsMeanwhile(tmp_path / "index", 0, 384)
    meanwhile.committed(60_000)
    first = meanwhile._process
    meanwhile.committed(60_000)
    assert meanwhile._process is first, "one at a time"
    assert first.wait(_LIMIT_S) == 0
    meanwhile.committed(0)
    assert meanwhile._process is not first
    assert meanwhile._process.wait(_LIMIT_S) == 0


@pytest.mark.parametrize("after_s", [0.0, 2.0, 4.0])
def test_a_process_that_is_stopped_leaves_a_sound_index(videos, run_index, tmp_path, after_s):
    run_index(videos)
    for path in (tmp_path / "index" / "vectors").iterdir():
        path.unlink()
    meanwhile = VectorsMeanwhile(tmp_path / "index", 0, 384)
    meanwhile.committed(60_000)
    process = meanwhile._process
    time.sleep(after_s)
    meanwhile.stop()
    assert process.poll() is not None
    meanwhile.committed(10_000_000)
    assert meanwhile._process is process, "the run is over"
    problems = verify(IndexStore.open(tmp_path / "index"))
    assert all("there is no vector file" in problem for problem in problems)
    assert not list((tmp_path / "index" / "vectors").glob(".*"))


def test_a_run_without_much_to_add_starts_no_process(videos, run_index, tmp_path, monkeypatch):
    started = subprocess.Popen

    def not_for_vectors(command, **options):
        assert "indexer.vectors_meanwhile" not in command
        return started(command, **options)

    monkeypatch.setattr(subprocess, "Popen", not_for_vectors)
    run_index(videos, commit_interval_s=1e-6)
    assert IndexStore.open(tmp_path / "index").snapshot().coverage.covered == 4


def test_a_run_codes_vectors_by_tasks_on_a_cluster_only(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert _tasks_of(RunConfig(), None) is None
    assert _tasks_of(RunConfig(address="127.0.0.1:9"), True) is None
    map_shards = _tasks_of(RunConfig(address="127.0.0.1:9"), None)
    with pytest.raises(WorkerError, match=r"nothing answers at the Ray address '127.0.0.1:9'"):
        list(map_shards(code_shard, []))
