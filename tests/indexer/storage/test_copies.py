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
