"""Sources and indexes in buckets, against a real HTTP server: the same rows as from folders."""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from indexer.config import RunConfig
from indexer.errors import IndexFormatError, SourceError, StorageError
from indexer.export import export_moments
from indexer.pipeline import retry_videos
from indexer.query.diversity import Diversity
from indexer.query.video_index import VideoIndex
from indexer.storage import ObjectPath
from indexer.store.compact import compact
from indexer.store.drop import drop_damaged
from indexer.store.index import IndexStore
from indexer.store.report import describe
from indexer.store.verify import repair_vectors, verify
from tests.indexer.s3_proxy import SECRET, Fault

_NAMELESS = ["start_s", "end_s", "embedding", "labels", "transcript", "thumbnail", "num_frames", "frame_times_s"]


def counts(run: Any) -> dict[str, int]:
    return {name: value for name, value in run.to_dict().items() if name not in ("wall_s", "video_s")}


@pytest.fixture
def clips(bucket: ObjectPath, videos: Path, upload: Any) -> ObjectPath:
    """The folder `videos` in a bucket."""
    upload(videos, bucket / "clips")
    return bucket / "clips"


def test_index_in_a_bucket_of_videos_in_a_bucket_holds_the_rows_of_a_local_one(
    clips, bucket, videos, run_index, rows_of
):
    run_index(videos)

    run = run_index(clips, into=bucket / "my index")

    assert counts(run) == {"indexed": 3, "unchanged": 0, "failed": 0, "removed": 0, "segments": 4}
    assert rows_of(bucket / "my index", _NAMELESS) == rows_of("index", _NAMELESS)
    assert [row["uri"] for row in rows_of(bucket / "my index")] == [
        f"{clips}/a.mp4", f"{clips}/a.mp4", f"{clips}/b.mkv", f"{clips}/sub/c.avi"
    ]  # fmt: skip
    store = IndexStore.open(str(bucket / "my index"))
    assert verify(store) == []
    facts = describe(store)
    assert (facts["index"], facts["segments"], facts["vectors"]["covered"]) == (str(bucket / "my index"), 4, 4)
    assert facts["size_bytes"] == sum(path.stat().st_size for path in (bucket / "my index").below())


def test_bucket_into_folder_and_folder_into_bucket(clips, bucket, videos, run_index, rows_of):
    run_index(clips, into="of-bucket")
    run_index(videos, into=bucket / "of-folder")

    assert rows_of("of-bucket", _NAMELESS) == rows_of(bucket / "of-folder", _NAMELESS)
    assert {row["uri"].split("://")[0] for row in rows_of("of-bucket")} == {"s3"}
    assert all(row["uri"].startswith("/") for row in rows_of(bucket / "of-folder"))


def test_second_run_reads_no_video(clips, bucket, run_index, s3):
    run_index(clips, into=bucket / "index")
    s3.requests.clear()

    assert counts(run_index(clips, into=bucket / "index"))["unchanged"] == 3
    assert [request for request in s3.requests if request.method == "GET" and request.key.startswith("clips/")] == []


def test_changed_object_is_noticed_even_at_the_same_size_and_time(bucket, videos, run_index, rows_of, upload, tmp_path):
    content = (videos / "a.mp4").read_bytes()
    (bucket / "v" / "a.mp4").write_bytes(content)
    run_index(bucket / "v", into="index")
    before = IndexStore.open(tmp_path / "index").ledger.snapshot().videos.to_pylist()[0]

    (bucket / "v" / "a.mp4").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert counts(run_index(bucket / "v", into="index"))["indexed"] == 1

    after = IndexStore.open(tmp_path / "index").ledger.snapshot().videos.to_pylist()[0]
    assert before["fingerprint"].startswith("etag:")
    assert before["fingerprint"].endswith(f":{len(content)}")
    assert after["fingerprint"] != before["fingerprint"]
    assert after["size_bytes"] == before["size_bytes"]


def test_copied_object_takes_over_the_moments_unread(bucket, videos, run_index, rows_of, upload, s3):
    upload(videos, bucket / "v")
    run_index(bucket / "v", into=bucket / "index")
    before = rows_of(bucket / "index", _NAMELESS)
    for name in ("b.mkv", "b.srt"):
        (bucket / "v" / f"moved-{name}").write_bytes((bucket / "v" / name).read_bytes())
        (bucket / "v" / name).unlink()
    s3.requests.clear()

    run = run_index(bucket / "v", into=bucket / "index", prune=True)

    assert (run.indexed, run.removed) == (1, 1)
    assert s3.num_bytes("v/moved-b.mkv") == 0
    assert rows_of(bucket / "index", _NAMELESS) == before
    assert {row["uri"].rpartition("/")[2] for row in rows_of(bucket / "index")} == {"a.mp4", "moved-b.mkv", "c.avi"}


