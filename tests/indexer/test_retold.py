"""Subtitle files that come, change or go: the moments are those of a fresh index, without decoding."""

import os
import random
from pathlib import Path

import pyarrow as pa
import pytest

from indexer import pipeline, schema
from indexer.config import RunConfig
from indexer.errors import IndexFormatError
from indexer.ingest import encode
from indexer.retold import RetoldVideos
from indexer.store.index import IndexStore
from indexer.store.verify import verify

SRT = "1\n00:00:00,500 --> 00:00:02,000\n{}\n\n2\n00:00:10,500 --> 00:00:11,000\nthe end of it\n"
GERMAN = "Wir sind gestern mit dem Zug nach Hause gefahren, weil es so stark geregnet hat."


def facts(index, name: str) -> dict:
    rows = IndexStore.open(index).ledger.snapshot().videos.to_pylist()
    (row,) = [row for row in rows if Path(row["uri"]).name == name]
    return {key: value for key, value in row.items() if key not in ("batch_id", "indexed_at")}


def came(videos):
    (videos / "a.de.srt").write_text(SRT.format(GERMAN))


def changed(videos):
    (videos / "b.srt").write_text(SRT.format("something else altogether"))


def went(videos):
    (videos / "b.srt").unlink()


def got_another_name(videos):
    (videos / "b.srt").rename(videos / "b.pt-BR.srt")
    (videos / "b.pt-BR.srt").write_text(SRT.format("azulejos em preto e branco"))


@pytest.mark.parametrize("change", [came, changed, went, got_another_name])
def test_video_gets_the_rows_of_a_fresh_index_undecoded(videos, run_index, rows_of, tmp_path, decoded, change):
    run_index(videos)
    before, version = rows_of(), IndexStore.open(tmp_path / "index").ledger.version()
    decoded.clear()
    change(videos)
    run = run_index(videos)
    assert (decoded, run.indexed, run.unchanged, run.failed) == ([], 1, 2, 0)
    assert IndexStore.open(tmp_path / "index").ledger.version() == version + 1
    assert rows_of() != before
    assert verify(IndexStore.open(tmp_path / "index")) == []
    assert run_index(videos).unchanged == 3

    run_index(videos, into="fresh")
    assert rows_of() == rows_of("fresh")
    for name in ("a.mp4", "b.mkv", "c.avi"):
        assert facts(tmp_path / "index", name) == facts(tmp_path / "fresh", name)


def test_long_video_is_fused_in_the_groups_it_was_encoded_in(synthetic, run_index, rows_of, monkeypatch, decoded):
    monkeypatch.setattr(encode, "MOMENTS_AT_ONCE", 3)
    monkeypatch.setattr("indexer.batches._MAX_UNWRITTEN_BYTES", 10_000)
    drawn = random.Random(3)
    times = sorted(drawn.sample(range(0, 14_000, 10), 60)) + list(range(22_000, 27_000, 300))  # with a gap
    video = Path(synthetic.write("long.mp4", times))
    options = {"frame_rate_hz": 2.0, "segment_length_s": 1.0}
    run_index(video, **options)
    decoded.clear()
    video.with_suffix(".srt").write_text(SRT.format("blocks"))
    assert run_index(video, **options).indexed == 1
    assert decoded == []
    run_index(video, into="fresh", **options)
    assert rows_of() == rows_of("fresh")
    assert {"blocks", "the end of it", None} == {row["transcript"] for row in rows_of()}


def test_same_words_change_nothing_but_what_the_ledger_says_of_the_file(videos, run_index, rows_of, tmp_path, decoded):
    run_index(videos)
    before = rows_of()
    batch = IndexStore.open(tmp_path / "index").ledger.snapshot().videos["batch_id"].to_pylist()
    decoded.clear()
    (videos / "b.srt").rename(videos / "b.nl.srt")
    os.utime(videos / "b.nl.srt", ns=(10**18, 10**18))
    run = run_index(videos)
    assert (decoded, run.indexed, run.unchanged, run.segments) == ([], 0, 3, 0)
    assert rows_of() == before
    assert sorted(IndexStore.open(tmp_path / "index").ledger.snapshot().videos["batch_id"].to_pylist()) == sorted(batch)
    row = facts(tmp_path / "index", "b.mkv")
    assert row["subtitles"].startswith(".nl.srt mtime_ns:1000000000000000000 ")
    assert row["language"] == "nl"
    assert (videos / "b.nl.srt").stat().st_size == int(row["subtitles"].rpartition(":")[2])


