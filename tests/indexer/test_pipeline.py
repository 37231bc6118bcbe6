import errno
import os
import shutil
from pathlib import Path

import pytest

from indexer import pipeline, schema, thread_encoding
from indexer.config import RunConfig, SamplingConfig
from indexer.errors import IndexSettingsError, SourceError, StorageError, WorkerError
from indexer.pipeline import index_videos, retry_videos
from indexer.store.index import IndexStore
from indexer.store.verify import verify
from indexer.thread_encoding import encode_in_threads
from model.errors import WeightsDamagedError


def summary_of(run):
    return {name: value for name, value in run.to_dict().items() if name not in ("wall_s", "video_s")}


def ledger(path: Path) -> dict[str, dict]:
    return {Path(row["uri"]).name: row for row in IndexStore.open(path).ledger.snapshot().videos.to_pylist()}


def test_index_writes_what_the_videos_hold(videos, run_index, rows_of, tmp_path):
    run = run_index(videos)
    assert summary_of(run) == {"indexed": 3, "unchanged": 0, "failed": 0, "removed": 0, "segments": 4}
    assert run.video_s == pytest.approx(16.0, abs=0.2)
    spans = [(Path(row["uri"]).name, row["start_s"], round(row["end_s"]), row["num_frames"]) for row in rows_of()]
    assert spans == [("a.mp4", 0, 10, 10), ("a.mp4", 10, 12, 2), ("b.mkv", 0, 3, 3), ("c.avi", 0, 1, 1)]
    assert [row["transcript"] for row in rows_of()] == [None, None, "blocks in black and white", None]
    facts = ledger(tmp_path / "index")
    assert (facts["a.mp4"]["width"], facts["a.mp4"]["height"]) == (128, 96)
    assert facts["b.mkv"]["title"] == "The second"
    assert facts["c.avi"]["video_codec"] == "mpeg4"
    assert verify(IndexStore.open(tmp_path / "index")) == []


def test_stored_features_and_times_have_the_stated_form(videos, run_index, rows_of, tmp_path):
    run_index(videos / "a.mp4")
    tokens, dim = IndexStore.open(tmp_path / "index").config.feature_shape
    for row in rows_of():
        assert len(row["frame_features"]) == 2 * row["num_frames"] * tokens * dim
        assert all(row["start_s"] <= time < row["end_s"] for time in row["frame_times_s"])
        assert row["thumbnail"].startswith(b"\xff\xd8")
        assert row["segment_id"] == schema.segment_id(row["uri"], row["start_s"])


def test_a_second_run_changes_nothing_and_decodes_nothing(videos, run_index, tmp_path, monkeypatch):
    run_index(videos)
    version = IndexStore.open(tmp_path / "index").ledger.version()
    monkeypatch.setattr("indexer.thread_encoding.BatchEncoder", None)
    assert summary_of(run_index(videos)) == {"indexed": 0, "unchanged": 3, "failed": 0, "removed": 0, "segments": 0}
    assert IndexStore.open(tmp_path / "index").ledger.version() == version


def test_new_and_changed_videos_are_brought_in(videos, run_index, rows_of, synthetic):
    run_index(videos)
    before = {row["segment_id"]: row for row in rows_of()}
    synthetic.write("videos/d.mp4", range(0, 2_000, 100))
    synthetic.write("videos/a.mp4", range(0, 5_000, 100))
    run = run_index(videos)
    assert summary_of(run) == {"indexed": 2, "unchanged": 2, "failed": 0, "removed": 0, "segments": 2}
    spans = [(Path(row["uri"]).name, row["start_s"], round(row["end_s"])) for row in rows_of()]
    assert spans == [("a.mp4", 0, 5), ("b.mkv", 0, 3), ("d.mp4", 0, 2), ("c.avi", 0, 1)]
    untouched = [row for row in rows_of() if row["uri"].endswith(("b.mkv", "c.avi"))]
    assert [before[row["segment_id"]] for row in untouched] == untouched


def test_a_touched_file_with_the_same_bytes_is_not_encoded_again(videos, run_index, tmp_path):
    run_index(videos)
    os.utime(videos / "a.mp4", ns=(10**18, 10**18))
    before = ledger(tmp_path / "index")["a.mp4"]
    assert summary_of(run_index(videos))["unchanged"] == 3
    after = ledger(tmp_path / "index")["a.mp4"]
    assert after == before | {"mtime_ns": 10**18}