def test_index_in_a_bucket_is_searched_exported_and_looked_after(clips, bucket, run_index, s3, tmp_path):
    (clips / "broken.mp4").write_bytes(b"no video" * 100)
    assert run_index(clips, into=bucket / "index").failed == 1
    store = IndexStore.open(bucket / "index")
    index = VideoIndex.open(str(bucket / "index"))

    found = index.search("blocks", k=10, diversity=Diversity(collapse=False)).results
    assert {moment.video for moment in found} == {f"{clips}/a.mp4", f"{clips}/b.mkv", f"{clips}/sub/c.avi"}
    assert index.thumbnail(found[0].segment_id).startswith(b"\xff\xd8")
    assert b"ftyp" in index.clip(f"{clips}/a.mp4", 3, 5)[:40]
    assert export_moments(store, tmp_path / "out.parquet") == export_moments(store, str(bucket / "out.parquet")) == 4
    assert (bucket / "out.parquet").read_bytes() == (tmp_path / "out.parquet").read_bytes()

    (clips / "broken.mp4").write_bytes((clips / "a.mp4").read_bytes())
    retried = retry_videos(str(bucket / "index"), run=RunConfig(), in_process=True)
    assert (retried.indexed, retried.failed) == (1, 0)
    report = compact(IndexStore.open(bucket / "index"), older_than_hours=0)
    assert (report.files_after, report.rows_dropped) == (1, 0)
    assert report.files_deleted >= 2
    assert [path.name for path in (bucket / "index").iterdir() if path.name.startswith(".")] == []
    assert index.reload()
    assert (index.num_videos, index.num_segments, index.coverage.uncovered) == (4, 6, 0)


def test_damaged_vectors_in_a_bucket_are_noticed_and_rebuilt(clips, bucket, run_index, tmp_path):
    run_index(clips, into=bucket / "index")
    (vectors,) = (bucket / "index").glob("vectors/*.faiss")
    content = vectors.read_bytes()
    vectors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # as on another machine

    assert any("is damaged" in problem for problem in verify(IndexStore.open(bucket / "index")))
    assert repair_vectors(IndexStore.open(bucket / "index"))
    assert verify(IndexStore.open(bucket / "index")) == []


@pytest.mark.slow
def test_damaged_moments_in_a_bucket_are_taken_out_and_come_back(clips, bucket, run_index, rows_of):
    run_index(clips, into=bucket / "index")
    before = rows_of(bucket / "index", _NAMELESS)
    cut, missing, *_ = sorted((bucket / "index").glob("segments/*.parquet"))
    cut.write_bytes(cut.read_bytes()[:-50])
    missing.unlink()
    with pytest.raises(IndexFormatError, match="videobert verify --repair"):
        IndexStore.open(bucket / "index").snapshot()

    dropped = drop_damaged(IndexStore.open(bucket / "index"))

    assert dropped is not None
    assert dropped.files == [str(cut), str(missing)]
    run = run_index(clips, into=bucket / "index")
    assert run.indexed == len(dropped.videos) > 0
    assert rows_of(bucket / "index", _NAMELESS) == before
    assert verify(IndexStore.open(bucket / "index")) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(503, "SlowDown"),
        pytest.param(Fault(403, "AccessDenied"), marks=pytest.mark.slow),
        pytest.param(Fault(after_bytes=10), marks=pytest.mark.slow),
    ],
)
def test_moments_that_a_bucket_does_not_give_now_are_not_damaged(clips, bucket, run_index, s3, monkeypatch, fault):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    run_index(clips, into=bucket / "index")
    store = IndexStore.open(bucket / "index")
    before = store.state()
    s3.fault = lambda method, key, nth: fault if "segments/part-" in key and method == "GET" else None
    with pytest.raises((StorageError, IndexFormatError)):
        drop_damaged(store)
    s3.reset()
    assert store.state() == before
    assert verify(store) == []


def test_globs_and_manifests_name_objects(clips, bucket, run_index, rows_of, tmp_path):
    (bucket / "lists" / "some.csv").write_bytes(f"path\n{clips}/a.mp4\n../clips/b.mkv\n{clips}/none.mp4\n".encode())

    run = run_index(f"{clips}/**/*.avi", bucket / "lists" / "some.csv", into="index")

    assert (run.indexed, run.failed) == (3, 1)
    assert sorted({row["uri"] for row in rows_of("index")}) == [f"{clips}/{n}" for n in ("a.mp4", "b.mkv", "sub/c.avi")]
    assert run_index(f"{clips}/*.mp4", into="other").indexed == 1


@pytest.mark.parametrize("missing", ["none", "none/*.mp4", "none.mp4"])
def test_source_that_is_not_there_is_said_so(clips, run_index, missing):
    with pytest.raises(SourceError, match=r"there is no object|matches no object"):
        run_index(clips / missing)