def test_video_that_is_touched_too_is_known_by_its_bytes(videos, run_index, rows_of, decoded):
    run_index(videos)
    decoded.clear()
    changed(videos)
    os.utime(videos / "b.mkv", ns=(10**18, 10**18))
    assert run_index(videos).indexed == 1
    assert decoded == []
    run_index(videos, into="fresh")
    assert rows_of() == rows_of("fresh")


def test_video_that_is_another_one_too_is_encoded(videos, run_index, rows_of, decoded, synthetic):
    run_index(videos)
    decoded.clear()
    changed(videos)
    synthetic.write("videos/b.mkv", range(0, 5_000, 100))
    assert run_index(videos).indexed == 1
    assert decoded == ["b.mkv"]
    run_index(videos, into="fresh")
    assert rows_of() == rows_of("fresh")


def test_video_is_encoded_where_its_moments_cannot_be_read(videos, run_index, rows_of, decoded, monkeypatch):
    run_index(videos)
    decoded.clear()
    changed(videos)

    def read(*_):
        raise IndexFormatError("damaged")

    with monkeypatch.context() as broken:
        broken.setattr(RetoldVideos, "_retold_moments", read)
        run_index(videos)
    assert decoded == ["b.mkv"]
    run_index(videos, into="fresh")
    assert rows_of() == rows_of("fresh")


