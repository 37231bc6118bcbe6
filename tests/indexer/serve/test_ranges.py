"""Clips in parts, as players ask for them."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor

import av
import pytest

from indexer.serve import service as service_module
from indexer.serve.ranges import entity_tag, ranged_answer
from indexer.serve.service import Service
from tests.indexer.query.conftest import write_colours

DATA = bytes(range(256)) * 4
TAG = entity_tag(DATA)
SIZE = len(DATA)


@pytest.fixture
def clip(one_video, serve):
    """A client, and the address of a clip."""
    client, _ = serve()
    found = client.get("/search?query=red&links=true").json()["results"][0]["clip"]
    return client, found


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-1", 0, 2),  # Safari's first question
        ("bytes=100-", 100, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        (f"bytes=-{SIZE + 1}", 0, SIZE),
        (f"bytes=1000-{10 * SIZE}", 1000, SIZE),
        ("Bytes=5-5", 5, 6),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
    ],
)
def test_part_is_that_of_the_bytes(asked, start, end):
    answer = ranged_answer(DATA, TAG, {"range": asked}, "video/mp4", {})
    assert (answer.status_code, answer.body) == (206, DATA[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
def test_part_beyond_the_end_is_refused_with_the_size(asked):
    answer = ranged_answer(DATA, TAG, {"range": asked}, "video/mp4", {})
    assert (answer.status_code, answer.body) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize("asked", ["bytes=-", "bytes=5-2", "bytes=0-1,5-6", "items=0-1", "bytes=a-b", "", "bytes=٣-"])
def test_header_that_is_no_single_range_is_answered_by_all(asked):
    answer = ranged_answer(DATA, TAG, {"range": asked}, "video/mp4", {})
    assert (answer.status_code, answer.body) == (200, DATA)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-range": TAG}, 206),
        ({"if-range": '"another"'}, 200),
        ({"if-range": f"W/{TAG}"}, 200),
        ({"if-range": "Wed, 21 Oct 2015 07:28:00 GMT"}, 200),
        ({"if-none-match": f'"another", {TAG}'}, 304),
        ({"if-none-match": f"W/{TAG}"}, 304),
        ({"if-none-match": '"another"'}, 206),
    ],
)
def test_conditions_compare_the_tag(headers, status):
    answer = ranged_answer(DATA, TAG, {"range": "bytes=0-1", **headers}, "video/mp4", {})
    assert (answer.status_code, answer.headers["etag"]) == (status, TAG)


def test_player_puts_a_clip_together_from_parts_and_it_is_cut_once(clip, monkeypatch):
    client, address = clip
    cuts = []
    cut = service_module.cut_clip
    monkeypatch.setattr(service_module, "cut_clip", lambda *args: cuts.append(args) or cut(*args))
    first = client.get(address, headers={"Range": "bytes=0-1"})
    assert (first.status_code, first.headers["accept-ranges"], len(first.content)) == (206, "bytes", 2)
    size = int(first.headers["content-range"].rsplit("/", 1)[1])
    parts = [
        client.get(address, headers={"Range": f"bytes={at}-{at + 999}", "If-Range": first.headers["etag"]})
        for at in range(0, size, 1000)
    ]
    assert {part.status_code for part in parts} == {206}
    whole = b"".join(part.content for part in parts)
    assert (client.get(address).content, len(cuts)) == (whole, 1)
    with av.open(io.BytesIO(whole)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 0
    assert client.get(address, headers={"Range": f"bytes={size}-"}).status_code == 416
    assert client.get(address, headers={"If-None-Match": first.headers["etag"]}).status_code == 304


def test_head_says_what_get_would_without_the_clip(clip):
    client, address = clip
    head, get = client.head(address), client.get(address)
    assert (head.status_code, head.content) == (200, b"")
    names = ("accept-ranges", "content-length", "content-type", "etag")
    assert [head.headers[name] for name in names] == [get.headers[name] for name in names]


def test_requests_for_the_same_clip_at_once_cut_it_once(clip, monkeypatch):
    client, address = clip
    cuts = []
    cut = service_module.cut_clip
    monkeypatch.setattr(service_module, "cut_clip", lambda *args: cuts.append(args) or cut(*args))
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: client.get(address), range(4)))
    assert {answer.content for answer in answers} == {answers[0].content}
    assert len(cuts) == 1


def test_video_that_was_indexed_again_is_cut_again_and_failures_are_not_kept(one_video, run_index, serve):
    client, service = serve()
    address = client.get("/search?query=red&links=true").json()["results"][0]["clip"]
    before = client.get(address)
    write_colours(one_video / "red.mp4", "blue", seconds_each=2)
    run_index(one_video)
    service.refresh()
    after = client.get(address)
    assert after.status_code == 200
    assert after.headers["etag"] != before.headers["etag"]
    (one_video / "red.mp4").rename(one_video / "away.mp4")
    other = address + "5"
    assert client.get(other).status_code == 422
    (one_video / "away.mp4").rename(one_video / "red.mp4")
    assert client.get(other).status_code == 200


def test_clips_kept_in_memory_are_bounded(one_video, serve):
    client, service = serve(clip_cache_bytes=10_000)
    address = client.get("/search?query=red&links=true").json()["results"][0]["clip"].split("?")[0]
    for number in range(8):
        assert client.get(f"{address}?start_s=0&end_s={1 + number / 10}").status_code == 200
        assert service._clips.num_bytes <= 10_000


def test_waiter_that_leaves_does_not_take_the_clip_from_the_others(one_video, tmp_path):
    service = Service(tmp_path / "index")
    segment_id = service.index.search("red").results[0].segment_id

    async def ask() -> bytes:
        async with service.running():
            leaving = asyncio.create_task(service.clip(segment_id, 0.0, 1.0))
            staying = asyncio.create_task(service.clip(segment_id, 0.0, 1.0))
            await asyncio.sleep(0.01)
            leaving.cancel()
            return (await staying).data

    assert b"ftyp" in asyncio.run(ask())[:16]
