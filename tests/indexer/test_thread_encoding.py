"""Threads of one process give the rows of a plain loop; a handful is what they finish before Ray would."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from indexer import parts
from indexer.batches import BatchEncoder, EncoderSettings
from indexer.config import RunConfig, SamplingConfig
from indexer.errors import StorageError
from indexer.ingest import encode
from indexer.ingest.files import VideoFile, look_at
from indexer.ingest.guard import GuardedDecoder
from indexer.pipeline import index_videos
from indexer.store.index import IndexStore
from indexer.thread_encoding import encode_in_threads, is_handful, num_useful_threads
from indexer.work import BatchResult, WorkItem, work_order
from model.errors import ModelError

_MIB = 1 << 20


def files(count: int, mib: float) -> list[VideoFile]:
    return [VideoFile(uri=str(n), path=str(n), size_bytes=int(mib * _MIB), mtime_ns=0) for n in range(count)]


@pytest.fixture
def clips(synthetic):
    """Seven short videos, and one that is cut into parts."""
    (synthetic.folder / "clips").mkdir()
    paths = [synthetic.write(f"clips/{number}.mp4", range(0, 1000 + 300 * number, 100)) for number in range(7)]
    return [*paths, synthetic.write("clips/long.mp4", range(0, 30_000, 100), options={"g": "20"})]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(encode, "MOMENTS_AT_ONCE", 3)
    monkeypatch.setattr(parts, "MOMENTS_AT_ONCE", 3)
    monkeypatch.setattr(parts, "_MIN_PART_BYTES", 1)


def work(clips: list[str]) -> list[WorkItem]:
    return sorted((WorkItem(file=look_at(clip)) for clip in clips), key=work_order)


def settings_of(folder: Path) -> EncoderSettings:
    (folder / "segments").mkdir()
    return EncoderSettings(index_path=str(folder), model="tiny_test", sampling=SamplingConfig(mode="exact"))


@pytest.mark.parametrize(
    ("count", "mib", "quick"),
    [(1, 0.1, True), (48, 0.6, True), (200, 0.6, True), (1, 200, True), (1, 220, False), (400, 0.6, False)],
)
def test_handful_is_decided_by_bytes(count, mib, quick):
    assert is_handful(files(count, mib)) == quick


def test_very_many_tiny_files_are_no_handful():
    assert is_handful(files(1000, 0.001))
    assert not is_handful(files(1200, 0.001))


def test_no_more_threads_than_cores():
    assert 1 <= num_useful_threads() <= 4


def test_threads_give_the_rows_of_a_plain_loop(clips, tmp_path, rows_of, monkeypatch):
    monkeypatch.setattr("indexer.pipeline.num_useful_threads", lambda: 3)
    seen: list[BatchResult] = []
    joined = parts.joined_parts
    monkeypatch.setattr(
        "indexer.recorder.joined_parts", lambda results: joined(seen.append(result) or result for result in results)
    )
    sampling = SamplingConfig(frame_rate_hz=2.0, segment_length_s=1.0, mode="exact")
    for in_process, name in ((True, "loop"), (None, "threads")):
        summary = index_videos(
            clips,
            tmp_path / name,
            model="tiny_test",
            sampling=sampling,
            run=RunConfig(),
            in_process=in_process,
        )
        assert summary.indexed == 8
    assert len({result.spent.worker for result in seen}) >= 3
    assert sum(result.part is not None for result in seen) >= 3
    assert rows_of("threads") == rows_of("loop")


@pytest.fixture
def encoders(monkeypatch) -> list[BatchEncoder]:
    """Those that begin a batch, as they come; at the second the disk is full."""
    real = BatchEncoder.encode
    begun: list[BatchEncoder] = []

    def full(self, items):
        begun.append(self)
        if len(begun) == 2:
            raise StorageError("No space left")
        return real(self, items)

    monkeypatch.setattr(BatchEncoder, "encode", full)
    return begun


def test_an_error_of_one_thread_is_raised_and_all_threads_end(clips, tmp_path, encoders):
    before = set(threading.enumerate())
    with pytest.raises(StorageError, match="No space left"):
        list(encode_in_threads(work(clips), settings_of(tmp_path), num_threads=2))
    assert set(threading.enumerate()) <= before
    assert len(encoders) < len(clips)
    assert all(encoder._decoder._child is None for encoder in encoders)


def test_whoever_stops_taking_results_stops_the_threads(clips, tmp_path):
    before = set(threading.enumerate())
    results = encode_in_threads(work(clips), settings_of(tmp_path), num_threads=2)
    next(results)
    results.close()
    assert set(threading.enumerate()) <= before


def test_a_model_that_cannot_be_loaded_leaves_no_decoder_behind(clips, tmp_path, monkeypatch):
    decoders: list[GuardedDecoder] = []
    start = GuardedDecoder.start
    monkeypatch.setattr(GuardedDecoder, "start", lambda self: decoders.append(self) or start(self))
    settings = replace(settings_of(tmp_path), model=str(tmp_path / "missing.safetensors"))
    with pytest.raises(ModelError):
        next(encode_in_threads(work(clips), settings, num_threads=1))
    assert [(decoder.num_children, decoder._child) for decoder in decoders] == [(1, None)]


@pytest.fixture
def decoders_hang(monkeypatch):
    """Children that never answer, for two minutes until a video fails."""
    monkeypatch.setattr("indexer.batches.GuardedDecoder", partial(GuardedDecoder, command=["sleep", "1000"]))


def wait_for_threads(before: set[threading.Thread]) -> float:
    """Seconds until all other threads have ended."""
    started = time.monotonic()
    while set(threading.enumerate()) - before and time.monotonic() - started < 30:
        time.sleep(0.01)
    return time.monotonic() - started


@pytest.mark.usefixtures("decoders_hang")
def test_an_error_of_one_thread_does_not_wait_for_the_batches_of_the_others(clips, tmp_path, encoders):
    before = set(threading.enumerate())
    started = time.monotonic()
    with pytest.raises(StorageError, match="No space left"):
        list(encode_in_threads(work(clips), settings_of(tmp_path), num_threads=2))
    assert time.monotonic() - started < 20
    assert set(threading.enumerate()) <= before
    assert all(encoder._decoder._child is None for encoder in encoders)


@pytest.mark.usefixtures("decoders_hang")
def test_ctrl_c_ends_threads_and_decoders_soon_and_what_was_under_way_is_no_failure(clips, tmp_path, monkeypatch):
    before = set(threading.enumerate())
    decoders: list[GuardedDecoder] = []
    start = GuardedDecoder.start
    monkeypatch.setattr(GuardedDecoder, "start", lambda self: decoders.append(self) or start(self))

    def press(progress):
        hanging = [decoder._child for decoder in decoders if decoder._command[0] == "sleep"]
        if any(child is not None and child.busy for child in hanging):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_videos(
            clips, tmp_path / "i", model="tiny_test", sampling=SamplingConfig(), run=RunConfig(), on_progress=press
        )
    assert wait_for_threads(before) < 5
    assert all(decoder._child is None for decoder in decoders)
    assert IndexStore.open(tmp_path / "i").ledger.snapshot().videos.num_rows == 0