def test_run_that_is_stopped_leaves_the_old_moments_and_the_next_one_goes_on(videos, run_index, rows_of, monkeypatch):
    run_index(videos)
    before = rows_of()
    changed(videos)
    with monkeypatch.context() as killed:
        killed.setattr("indexer.store.ledger.Ledger.commit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_index(videos)
    assert rows_of() == before
    assert run_index(videos).indexed == 1
    assert [row["transcript"] for row in rows_of()][2] == "something else altogether"


@pytest.mark.parametrize("kind", ["file", "glob", "manifest"])
def test_subtitles_of_named_videos_are_noticed(videos, run_index, rows_of, kind, tmp_path, decoded):
    (tmp_path / "list.txt").write_text("videos/a.mp4\n")
    source = {"file": videos / "a.mp4", "glob": f"{videos}/*.mp4", "manifest": tmp_path / "list.txt"}[kind]
    (tmp_path / "list.txt").write_text(f"{videos}/a.mp4\n")
    run_index(source)
    decoded.clear()
    assert run_index(source).unchanged == 1
    came(videos)
    run = run_index(source)
    assert (run.indexed, run.unchanged, decoded) == (1, 0, [])
    assert rows_of()[0]["transcript"] == GERMAN


def test_dry_run_says_what_will_be_done(videos, run_index, tmp_path):
    run_index(videos)
    came(videos)
    plan, _ = pipeline.plan_run([str(videos)], tmp_path / "index", RunConfig())
    assert [Path(file.path).name for file in plan.changed] == ["a.mp4"]
    assert plan.num_unchanged == 2


def test_failed_video_is_not_tried_again_for_its_subtitles(videos, run_index):
    (videos / "bad.mp4").write_text("no video")
    assert run_index(videos).failed == 1
    (videos / "bad.srt").write_text(SRT.format("x"))
    run = run_index(videos)
    assert (run.indexed, run.unchanged, run.failed) == (0, 3, 1)


def make_old(index) -> int:
    """Takes from the ledger what older versions did not write; returns its version."""
    ledger = IndexStore.open(index).ledger
    rows = ledger.snapshot().videos.to_pylist()
    absent = dict.fromkeys(("subtitles", "audio_language", "language"))
    return ledger.commit(pa.Table.from_pylist([row | absent for row in rows], schema=schema.VIDEOS))


def test_index_of_an_older_version_is_adopted_without_encoding(
    videos, run_index, rows_of, tmp_path, decoded, monkeypatch
):
    run_index(videos)
    new = {name: facts(tmp_path / "index", name) for name in ("a.mp4", "b.mkv")}
    before, _ = rows_of(), make_old(tmp_path / "index")
    decoded.clear()
    with monkeypatch.context() as nothing_new:
        nothing_new.setattr("indexer.retold.fuse_moments", None)
        run = run_index(videos)
    assert (decoded, run.indexed, run.unchanged) == ([], 0, 3)
    assert rows_of() == before
    assert facts(tmp_path / "index", "b.mkv") == new["b.mkv"]
    version = IndexStore.open(tmp_path / "index").ledger.version()
    monkeypatch.setattr("indexer.thread_encoding.BatchEncoder", None)
    monkeypatch.setattr("indexer.store.older_rows.np", None)  # no second look at the transcripts
    assert run_index(videos).unchanged == 3
    assert IndexStore.open(tmp_path / "index").ledger.version() == version


@pytest.mark.parametrize("change", [came, changed, went])
def test_what_changed_before_the_first_run_on_an_older_index_is_noticed(
    videos, run_index, rows_of, tmp_path, decoded, change
):
    run_index(videos)
    make_old(tmp_path / "index")
    change(videos)
    decoded.clear()
    plan, _ = pipeline.plan_run([str(videos)], tmp_path / "index", RunConfig())
    assert len(plan.changed) == (2 if change is came else 1)  # b.mkv has to be looked at
    run = run_index(videos)
    assert (decoded, run.indexed, run.unchanged) == ([], 1, 2)
    run_index(videos, into="fresh")
    assert rows_of() == rows_of("fresh")


def test_workers_of_ray_retell_and_take_over_renamed_videos_undecoded(videos, run_index, rows_of):
    run_index(videos)
    before = {row["start_s"]: row["embedding"] for row in rows_of() if row["uri"].endswith("a.mp4")}
    changed(videos)
    (videos / "a.mp4").rename(videos / "renamed.mp4")
    run = run_index(videos, prune=True, on_ray=True, num_workers=1)
    assert (run.indexed, run.unchanged, run.removed) == (2, 1, 1)
    assert run.profile["workers"]["decode"] == run.profile["workers"]["encode"] == 0
    after = {row["start_s"]: row["embedding"] for row in rows_of() if row["uri"].endswith("renamed.mp4")}
    assert after == before
    run_index(videos, into="fresh")
    spoken = [(row["uri"], row["start_s"], row["transcript"]) for row in rows_of()]
    assert spoken == [(row["uri"], row["start_s"], row["transcript"]) for row in rows_of("fresh")]


@pytest.mark.parametrize("kind", ["prefix", "glob", "manifest"])
def test_objects_are_retold_with_no_request_for_unchanged_ones(
    videos, run_index, rows_of, bucket, upload, s3, kind, decoded
):
    upload(videos, bucket / "in")
    (bucket / "list.txt").write_bytes(b"in/a.mp4\nin/b.mkv\nin/sub/c.avi\n")
    source = {"prefix": bucket / "in", "glob": f"{bucket}/in/**/*.*", "manifest": bucket / "list.txt"}[kind]
    run_index(source)
    listings = [request.query for request in s3.requests if "list-type" in request.query]
    assert 1 <= len(listings) <= {"prefix": 1, "glob": 2, "manifest": 3}[kind], listings  # none for subtitles alone
    s3.reset()
    assert run_index(source).unchanged == 3
    assert len(s3.requests) <= {"prefix": 2, "glob": 2, "manifest": 8}[kind]
    decoded.clear()
    (bucket / "in" / "a.de.srt").write_bytes(SRT.format(GERMAN).encode())
    (bucket / "in" / "b.srt").unlink()
    run = run_index(source)
    assert (decoded, run.indexed, run.unchanged) == ([], 2, 1)
    run_index(source, into="fresh")
    assert rows_of() == rows_of("fresh")
    assert [row["transcript"] for row in rows_of()] == [GERMAN, "the end of it", None, None]
