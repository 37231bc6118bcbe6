"""The cache of verified copies."""

from __future__ import annotations

import hashlib
import os

import pytest

from indexer.storage import DamagedCopyError, verified_copy, write_whole


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_local_file_is_its_own_copy(tmp_path):
    write_whole(tmp_path / "x", b"data")
    assert verified_copy(tmp_path / "x", sha256(b"data")) == tmp_path / "x"
    with pytest.raises(DamagedCopyError):
        verified_copy(tmp_path / "x", sha256(b"other"))


def test_object_is_downloaded_once(bucket, s3, tmp_path):
    write_whole(bucket / "x", b"data")
    first = verified_copy(bucket / "x", sha256(b"data"))
    second = verified_copy(bucket / "x", sha256(b"data"))
    assert first == second
    assert first.parent == tmp_path / "cache"
    assert first.read_bytes() == b"data"
    assert len([request for request in s3.requests if request.method == "GET"]) == 1


def test_damaged_copy_is_downloaded_again(bucket):
    write_whole(bucket / "x", b"data")
    verified_copy(bucket / "x", sha256(b"data")).write_bytes(b"dat")
    assert verified_copy(bucket / "x", sha256(b"data")).read_bytes() == b"data"


def test_damaged_object_is_not_kept(bucket, tmp_path):
    write_whole(bucket / "x", b"other")
    with pytest.raises(DamagedCopyError):
        verified_copy(bucket / "x", sha256(b"data"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_drops_what_was_used_longest_ago(bucket, monkeypatch):
    monkeypatch.setenv("VIDEOBERT_CACHE_BYTES", "250")
    contents = [bytes([n]) * 100 for n in range(3)]
    copies = []
    for age, content in zip((300, 100, 0), contents, strict=True):
        write_whole(bucket / "x", content)
        copies.append(verified_copy(bucket / "x", sha256(content)))
        os.utime(copies[-1], (copies[-1].stat().st_mtime - age,) * 2)
    assert [copy.exists() for copy in copies] == [False, True, True]


@pytest.fixture
def large_file(tmp_path, monkeypatch):
    """A file that counts as large; returns it, and a list of the files that were read since."""
    monkeypatch.setattr("indexer.storage.copies._LARGE_BYTES", 4)
    monkeypatch.setenv("VIDEOBERT_CACHE_DIR", str(tmp_path / "cache"))
    read = []

    def checksum(path):
        read.append(path)
        return sha256(path.read_bytes())

    monkeypatch.setattr("indexer.storage.copies._sha256", checksum)
    (tmp_path / "x").write_bytes(b"large data")
    return tmp_path / "x", read


def test_a_large_file_is_read_once_while_it_stays_as_it_is(large_file):
    path, read = large_file
    for _ in range(3):
        assert verified_copy(path, sha256(b"large data")) == path
    assert read == [path]
    verified_copy(path, sha256(b"large data"), read_all=True)
    assert read == [path, path]


@pytest.mark.parametrize("exchange", [False, True])
def test_a_large_file_that_changed_is_noticed_every_time(large_file, exchange):
    path, _ = large_file
    verified_copy(path, sha256(b"large data"))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    if exchange:
        path.unlink()
    with open(path, "wb" if exchange else "r+b") as file:
        file.write(b"LARGE data")
    os.utime(path, ns=times)
    for _ in range(2):
        with pytest.raises(DamagedCopyError):
            verified_copy(path, sha256(b"large data"))


def test_a_large_object_is_downloaded_and_read_once(bucket, large_file):
    _, read = large_file
    write_whole(bucket / "x", b"large data")
    copy = verified_copy(bucket / "x", sha256(b"large data"))
    del read[:]
    for _ in range(3):
        assert verified_copy(bucket / "x", sha256(b"large data")) == copy
    assert len(read) <= 1, "the download itself was compared before it got its name"