def test_vanished_videos_go_only_with_prune(videos, run_index, rows_of):
    run_index(videos)
    (videos / "a.mp4").unlink()
    assert summary_of(run_index(videos))["removed"] == 0
    assert len(rows_of()) == 4
    assert summary_of(run_index(videos, prune=True)) == {
        "indexed": 0, "unchanged": 2, "failed": 0, "removed": 1, "segments": 0
    }  # fmt: skip
    assert [Path(row["uri"]).name for row in rows_of()] == ["b.mkv", "c.avi"]


def test_prune_spares_what_the_sources_do_not_cover(videos, run_index, rows_of):
    run_index(videos)
    assert run_index(videos / "sub", prune=True).removed == 0
    assert len(rows_of()) == 4


def test_broken_videos_end_in_the_ledger(videos, run_index, tmp_path):
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("this is no video\n" * 99)
    cut = (videos / "a.mp4").read_bytes()
    (videos / "headless.mp4").write_bytes(cut[: len(cut) // 2])
    run = run_index(videos)
    assert (run.indexed, run.failed) == (3, 3)
    failed = {name: row for name, row in ledger(tmp_path / "index").items() if row["status"] == "failed"}
    assert {name: (row["error_stage"], row["error_kind"]) for name, row in failed.items()} == {
        "empty.mp4": ("read", "EmptyFile"),
        "text.mp4": ("open", "NotAVideo"),
        "headless.mp4": ("open", "NotAVideo"),
    }
    assert all(row["error_message"] and "Traceback" not in row["error_message"] for row in failed.values())


def test_failed_videos_are_tried_again_on_request_or_when_they_change(videos, run_index, tmp_path, synthetic):
    bad = videos / "bad.mp4"
    bad.write_text("not yet a video")
    run_index(videos)
    assert summary_of(run_index(videos)) == {"indexed": 0, "unchanged": 3, "failed": 1, "removed": 0, "segments": 0}
    assert run_index(videos, retry_failed=True).failed == 1
    assert ledger(tmp_path / "index")["bad.mp4"]["attempts"] == 2
    synthetic.write("videos/bad.mp4", range(0, 1_000, 100))
    assert summary_of(run_index(videos))["indexed"] == 1
    assert ledger(tmp_path / "index")["bad.mp4"]["attempts"] == 1


def test_an_unexpected_error_fails_one_video_only(videos, run_index, tmp_path, monkeypatch):
    import indexer.ingest.encode

    real = indexer.ingest.encode.read_transcript

    def read_transcript(file):
        if file.path.endswith("b.mkv"):
            raise ZeroDivisionError("boom")
        return real(file)

    monkeypatch.setattr("indexer.ingest.encode.read_transcript", read_transcript)
    run = run_index(videos)
    assert (run.indexed, run.failed) == (2, 1)
    assert ledger(tmp_path / "index")["b.mkv"]["error_message"] == "unexpected ZeroDivisionError: boom"


def test_limit_stops_and_the_next_run_goes_on(videos, run_index, rows_of):
    assert run_index(videos, limit=1).indexed == 1
    assert run_index(videos, limit=1).indexed == 1
    assert run_index(videos).indexed == 1
    assert len(rows_of()) == 4


def test_an_interrupted_run_keeps_what_was_committed_and_goes_on(videos, run_index, rows_of, synthetic):
    for i in range(4):
        synthetic.write(f"videos/more{i}.mp4", range(0, 1_000, 100))

    def interrupt(progress):
        if progress.summary.indexed >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_index(videos, on_progress=interrupt, commit_interval_s=0.001)
    done = {row["uri"] for row in rows_of()}
    assert 3 <= len(done) < 7
    rest = run_index(videos)
    assert rest.unchanged == len(done)
    assert rest.indexed == 7 - len(done)


def test_the_result_of_an_interrupted_run_equals_an_undisturbed_one(videos, run_index, rows_of):
    run_index(videos, limit=2)
    run_index(videos)
    run_index(videos, into="other")
    assert rows_of() == rows_of("other")


def test_manifest_lines_without_a_file_become_failures(videos, run_index, tmp_path):
    manifest = tmp_path / "list.txt"
    manifest.write_text("videos/a.mp4\nvideos/nowhere.mp4\n")
    run = run_index(manifest)
    assert (run.indexed, run.failed) == (1, 1)
    assert ledger(tmp_path / "index")["nowhere.mp4"]["error_stage"] == "read"


def test_folder_that_is_named_by_a_manifest_and_cannot_be_listed_is_one_failure(
    videos, run_index, tmp_path, monkeypatch
):
    manifest = tmp_path / "list.txt"
    manifest.write_text("videos/sub\n")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("sub"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for attempt in (1, 2):
        run = run_index(videos, manifest)
        assert (run.indexed + run.unchanged, run.failed) == (2, 1)
        rows = ledger(tmp_path / "index")
        assert len(rows) == 3
        assert (rows["sub"]["attempts"], rows["sub"]["num_segments"]) == (attempt, 0)
        assert "cannot be listed" in rows["sub"]["error_message"]
    assert verify(IndexStore.open(tmp_path / "index")) == []


def test_retry_goes_on_past_what_may_not_be_looked_at(videos, run_index, tmp_path, monkeypatch):
    """As in a folder that this user may not enter."""
    for name in ("x.mp4", "y.mp4"):
        (videos / name).write_text("no video")
    run_index(videos)
    real = os.stat

    def stat(path, *arguments, **options):
        if str(path).endswith("x.mp4"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert retry_videos(tmp_path / "index", run=RunConfig(), in_process=True).failed == 2
    rows = ledger(tmp_path / "index")
    assert [rows[name]["attempts"] for name in ("x.mp4", "y.mp4")] == [2, 2]
    assert rows["x.mp4"]["error_message"] == "the file cannot be read: Permission denied"


def test_settings_of_the_index_are_kept(videos, run_index, rows_of):
    run_index(videos / "a.mp4", frame_rate_hz=2.0, segment_length_s=4.0)
    assert [(row["start_s"], row["num_frames"]) for row in rows_of()] == [(0, 8), (4, 8), (8, 8)]
    with pytest.raises(IndexSettingsError):
        run_index(videos)


def test_nothing_is_created_for_a_source_that_is_not_there(run_index, tmp_path):
    with pytest.raises(SourceError):
        run_index(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError):
        run_index(tmp_path / "empty")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("num_cpus", "share_model"), [(1, False), (2, False), (1, True), pytest.param(2, True, marks=pytest.mark.slow)]
)
def test_ray_makes_the_same_rows_as_a_plain_loop(
    videos, run_index, rows_of, monkeypatch, num_cpus, share_model, synthetic
):
    """Also where the workers only decode and share one model, as on a machine with a GPU. With two threads, PyTorch's
    sums differ in the last bits."""
    import indexer.ray_cluster

    real = indexer.ray_cluster.ray_cluster
    monkeypatch.setattr(
        "indexer.ray_cluster.ray_cluster", lambda address, **options: real(address, num_cpus=num_cpus, **options)
    )
    for i in range(3):
        synthetic.write(f"videos/more{i}.mp4", range(0, 1_000 + i * 500, 100))
    shutil.copy(videos / "a.mp4", videos / "copy.mp4")
    (videos / "broken.mp4").write_text("no video")
    on_ray = run_index(videos, into="ray", on_ray=True, share_model=share_model)
    plain = run_index(videos, into="plain")
    assert summary_of(on_ray) == summary_of(plain)
    assert ("models" in on_ray.profile) == share_model
    rows, expected = rows_of("ray"), rows_of("plain")
    if share_model and num_cpus > 1:
        for row, other in zip(rows, expected, strict=True):
            assert row.pop("embedding") == pytest.approx(other.pop("embedding"), abs=1e-6)
            assert [label["label"] for label in row.pop("labels")] == [label["label"] for label in other.pop("labels")]
    assert rows == expected


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEOBERT_WEIGHTS_DIR", str(tmp_path))
    (tmp_path / "model.safetensors").write_text("not weights")


def test_missing_weights_are_reported_before_anything_is_made(videos, no_weights, tmp_path):
    with pytest.raises(WeightsDamagedError):
        index_videos([str(videos)], tmp_path / "index", model="mini", sampling=SamplingConfig(), run=RunConfig())
    assert not (tmp_path / "index").exists()


def test_a_worker_that_cannot_start_is_one_clear_error(videos, no_weights, monkeypatch, tmp_path):
    monkeypatch.setattr("indexer.pipeline.require_weights", lambda model: None)  # as if only the workers lacked them
    with pytest.raises(WorkerError, match="could not start") as error:
        index_videos(
            [str(videos)], tmp_path / "index", model="mini", sampling=SamplingConfig(), run=RunConfig(num_workers=1)
        )
    assert len(str(error.value).splitlines()) == 1


def test_a_worker_that_cannot_write_stops_the_run_and_leaves_nothing_half_written(
    videos, run_index, rows_of, tmp_path, monkeypatch
):
    run_index(videos / "a.mp4")

    def disk_full(table, path, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("indexer.store.segments_table.pq.write_table", disk_full)
        with pytest.raises(StorageError, match="No space left"):
            run_index(videos)
    assert not list((tmp_path / "index" / "segments").glob("*.tmp"))
    assert len(rows_of()) == 2
    assert run_index(videos).indexed == 2


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_where_nothing_answers_is_reported_at_once(videos, run_index, address):
    with pytest.raises(WorkerError, match="nothing answers at the Ray address"):
        run_index(videos, on_ray=True, address=address)


@pytest.mark.parametrize(
    ("num_videos", "options", "on_ray"),
    [(3, {}, False), (4, {}, True), (1, {"num_workers": 1}, True), (1, {"device": "cuda"}, True)],
)
def test_handful_of_videos_is_encoded_in_this_process(tmp_path, synthetic, monkeypatch, num_videos, options, on_ray):
    (synthetic.folder / "few").mkdir()
    for number in range(num_videos):
        synthetic.write(f"few/{number}.mp4", range(0, 200, 100))
    asked = []

    def encode_on_ray(items, settings, run):
        asked.append(len(items))
        yield from encode_in_threads(items, settings, num_threads=1)

    monkeypatch.setattr(pipeline, "_encode_on_ray", encode_on_ray)
    monkeypatch.setattr(thread_encoding, "_MAX_WORK_S", 3.5 * thread_encoding._S_PER_VIDEO)
    monkeypatch.setattr(thread_encoding, "_S_PER_BYTE", 0.0)
    settings = {"model": "tiny_test", "sampling": SamplingConfig(), "run": RunConfig(**options)}
    assert index_videos([str(synthetic.folder / "few")], tmp_path / "index", **settings).indexed == num_videos
    assert asked == ([num_videos] if on_ray else [])


def test_handful_goes_to_the_cluster_in_a_ray_job(tmp_path, videos, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(WorkerError, match="nothing answers at the Ray address"):
        index_videos([str(videos)], tmp_path / "index", model="tiny_test", sampling=SamplingConfig(), run=RunConfig())


def names(rows) -> list[str]:
    return sorted({Path(row["uri"]).name for row in rows})


@pytest.mark.parametrize("emptied", ["disk", "disk/2024"])
def test_videos_of_an_empty_folder_are_not_pruned(videos, run_index, rows_of, emptied):
    (videos / "disk").mkdir()
    (videos / "sub").rename(videos / "disk" / "2024")
    run_index(videos)
    (videos / "a.mp4").unlink()
    shutil.rmtree(videos / emptied)
    (videos / emptied).mkdir()

    run = run_index(videos, prune=True)

    assert (run.removed, run.spared) == (1, {str(videos / "disk/2024/c.avi"): str(videos / emptied)})
    assert names(rows_of()) == ["b.mkv", "c.avi"]
    (videos / emptied).rmdir()
    (videos / "disk" / "other.txt").parent.mkdir(exist_ok=True)
    (videos / "disk" / "other.txt").touch()
    run = run_index(videos, prune=True)
    assert (run.removed, run.spared) == (1, {})
    assert names(rows_of()) == ["b.mkv"]


def test_videos_moved_out_of_a_folder_that_stays_have_one_name(videos, run_index, rows_of):
    run_index(videos)
    (videos / "sub" / "c.avi").rename(videos / "moved.avi")
    run = run_index(videos, prune=True)
    assert (run.removed, run.spared) == (1, {})
    assert names(rows_of()) == ["a.mp4", "b.mkv", "moved.avi"]


def test_deleted_folder_is_pruned(videos, run_index, rows_of):
    run_index(videos)
    shutil.rmtree(videos / "sub")
    assert run_index(videos, prune=True).removed == 1
    assert names(rows_of()) == ["a.mp4", "b.mkv"]
