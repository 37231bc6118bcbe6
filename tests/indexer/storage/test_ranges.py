"""Reading objects by ranges, against the same bytes in memory."""

from __future__ import annotations

import io
import random

import pytest

from indexer.errors import StorageError
from indexer.storage import RangeReader, open_binary, write_whole
from indexer.storage.ranges import BLOCK_BYTES
from tests.indexer.s3_proxy import Fault

SIZE = 40 * BLOCK_BYTES + 12345


@pytest.fixture
def content() -> bytes:
    return random.Random(0).randbytes(SIZE)


@pytest.fixture
def large(bucket, s3, content):
    write_whole(bucket / "large", content)
    s3.requests.clear()
    return bucket / "large"


def test_reads_anywhere_what_a_file_in_memory_has(large, content):
    ours, theirs, draw = RangeReader(large), io.BytesIO(content), random.Random(1)
    for _ in range(300):
        whence = draw.choice([0, 0, 1, 2])
        offset = draw.randrange(-SIZE, 1) if whence == 2 else draw.randrange(SIZE + 1000) if whence == 0 else 7
        assert ours.seek(offset, whence) == theirs.seek(offset, whence)
        num_bytes = draw.choice([0, 1, 10, 5000, BLOCK_BYTES, 3 * BLOCK_BYTES])
        assert ours.read(num_bytes) == theirs.read(num_bytes)
        assert ours.tell() == theirs.tell()


def test_reading_on_fetches_each_byte_once_in_few_requests(large, content, s3):
    with open_binary(large) as file:
        assert b"".join(iter(lambda: file.read(32768), b"")) == content
    assert s3.num_bytes("large") == SIZE
    assert len(s3.requests) <= 8


def test_two_places_read_in_turns_fetch_each_byte_once(large, content, s3):
    reader, half = RangeReader(large), SIZE // 2
    for at in range(0, half, 50_000):
        for start in (at, half + at):
            reader.seek(start)
            assert reader.read(min(50_000, half - at)) == content[start : start + min(50_000, half - at)]
    assert s3.num_bytes("large") <= SIZE
    assert len(s3.requests) <= 20


def test_a_look_at_both_ends_fetches_little(large, s3):
    reader = RangeReader(large)
    reader.read(100)
    reader.seek(-100, 2)
    reader.read(100)
    assert s3.num_bytes("large") <= 4 * BLOCK_BYTES


def test_object_replaced_meanwhile_is_an_error_not_a_mixture(large, content):
    reader = RangeReader(large)
    reader.read(10)
    write_whole(large, content[::-1])
    reader.seek(20 * BLOCK_BYTES)
    with pytest.raises(StorageError, match="replaced while it was read"):
        reader.read(10)
    assert reader.error is not None


def test_short_answer_is_an_error(large, s3, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    reader = RangeReader(large)
    s3.fault = lambda method, key, nth: Fault(after_bytes=100_000)
    with pytest.raises(StorageError, match="does not answer, or breaks off"):
        reader.read(10)
