"""Rows in a temporary file: in order, found by their keys, and not in memory."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import tracemalloc

import pytest

from indexer.errors import StorageError
from indexer.ingest.files import VideoFile
from indexer.ingest.on_disk import OnDisk
from indexer.work import in_order_of_work

NAMES = ["a", "a b", "B", "é", "z\u00fc", "\U0001f3ac", "caf\udce9", "a/x.mp4", "a.mp4", "日本"]


def file(uri: str, size_bytes: int = 1, **facts) -> VideoFile:
    return VideoFile(uri=uri, path=uri, size_bytes=size_bytes, mtime_ns=1_700_000_000_123_456_789, **facts)


def test_rows_come_back_as_they_were_in_order_of_their_names():
    files = [
        file(name, size_bytes=number, subtitles=None if number % 2 else ".srt") for number, name in enumerate(NAMES)
    ]
    kept = OnDisk(VideoFile)
    assert not kept
    kept.add_all(random.Random(0).sample(files, len(files)))

    assert kept
    assert len(kept) == len(NAMES)
    assert list(kept) == sorted(files, key=lambda file: os.fsencode(file.uri))
    assert [kept.get(name) for name in NAMES] == files
    assert kept.get("c") is None
    assert files[3] in kept
    assert file("c") not in kept


def test_row_with_the_same_key_takes_the_place_of_the_other():
    kept = OnDisk(VideoFile)
    kept.add(file("a", 1), file("b", 2))
    kept.add(file("a", 3))
    assert list(kept) == [file("a", 3), file("b", 2)]


def test_rows_whose_key_begins_with_a_text():
    kept = OnDisk(VideoFile)
    kept.add_all(map(file, ["f/a", "f/a.", "f/a.srt", "f/a.\U0001f3ac.srt", "f/a.\udce9", "f/a/b", "f/ab.srt", "f/b"]))
    assert [row.uri for row in kept.beginning("f/a.")] == ["f/a.", "f/a.srt", "f/a.\udce9", "f/a.\U0001f3ac.srt"]


def test_files_in_order_of_work_are_the_largest_of_the_first():
    files = [file(f"{number:03}", size_bytes=number % 7) for number in range(100)]
    expected = sorted(files[:50], key=lambda file: (-file.size_bytes, file.uri))
    assert list(in_order_of_work(files, 50)) == expected
    assert len(in_order_of_work(files)) == 100


def test_memory_does_not_grow_with_the_rows():
    def peak_bytes(count: int) -> int:
        before = resident_bytes()
        tracemalloc.start()
        kept = OnDisk(VideoFile)
        kept.add_all(file(f"/some/folder/with/a/longish/name/{number:09}.mp4") for number in range(count))
        assert sum(1 for _ in kept) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak + max(0, resident_bytes() - before)

    peak_bytes(20_000)  # the cache is full
    assert peak_bytes(100_000) - peak_bytes(20_000) < 80_000 * 20  # as objects some 600 bytes each


def resident_bytes() -> int:
    with open("/proc/self/statm") as facts:
        return int(facts.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_threads_may_read_and_add_at_once():
    kept, others = OnDisk(VideoFile), OnDisk(VideoFile)
    kept.add_all(file(f"{number:05}") for number in range(5000))
    seen: list[int] = []

    def read() -> None:
        seen.append(sum(kept.get(row.uri) == row for row in kept))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    others.add_all(kept)
    for thread in threads:
        thread.join()
    assert (seen, len(others)) == ([5000] * 3, 5000)


def test_full_disk_is_told_in_one_line(monkeypatch):
    kept = OnDisk(VideoFile)
    kept._connection.execute("PRAGMA max_page_count = 4")  # SQLite says the same when the disk is full
    with pytest.raises(StorageError, match="temporary file: database or disk is full; make room") as caught:
        kept.add_all(file(f"{number:050}") for number in range(5000))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, sqlite3.Error)
