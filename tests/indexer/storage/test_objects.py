"""Files and objects through one set of functions."""

from __future__ import annotations

import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from indexer.errors import StorageError, UsageError
from indexer.storage import (
    ObjectPath,
    create_whole,
    location,
    new_file,
    open_binary,
    total_bytes,
    write_whole,
)
from tests.indexer.s3_proxy import Fault


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """A folder of this machine, and one in a bucket: what holds for one holds for the other."""
    if request.param == "folder":
        return tmp_path
    return request.getfixturevalue("bucket") / "a b" / "ä%41#"


def test_location_takes_keys_literally():
    where = location("S3://Bucket.x/a b/%41/ä.mp4")
    assert where == ObjectPath("Bucket.x", "a b/%41/ä.mp4")
    assert (str(where), where.name, str(where.parent)) == (
        "s3://Bucket.x/a b/%41/ä.mp4", "ä.mp4", "s3://Bucket.x/a b/%41"
    )  # fmt: skip
    assert str(location("s3://bucket/") / "x") == "s3://bucket/x"
    assert location("s3:/x") == Path("s3:/x")


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "s3://b/a//b", "s3://b/../x", "s3://b/a/./x", "s3://bucket/\x01"])
def test_location_refuses_what_is_no_address(uri):
    with pytest.raises(UsageError, match="an s3:// address"):
        location(uri)


@pytest.mark.parametrize("uri", ["s3://Hunter1:Hunter2@bucket/x", "s3://Hunter2@bucket", "S3://b:Hunter2"])
def test_location_refuses_credentials_and_does_not_repeat_them(uri):
    with pytest.raises(UsageError, match="must not hold credentials") as caught:
        location(uri)
    assert "Hunter" not in str(caught.value)


def test_whole_files_are_read_back_and_replaced(place):
    write_whole(place / "x", b"one")
    write_whole(place / "x", b"two two")
    assert (place / "x").read_bytes() == b"two two"
    assert (place / "x").stat().st_size == total_bytes(place) == 7
    assert [path.name for path in place.glob("*")] == ["x"]
    assert ((place / "x").exists(), (place / "y").exists(), place.is_dir(), place.is_file()) == (
        True,
        False,
        True,
        False,
    )
    (place / "x").unlink()
    assert not (place / "x").exists()


def test_of_many_that_create_a_file_one_succeeds(place):
    won = []

    def create(content: bytes) -> None:
        try:
            create_whole(place / "lock", content)
            won.append(content)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=create, args=(b"%d" % n,)) for n in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [(place / "lock").read_bytes()] == won


def test_create_succeeds_when_only_its_answer_was_lost(bucket, s3):
    s3.fault = lambda method, key, nth: (
        Fault(503, "SlowDown", after_effect=True) if (method, nth) == ("PUT", 1) else None
    )
    create_whole(bucket / "lock", b"mine")
    assert (bucket / "lock").read_bytes() == b"mine"
    with pytest.raises(FileExistsError):
        create_whole(bucket / "lock", b"theirs")


def test_new_file_appears_only_when_the_block_ends_well(place):
    with pytest.raises(ZeroDivisionError), new_file(place / "x") as path:
        path.write_bytes(b"half" * (1 // 0))
    assert not (place / "x").exists()
    with new_file(place / "x") as path:
        path.write_bytes(b"w" * 100)
        assert not (place / "x").exists()
    assert (place / "x").read_bytes() == b"w" * 100


def test_large_file_goes_up_in_parts_and_comes_back(bucket, s3, tmp_path):
    content = bytes(range(256)) * (20 << 12)  # 20 MiB
    (tmp_path / "large").write_bytes(content)
    (bucket / "large").upload(tmp_path / "large")
    assert sum(request.method == "PUT" for request in s3.requests) > 1
    (bucket / "large").download(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


def test_beginning_lists_one_folder(bucket):
    for name in ("film.mp4", "film.srt", "film.en.vtt", "film-2.srt", "filmed.srt", "afilm.srt"):
        write_whole(bucket / "x" / name, b"x")
    write_whole(bucket / "x" / "film.d" / "film.de.srt", b"x")
    found = (bucket / "x").beginning("film.")
    assert [path.name for path in found] == ["film.en.vtt", "film.mp4", "film.srt"]
    assert [path.facts for path in found] == [(bucket / "x" / path.name).stat() for path in found]


def test_missing_file_raises_as_on_a_disk(place):
    for read in (Path.stat, Path.read_bytes):
        with pytest.raises(FileNotFoundError):
            getattr(place / "none", read.__name__)()
    with pytest.raises(FileNotFoundError):
        open_binary(place / "none")


@pytest.mark.parametrize(
    "fault",
    [Fault(503, "SlowDown"), Fault(500, "InternalError"), Fault(), Fault(after_bytes=1000)],
    ids=["throttled", "error", "reset", "reset-in-body"],
)
def test_passing_faults_are_retried(bucket, s3, fault):
    content = bytes(range(256)) * 1000
    s3.fault = lambda method, key, nth: fault if nth <= 2 and method != "HEAD" else None
    if fault.after_bytes is None:
        write_whole(bucket / "x", content)
    else:
        s3.fault, keep = (lambda *_: None), s3.fault
        write_whole(bucket / "x", content)
        s3.fault = keep
    s3.seen.clear()
    with open_binary(bucket / "x") as file:
        assert file.read() == content
    s3.seen.clear()
    assert (bucket / "x").read_bytes() == content
    assert [path.name for path in bucket.below()] == ["x"]
    assert s3.num_faults >= 4


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(503, "SlowDown"), "the storage keeps answering 503 SlowDown, also after several tries"),
        (Fault(), "does not answer, or breaks off; check AWS_ENDPOINT_URL"),
        (Fault(403, "InvalidAccessKeyId"), "the credentials were refused"),
        (Fault(403, "SignatureDoesNotMatch"), "the credentials were refused"),
        (Fault(403, "AccessDenied"), "access is denied"),
        (Fault(301, "PermanentRedirect"), "lies in another region"),
        (Fault(404, "NoSuchBucket"), "the bucket 'media-[0-9]+' does not exist"),
    ],
)
def test_lasting_faults_are_one_clear_line(bucket, s3, monkeypatch, fault, text):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3.fault = lambda method, key, nth: fault
    for use in (
        lambda: (bucket / "x").read_bytes(),
        lambda: list(bucket.below()),
        lambda: write_whole(bucket / "x", b""),
    ):
        with pytest.raises(StorageError, match=text) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250


def test_missing_bucket_server_and_credentials_are_named(s3, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match=rf"the bucket 'nowhere' does not exist at the endpoint {s3.url}"):
        location("s3://nowhere/x").read_bytes()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"the endpoint http://127.0.0.1:9 does not answer"):
        location("s3://nowhere/x").read_bytes()


def test_key_that_no_library_reads_is_said_so(bucket, s3):

    request = urllib.request.Request(f"{s3.url}/{bucket.bucket}/a//b.mp4", data=b"x", method="PUT")
    urllib.request.urlopen(request).close()
    with pytest.raises(StorageError, match="it holds a key with an empty"):
        list(bucket.below())


def test_missing_credentials_are_said_so(s3, monkeypatch):
    class NoRole(BaseHTTPRequestHandler):
        """The address where a machine learns its role; this one has none."""

        def do_GET(self) -> None:
            self.send_error(404)

        do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            """No log."""

    server = HTTPServer(("127.0.0.1", 0), NoRole)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        location("s3://nowhere/x").read_bytes()
    server.shutdown()
    server.server_close()
