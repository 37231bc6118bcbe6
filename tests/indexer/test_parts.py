"""Long videos in parts: the rows are those of a video read in one go, and they come all together or not at all."""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from indexer import parts, schema
from indexer.batches import BatchEncoder, EncoderSettings, make_batches
from indexer.config import RunConfig, SamplingConfig
from indexer.ingest import encode
from indexer.ingest.files import look_at
from indexer.parts import cut_long_videos, joined_parts
from indexer.pipeline import index_videos
from indexer.recorder import Recorder
from indexer.store.compact import compact
from indexer.store.index import IndexStore
from indexer.store.verify import verify
from indexer.work import BatchResult, WorkItem, work_order
from tests.indexer.conftest import new_index

SAMPLING = SamplingConfig(frame_rate_hz=2.0, segment_length_s=1.0, mode="exact")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """A group of moments is 3 s long, and every video that has two of them is cut up."""
    monkeypatch.setattr(encode, "MOMENTS_AT_ONCE", 3)
    monkeypatch.setattr(parts, "MOMENTS_AT_ONCE", 3)
    monkeypatch.setattr(parts, "_MIN_PART_BYTES", 1)


@pytest.fixture
def store(tmp_path):
    return new_index(tmp_path / "index", SAMPLING)


def settings_of(store: IndexStore) -> EncoderSettings:
    return EncoderSettings(index_path=str(store.path), model="tiny_test", sampling=store.config.sampling)


def cut(store: IndexStore, path: str | Path, num_workers: int = 2) -> list[WorkItem]:
    return list(cut_long_videos([WorkItem(file=look_at(str(path)))], num_workers, settings_of(store)))


def run(store: IndexStore, items: list[WorkItem], until: int | None = None) -> Recorder:
    """Encodes the items in this process, in a random order, the first `until` of them; commits what has arrived."""
    encoder = BatchEncoder(settings_of(store))
    items = random.Random(7).sample(items, len(items))

    def results():
        for item in items[:until]:
            yield BatchResult.from_row(encoder.encode([item]).to_row())
        encoder.close()

    recorder = Recorder(store, RunConfig(commit_interval_s=0.001), time.monotonic(), lambda progress: None)
    recorder.consume(results())
    return recorder


def visible(store: IndexStore) -> list[dict]:
    snapshot = store.snapshot()
    rows = snapshot.read(range(snapshot.num_segments), schema.SEGMENTS.names).to_pylist()
    return sorted(({**row, "batch_id": ""} for row in rows), key=lambda row: row["start_s"])


def ledger(store: IndexStore) -> list[dict]:
    """Without what tells of the run. Parts decode some frames twice, and need not read what is beyond them."""
    cost = dict.fromkeys(("indexed_at", "sampling_plan", "num_coded", "num_decoded"))
    return [{**row, "batch_id": "", **cost} for row in store.ledger.snapshot().videos.to_pylist()]


@pytest.fixture
def video(synthetic) -> Path:
    """31.4 s with subtitles, 10 frames a second in irregular steps, a key frame every 2 s."""
    drawn = random.Random(3)
    times = list(itertools.accumulate([0] + [drawn.randint(60, 140) for _ in range(313)]))
    path = Path(synthetic.write("long.mp4", times, options={"g": "20"}, title="Long"))
    path.with_suffix(".srt").write_text("1\n00:00:02,500 --> 00:00:19,200\nblocks\n")
    return path


@pytest.mark.parametrize(("num_workers", "mode"), [(2, "exact"), (5, "auto"), (2, "keyframes")])
def test_video_in_parts_gives_the_rows_of_the_whole_video(video, tmp_path, num_workers, mode):
    sampling = replace(SAMPLING, mode=mode)
    store, whole = new_index(tmp_path / "index", sampling), new_index(tmp_path / "whole", sampling)
    run(whole, [WorkItem(file=look_at(str(video)))])
    items = cut(store, video, num_workers)
    assert len(items) >= 5
    recorder = run(store, items)
    assert (recorder.summary.indexed, recorder.summary.segments) == (1, len(visible(whole)))
    assert visible(store) == visible(whole)
    assert ledger(store) == ledger(whole)
    store.build_vectors()
    store.build_keywords()
    assert verify(store) == []


def test_long_video_is_written_as_several_files_with_the_same_rows(video, store, tmp_path, monkeypatch):
    whole = new_index(tmp_path / "whole", SAMPLING)
    run(whole, [WorkItem(file=look_at(str(video)))])
    monkeypatch.setattr("indexer.batches._MAX_UNWRITTEN_BYTES", 10_000)
    run(store, [WorkItem(file=look_at(str(video)))])
    assert len(store.segments.files()) == 3
    assert visible(store) == visible(whole)


def test_parts_cover_the_video_once_and_begin_where_groups_do(video, store):
    items = cut(store, video)
    spans = [(item.part.start_s, item.part.end_s) for item in items]
    assert spans[0][0] == 0
    assert spans[-1][1] is None
    assert all(end_s == start_s for (_, end_s), (start_s, _) in itertools.pairwise(spans))
    assert all(start_s % 3 == 0 for start_s, _ in spans)
    assert [item.part.number for item in items] == list(range(len(items)))
    assert {item.part.num_parts for item in items} == {len(items)}
    assert len({item.part.batch_id for item in items}) == 1
    assert sorted(len(batch) for batch in make_batches(items, 1)) == [1] * len(items)