def test_two_indexers_into_one_bucket_lose_nothing(bucket, videos, run_index, rows_of, synthetic):
    for number in range(6):
        synthetic.write(f"videos/{number}.mp4", range(0, 1000, 100), numbers=range(number, number + 10))
    errors: list[BaseException] = []

    def run(*sources: Any) -> None:
        try:
            run_index(*sources, into=bucket / "index", commit_interval_s=0.001)
        except BaseException as error:
            errors.append(error)

    names = sorted(path for path in videos.rglob("*") if path.suffix != ".srt" and path.is_file())
    threads = [threading.Thread(target=run, args=names[start:stop]) for start, stop in ((0, 6), (3, 9))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

    assert errors == []
    run_index(videos)
    assert rows_of(bucket / "index") == rows_of("index")
    assert verify(IndexStore.open(bucket / "index")) == []


@pytest.mark.slow
def test_index_survives_throttling_errors_and_resets(clips, bucket, videos, run_index, rows_of, s3):
    draw = random.Random(3)
    faults = [
        Fault(503, "SlowDown"),
        Fault(500, "InternalError"),
        Fault(),
        Fault(after_bytes=200),
        Fault(after_effect=True),
    ]
    s3.fault = lambda method, key, nth: draw.choice(faults) if draw.random() < 0.15 else None

    run_index(clips, into=bucket / "index", commit_interval_s=0.001)

    assert s3.num_faults > 10
    assert IndexStore.open(bucket / "index").ledger.snapshot().failed.to_pylist() == []
    s3.reset()
    run_index(videos)
    assert rows_of(bucket / "index", _NAMELESS) == rows_of("index", _NAMELESS)
    assert verify(IndexStore.open(bucket / "index")) == []


def test_lasting_fault_of_one_video_is_its_failure(clips, run_index, s3, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3.fault = lambda method, key, nth: Fault(503, "SlowDown") if key == "clips/a.mp4" and method == "GET" else None

    run = run_index(clips)

    assert (run.indexed, run.failed) == (2, 1)
    (row,) = IndexStore.open(tmp_path / "index").ledger.snapshot().failed.to_pylist()
    assert (row["error_stage"], row["error_kind"]) == ("read", "StorageError")
    assert "keeps answering 503 SlowDown" in row["error_message"]


@pytest.mark.slow
def test_lasting_fault_of_the_index_ends_the_run_and_the_next_one_goes_on(clips, bucket, run_index, s3, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    run_index(clips / "sub", into=bucket / "index")
    for part in ("segments/part", "segments/_delta", "videos/part", "videos/_delta"):
        s3.fault = lambda method, key, nth, part=part: (
            Fault(503, "SlowDown") if key.startswith(f"index/{part}") and method == "PUT" else None
        )
        with pytest.raises(StorageError, match="keeps answering 503 SlowDown") as caught:
            run_index(clips, into=bucket / "index")
        assert "\n" not in str(caught.value)
    s3.reset()
    assert run_index(clips, into=bucket / "index").indexed == 2


def test_credentials_reach_neither_outputs_nor_the_index(clips, bucket, videobert, s3, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "SESSIONTOKENOFTHETEST")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    caplog.set_level(0)
    into = str(bucket / "index")
    (clips / "broken.mp4").write_bytes(b"no video" * 100)
    said = [
        videobert("index", str(clips), "--into", into, "--model", "tiny_test"),
        videobert("info", into, "--json"),
        videobert("failures", into),
        videobert("search", into, "blocks", "--json"),
        videobert("verify", into),
    ]
    assert [code for code, _, _ in said] == [3, 0, 0, 0, 0]
    for fault in (Fault(403, "SignatureDoesNotMatch"), Fault(503, "SlowDown"), Fault()):
        s3.fault = lambda method, key, nth, fault=fault: fault
        said += [videobert(*verb) for verb in (("index", str(clips), "--into", into), ("search", into, "x"))]
        assert all(code == 1 and len(err.strip().splitlines()) == 1 for code, _, err in said[-2:])
    s3.reset()
    spoilt = f"s3://AKIAEXAMPLEKEYID:{SECRET}@{bucket.bucket}/x"
    (tmp_path / "list.txt").write_text(f"{clips}/a.mp4\n{spoilt}\n")
    for verb in (
        ("index", spoilt, "--into", into),
        ("index", str(clips), "--into", spoilt),
        ("index", str(tmp_path / "list.txt"), "--into", into),
        ("search", spoilt, "x"),
        ("classify", spoilt, "--labels", "a,b"),
        ("remove", into, spoilt),
        ("export", into, spoilt),
    ):
        said.append(videobert(*verb))
        assert said[-1][0] == 2, verb
        assert "must not hold credentials" in said[-1][2]

    stored = b"".join(path.read_bytes() for path in (bucket / "index").below())
    for secret in (SECRET, "SESSIONTOKENOFTHETEST", "AKIAEXAMPLEKEYID"):
        assert secret not in repr(said)
        assert secret.encode() not in stored
        assert secret not in "".join(record.getMessage() for record in caplog.records if record.name != "werkzeug")
