"""Work is cut as it is read: the batches are those of a sorted list, and nobody holds all of it."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections.abc import Collection, Iterator

import pytest

from indexer import parts
from indexer.batches import EncoderSettings, make_batches
from indexer.config import SamplingConfig
from indexer.ingest.files import VideoFile
from indexer.parts import cut_long_videos
from indexer.work import WorkItem, in_order_of_work, work_order

_MIB = 1 << 20
SETTINGS = EncoderSettings(index_path="", model="tiny_test", sampling=SamplingConfig())


def item(number: int, size_bytes: int, **facts) -> WorkItem:
    return WorkItem(
        file=VideoFile(uri=f"/v/{number:06}", path=f"/v/{number}", size_bytes=size_bytes, mtime_ns=0), **facts
    )


class Read(Collection[WorkItem]):
    """Items that are made anew whenever they are gone through, as if from a disk."""

    def __init__(self, count: int, size_bytes: int = 1000) -> None:
        self._count, self._size_bytes = count, size_bytes
        self.num_read = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[WorkItem]:
        for number in range(self._count):
            self.num_read += 1
            yield item(number, self._size_bytes)

    def __contains__(self, item: object) -> bool:
        raise NotImplementedError


def reference_batches(items, num_workers):
    """At most 8 videos and 32 MiB but for single ones, or 64 and 2 MiB; a third of a worker's share of what is left;
    parts alone."""
    waiting = sorted(items, key=lambda item: (-item.size_bytes, item.file.uri, item.part.number if item.part else 0))
    batches = []
    while waiting:
        count, share = 1, max(1, -(-len(waiting) // (3 * num_workers)))
        while not waiting[0].part and count < min(share, len(waiting)) and not waiting[count].part:
            size_bytes = sum(item.size_bytes for item in waiting[: count + 1])
            if (count >= 8 or size_bytes > 32 * _MIB) and (count >= 64 or size_bytes > 2 * _MIB):
                break
            count += 1
        batches.append(waiting[:count])
        del waiting[:count]
    return batches


@pytest.fixture
def lengths_s(monkeypatch):
    """What videos say of their length, by URI; a long one is a few MiB here."""
    known: dict[str, float] = {}
    monkeypatch.setattr(parts, "_MIN_PART_BYTES", 2 * _MIB)
    monkeypatch.setattr(parts, "_length_s", lambda item, settings: known[item.file.uri])
    return known


@pytest.mark.parametrize("num_workers", [1, 2, 5])
@pytest.mark.parametrize("seed", range(8))
def test_batches_are_those_of_a_sorted_list(seed, num_workers, lengths_s):
    drawn = random.Random(seed)
    sizes = [drawn.choice([1, 1000, _MIB, drawn.randrange(50 * _MIB)]) for _ in range(drawn.randrange(1, 150))]
    shuffled = [item(n, size, is_retold=drawn.random() < 0.2) for n, size in enumerate(sizes)]
    lengths_s |= {each.file.uri: drawn.choice([0.0, 100.0, 2000.0, 9000.0]) for each in shuffled}
    items = sorted(shuffled, key=work_order)
    cut = cut_long_videos(items, num_workers, SETTINGS)
    assert list(cut) == list(cut) == sorted(cut, key=work_order)
    assert len(cut) == len(list(cut))
    assert list(make_batches(cut, num_workers)) == reference_batches(drawn.sample(list(cut), len(cut)), num_workers)


def test_order_of_files_on_the_disk_is_that_of_items():
    drawn = random.Random(2)
    names = ["/v/b", "/v/a", "/v/\N{CLAPPER BOARD}", "/v/\N{FULLWIDTH LATIN SMALL LETTER A}", "/v/é", "/V/a", "/v/a/b"]
    items = [WorkItem(file=VideoFile(uri=uri, path=uri, size_bytes=drawn.randrange(2), mtime_ns=0)) for uri in names]
    files = in_order_of_work(each.file for each in items)
    assert list(files) == [each.file for each in sorted(items, key=work_order)]


def test_of_each_video_there_are_all_parts_or_the_whole(lengths_s):
    drawn = random.Random(1)
    sizes = [drawn.randrange(60 * _MIB) >> n % 9 for n in range(60)]
    items = sorted((item(n, size, is_retold=n % 5 == 0) for n, size in enumerate(sizes)), key=work_order)
    lengths_s |= {each.file.uri: drawn.choice([0.0, 5000.0]) for each in items}
    cut = cut_long_videos(items, 14, SETTINGS)
    found = {
        uri: [each.part for each in those]
        for uri, those in itertools.groupby(sorted(cut, key=lambda each: each.file.uri), lambda each: each.file.uri)
    }
    assert found.keys() == {each.file.uri for each in items}
    for each in items:
        of_one = found[each.file.uri]
        if of_one == [None]:
            continue
        assert not each.is_retold
        assert lengths_s[each.file.uri]
        assert sorted(part.number for part in of_one) == list(range(of_one[0].num_parts))
    assert sum(of_one != [None] for of_one in found.values()) >= 5


def test_no_more_than_so_many_videos_are_opened_for_their_length(lengths_s, monkeypatch):
    monkeypatch.setattr(parts, "_MAX_PROBED", 3)
    items = [item(n, (30 - n) * _MIB) for n in range(10)]
    lengths_s |= {each.file.uri: 9000.0 for each in items[:3]}  # any other would be a KeyError
    cut = {each.file.uri for each in cut_long_videos(items, 10, SETTINGS) if each.part}
    assert cut == {each.file.uri for each in items[:3]}


def test_items_are_read_as_the_batches_are_taken():
    items = Read(1000)
    batches = make_batches(items, 2)
    assert items.num_read == 0
    for _ in range(3):
        next(batches)
    assert items.num_read <= 3 * 64 + 1


@pytest.mark.parametrize("num_workers", [1, 2])
def test_memory_of_cutting_the_work_does_not_grow_with_it(num_workers):
    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        try:
            num_items = sum(
                len(batch) for batch in make_batches(cut_long_videos(Read(count), num_workers, SETTINGS), 2)
            )
            assert num_items == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(100)
    assert peak_bytes(50_000) < peak_bytes(1000) + 50_000