def test_only_videos_that_one_worker_would_be_left_with_are_cut(video, store, synthetic, monkeypatch):
    monkeypatch.setattr(parts, "_MIN_PART_BYTES", 1)
    assert len(cut(store, video, num_workers=1)) == 1
    item = WorkItem(file=look_at(str(video)))
    (whole,) = cut_long_videos([replace(item, maybe_renamed=True)], 2, settings_of(store))
    assert whole.part is None
    many = [WorkItem(file=look_at(synthetic.write(f"{i}.mp4", range(0, 9_000, 200)))) for i in range(20)]
    many.sort(key=work_order)
    assert all(item.part is None for item in cut_long_videos(many, 2, settings_of(store)))
    broken = synthetic.folder / "broken.mp4"
    broken.write_text("no video" * 1000)
    assert cut(store, broken)[0].part is None


def test_touched_long_video_is_known_by_its_bytes_and_stays_whole(video, store):
    known = encode.fingerprint_file(str(video))
    item = WorkItem(file=look_at(str(video)), known_fingerprint=known)
    assert list(cut_long_videos([item], 2, settings_of(store))) == [item]
    other = replace(item, known_fingerprint="blake2b:other")
    assert len(cut_long_videos([other], 2, settings_of(store))) > 1


def test_killed_run_leaves_nothing_of_a_video_whose_parts_are_not_all_there(video, store, tmp_path):
    whole = new_index(tmp_path / "whole", SAMPLING)
    run(whole, [WorkItem(file=look_at(str(video)))])
    for until in (1, len(cut(store, video)) - 1):
        run(store, cut(store, video), until=until)
        assert ledger(store) == []
        assert visible(store) == []
    run(store, cut(store, video))
    assert visible(store) == visible(whole)
    compact(store, older_than_hours=0)
    assert visible(store) == visible(whole)
    on_disk = {path.name for path in (tmp_path / "index" / "segments").glob("*.parquet")}
    assert on_disk == {Path(file).name for file in store.segments.files()}


def test_one_failed_part_fails_the_video_and_a_later_try_brings_it_in(video, store, tmp_path, monkeypatch):
    real = encode.read_transcript
    calls = itertools.count(1)

    def fails_once(path):
        if next(calls) == 3:
            raise ZeroDivisionError("boom")
        return real(path)

    monkeypatch.setattr(encode, "read_transcript", fails_once)
    assert run(store, cut(store, video)).summary.failed == 1
    (row,) = ledger(store)
    assert (row["status"], row["error_kind"]) == ("failed", "ZeroDivisionError")
    assert (row["num_segments"], row["num_frames"]) == (0, 0)
    assert store.segments.files() == []
    recorder = Recorder(store, RunConfig(), time.monotonic(), lambda progress: None)
    again = recorder.work_item(look_at(str(video)))
    assert again.attempts == 2
    run(store, list(cut_long_videos([again], 2, settings_of(store))))
    whole = new_index(tmp_path / "whole", SAMPLING)
    run(whole, [WorkItem(file=look_at(str(video)), attempts=2)])
    assert (visible(store), ledger(store)) == (visible(whole), ledger(whole))


def test_file_that_changes_between_two_parts_fails_and_is_read_anew(video, store):
    items = cut(store, video)
    encoder = BatchEncoder(settings_of(store))
    results = [encoder.encode([item]) for item in items[:-1]]
    video.write_bytes(video.read_bytes() + bytes(8))
    results.append(encoder.encode(items[-1:]))
    encoder.close()
    (joined,) = joined_parts(results)
    (row,) = joined.videos.to_pylist()
    assert (row["status"], row["error_kind"], row["size_bytes"]) == ("failed", "ChangedWhileRead", 0)
    assert joined.files == []


@pytest.mark.parametrize("name", ["cut.mkv", "cut.ts"])
def test_truncated_video_in_parts_gives_what_the_whole_gives(video, store, tmp_path, synthetic, name):
    data = Path(synthetic.write(f"full-{name}", range(0, 30_000, 100), options={"g": "20"})).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) // 2])
    items = cut(store, path)
    run(store, items)
    whole = new_index(tmp_path / "whole", SAMPLING)
    run(whole, [WorkItem(file=look_at(str(path)))])
    assert visible(store) == visible(whole)
    assert [row["status"] for row in ledger(store)] == [row["status"] for row in ledger(whole)] == ["indexed"]
    assert len(items) > 1
    assert ledger(store)[0]["partial"] == ledger(whole)[0]["partial"]
    assert ledger(store)[0]["duration_s"] == ledger(whole)[0]["duration_s"]


@pytest.mark.slow
def test_ray_cuts_long_videos_and_gives_the_same_rows(video, synthetic, tmp_path, monkeypatch):
    seen = []
    real = parts.joined_parts

    def watched(results):
        return real(seen.append(result) or result for result in results)

    monkeypatch.setattr("indexer.recorder.joined_parts", watched)
    # The workers have their own modules: groups of the usual size.
    monkeypatch.setattr(encode, "MOMENTS_AT_ONCE", 30)
    monkeypatch.setattr(parts, "MOMENTS_AT_ONCE", 30)
    sampling = SamplingConfig(frame_rate_hz=10.0, segment_length_s=0.2)
    for in_process, name in ((True, "plain"), (False, "ray")):
        index_videos(
            [str(video)],
            tmp_path / name,
            model="tiny_test",
            sampling=sampling,
            run=RunConfig(num_workers=2),
            in_process=in_process,
        )
    assert sum(result.part is not None for result in seen) >= 3
    assert visible(IndexStore.open(tmp_path / "ray")) == visible(IndexStore.open(tmp_path / "plain"))
    assert ledger(IndexStore.open(tmp_path / "ray")) == ledger(IndexStore.open(tmp_path / "plain"))
