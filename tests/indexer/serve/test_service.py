"""How a service moves on to newer versions, and what it does when videos or the index vanish."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import weakref
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from indexer.errors import UsageError
from indexer.serve.app import build_app
from indexer.serve.service import Service
from indexer.serve.settings import ServeSettings
from indexer.store.index import IndexStore
from tests.indexer.query.conftest import write_colours


def _best(client, query):
    return Path(client.get("/search", params={"query": query, "k": 1}).json()["results"][0]["video"]).name


def _wait_until(holds):
    deadline_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_new_version_is_seen_and_what_has_begun_keeps_its_own(one_video, run_index, serve):
    client, service = serve(refresh_s=0.05)
    before = service.index
    assert _best(client, "blue") == "red.mp4"
    write_colours(one_video / "blue.mp4", "blue", seconds_each=2)
    run_index(one_video)
    _wait_until(lambda: service.index.num_videos == 2)
    assert _best(client, "blue") == "blue.mp4"
    assert client.get("/health/ready").json()["videos"] == 2
    assert Path(before.search("blue", 1).results[0].video).name == "red.mp4"
    _wait_until(lambda: service.index.coverage.uncovered == 0)  # the vector file came after the commit


def test_old_version_is_let_go(one_video, run_index, serve):
    client, service = serve(refresh_s=60)
    client.get("/search?query=red&links=true")
    old = weakref.ref(service.index.snapshot)
    write_colours(one_video / "blue.mp4", "blue", seconds_each=2)
    run_index(one_video)
    assert service.refresh() is True
    client.get("/search?query=red")
    gc.collect()
    assert old() is None


def test_rebuilt_files_are_taken_over_without_a_new_version_of_the_ledger(one_video, serve):
    _, service = serve(refresh_s=60)
    before, version = service.index, service.version
    assert service.refresh() is False
    IndexStore.open(before.path).build_vectors(anew=True)
    assert service.refresh() is True
    assert (service.version, service.index is before) == (version, False)


def test_empty_index_is_served_and_fills(run_index, tmp_path, serve):
    folder = tmp_path / "videos"
    folder.mkdir()
    write_colours(folder / "red.mp4", "red", seconds_each=2)
    run_index(folder)
    (folder / "red.mp4").rename(tmp_path / "red.mp4")
    store = IndexStore.open(tmp_path / "index")
    store.ledger.remove(store.ledger.snapshot().videos["video_id"].to_pylist())
    client, service = serve(refresh_s=60)
    assert client.get("/search?query=red").json() == {"query": "red", "matched": False, "results": []}
    assert client.get("/classify?labels=red").json() == {"moments": 0, "start": 0, "results": []}
    (tmp_path / "red.mp4").rename(folder / "red.mp4")
    run_index(folder)
    assert service.refresh() is True
    assert _best(client, "red") == "red.mp4"


def test_index_that_vanishes_is_asked_as_it_was_and_health_says_so(one_video, tmp_path, serve, caplog):
    client, service = serve(refresh_s=0.05)
    expected = client.get("/health/ready").json()
    shutil.move(tmp_path / "index" / "videos", tmp_path / "away")
    _wait_until(lambda: service.refresh_error is not None)
    answer = client.get("/health/ready").json()
    assert "videos" in answer.pop("refresh_error")
    assert answer == {name: value for name, value in expected.items() if name != "refresh_error"}
    assert client.get("/search?query=red").status_code == 200
    shutil.move(tmp_path / "away", tmp_path / "index" / "videos")
    _wait_until(lambda: service.refresh_error is None)
    assert client.get("/health/ready").json() == expected
    assert [record.levelname for record in caplog.records if "cannot be read again" in record.message] == ["WARNING"]


def test_clip_of_a_file_that_is_gone_or_broken_is_one_line(one_video, serve):
    client, _ = serve()
    moment = client.get("/search?query=red&k=1&links=true").json()["results"][0]
    (one_video / "red.mp4").write_bytes(b"no video")
    for _ in range(2):
        answer = client.get(moment["clip"])
        assert answer.status_code == 422
        assert "\n" not in answer.json()["error"]
        (one_video / "red.mp4").unlink(missing_ok=True)
    assert client.get(moment["thumbnail"]).status_code == 200  # that is in the index


def test_clip_that_takes_too_long_is_given_up(served_folder, serve):
    client, _ = serve(served_folder / "index", clip_timeout_s=0.001)
    moment = client.get("/search?query=red&k=1&links=true").json()["results"][0]
    answer = client.get(moment["clip"])
    assert (answer.status_code, "more than 0.001 s" in answer.json()["error"]) == (422, True)


def test_service_on_localhost_answers_to_its_own_names_only(served_folder, serve):
    client, _ = serve(served_folder / "index", allowed_hosts=("localhost", "127.0.0.1", "[::1]"))
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000"):
        assert client.get("/health/live", headers={"host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", ""):
        answer = client.get("/search?query=red", headers={"host": host})
        assert (answer.status_code, list(answer.json())) == (421, ["error"])


def test_hostile_name_arrives_as_escaped_ascii(run_index, tmp_path, serve):
    folder = tmp_path / "videos"
    folder.mkdir()
    name = "<img src=x>\u202e\x1b[31m ä.mp4"
    write_colours(folder / name, "red", seconds_each=2)
    run_index(folder)
    client, _ = serve()
    answer = client.get("/search?query=red")
    assert answer.content.isascii()
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["results"][0]["video"].endswith(name)


def test_too_many_clips_are_refused_for_a_second(served_folder, serve, monkeypatch):
    go, started = threading.Event(), threading.Event()

    def cut(*_):
        started.set()
        go.wait(20)
        return b"clip"

    monkeypatch.setattr("indexer.serve.service.cut_clip", cut)
    client, _ = serve(served_folder / "index", max_clips=1, max_waiting_clips=0)
    address = client.get("/search?query=red&k=1&links=true").json()["results"][0]["clip"]
    answers = []
    first = threading.Thread(target=lambda: answers.append(client.get(address)))
    first.start()
    assert started.wait(20)
    refused = client.get(f"{address.split('?')[0]}?start_s=0&end_s=1")  # the same clip would be waited for
    go.set()
    first.join()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert answers[0].content == b"clip"


@pytest.mark.slow
def test_index_and_videos_in_a_bucket_are_served(one_video, run_index, bucket, upload):
    upload(one_video, bucket / "videos")
    run_index(bucket / "videos", into=bucket / "index")
    service = Service(bucket / "index", ServeSettings(bucket_refresh_s=0.2))
    with TestClient(build_app(service), raise_server_exceptions=False) as client:
        moment = client.get("/search?query=red&k=1&links=true").json()["results"][0]
        assert moment["video"].startswith("s3://")
        assert client.get(moment["clip"]).content[4:8] == b"ftyp"
        write_colours(one_video / "blue.mp4", "blue", seconds_each=2)
        upload(one_video, bucket / "videos")
        run_index(bucket / "videos", into=bucket / "index")
        _wait_until(lambda: service.index.num_videos == 2)
        assert _best(client, "blue") == "blue.mp4"


@pytest.mark.parametrize("name", ["refresh_s", "bucket_refresh_s", "max_batch", "max_waiting", "max_clips"])
def test_limit_of_zero_is_refused(name):
    with pytest.raises(UsageError, match=f"{name} must be above 0, got 0"):
        ServeSettings(**{name: 0})
