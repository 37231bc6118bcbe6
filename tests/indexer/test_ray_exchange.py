"""Batches and results between a driver and its workers, without Ray; and on Ray, what a real death or stop does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
import tracemalloc
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import ray

from indexer import ray_encoding, ray_exchange, schema
from indexer.batches import EncoderSettings, make_batches
from indexer.config import RunConfig, SamplingConfig
from indexer.errors import WorkerError
from indexer.ingest.files import look_at
from indexer.ray_cluster import ray_cluster
from indexer.ray_encoding import encode_on_ray
from indexer.ray_exchange import Exchange
from indexer.work import BatchResult, WorkItem, work_order
from tests.indexer.test_batches import Read

ROW = BatchResult(videos=schema.VIDEOS.empty_table()).to_row() | {"error": ""}


def run(steps):
    return asyncio.run(steps)


def test_a_batch_is_given_again_until_its_result_has_come_and_is_deadly_in_the_end():
    async def steps():
        exchange = Exchange(num_workers=2)
        waiting = asyncio.ensure_future(exchange.turn(0, "w", None))
        await asyncio.sleep(0)
        _, results = await exchange.swap({7: "seven", 8: "eight"}, is_over=True, known_as=exchange._name)
        assert results == []
        turns = [await waiting] + [await exchange.turn(0, "w", None) for _ in range(4)]
        assert [(turn.number, turn.batch) for turn in turns] == [(7, "seven")] * 5
        assert [turn.is_deadly for turn in turns] == [False] * 4 + [True]
        eight = await exchange.turn(0, "w", (7, {"row": 1}))
        assert eight == (8, "eight", False)
        assert await exchange.turn(1, "x", None) is None, "nothing is left for the other seat"
        assert await exchange.turn(0, "w", (8, {"row": 2})) is None
        _, results = await exchange.swap({}, is_over=True, known_as=exchange._name)
        assert results == [(7, {"row": 1}), (8, {"row": 2})]

    run(steps())


def test_a_result_that_is_sent_twice_takes_no_other_batch_away(monkeypatch):
    """As Ray does when the answer to a call was lost."""
    monkeypatch.setattr(ray_exchange, "_WAIT_FOR_RESULTS_S", 0.001)

    async def steps():
        exchange = Exchange(num_workers=1)
        await exchange.swap({1: "one", 2: "two", 3: "three"}, is_over=True, known_as=exchange._name)
        await exchange.turn(0, "w", None)
        assert (await exchange.turn(0, "w", (1, {}))).number == 2
        assert (await exchange.turn(0, "w", (1, {}))).number == 2
        assert (await exchange.turn(0, "w", (2, {}))).number == 3
        await exchange.swap({3: "three"}, is_over=True, known_as=exchange._name)
        assert await exchange.turn(0, "w", (3, {})) is None, "what a worker is at is not taken twice"

    run(steps())


def test_exchange_that_was_started_again_keeps_the_workers_until_it_has_been_given_what_is_under_way(monkeypatch):
    monkeypatch.setattr(ray_exchange, "_WAIT_FOR_RESULTS_S", 0.001)

    async def steps():
        exchange = Exchange(num_workers=1)
        waiting = asyncio.ensure_future(exchange.turn(0, "w", (4, {})))
        name, _ = await exchange.swap({}, is_over=True, known_as="the one before")
        assert not waiting.done()
        await exchange.swap({5: "five"}, is_over=True, known_as=name)
        assert (await waiting).number == 5

    run(steps())


def test_starts_are_counted_until_a_batch_is_begun(monkeypatch):
    monkeypatch.setattr(ray_exchange, "_WAIT_FOR_RESULTS_S", 0.001)

    async def steps():
        exchange = Exchange(num_workers=2)
        assert [await exchange.start("w", None) for _ in range(9)] == [True] * 8 + [False]
        await exchange.swap({0: "a"}, is_over=False, known_as="")
        await exchange.turn(0, "w", None)
        assert await exchange.start("w", None), "a batch was begun: the workers do start"

    run(steps())


def test_stopped_exchange_sends_waiting_workers_home_and_names_those_at_work(monkeypatch):
    monkeypatch.setattr(ray_exchange, "_WAIT_FOR_RESULTS_S", 0.001)

    async def steps():
        exchange = Exchange(num_workers=3)
        for name in "abc":
            await exchange.start(name, f"handle of {name}")
        await exchange.swap({0: "batch"}, is_over=False, known_as="")
        await exchange.turn(0, "a", None)
        waiting = asyncio.ensure_future(exchange.turn(1, "b", None))
        await asyncio.sleep(0)
        assert await exchange.stop() == ["handle of a", "handle of b", "handle of c"]
        assert await waiting is None
        assert await exchange.stop() == ["handle of a", "handle of c"]

    run(steps())


class Local:
    """An `Exchange` that calls reach as they would an actor, and a worker at it who is always quick."""

    def __init__(self, monkeypatch):
        self.loop = asyncio.new_event_loop()
        self.exchange, self.calls, self.texts = Exchange(1), 0, []
        self.restart_at, self.max_held = (), 0
        self.deadly = "nothing"
        self.swap = SimpleNamespace(remote=self._swap)
        monkeypatch.setattr(ray_encoding.ray, "get", lambda answer: answer)
        monkeypatch.setattr(ray_exchange, "_WAIT_FOR_RESULTS_S", 0.0001)

    def _swap(self, batches, is_over, known_as):
        self.calls += 1
        if self.calls in self.restart_at:
            self.exchange = Exchange(1)
        return self.loop.run_until_complete(self._swap_and_work(batches, is_over, known_as))

    async def _swap_and_work(self, batches, is_over, known_as):
        answer = await self.exchange.swap(batches, is_over, known_as)
        self.max_held = max(self.max_held, len(self.exchange._todo))
        done = None
        while self.exchange._todo:
            turn = await self.exchange.turn(0, "w", done)
            self.texts.append(turn.batch)
            kills = self.deadly in turn.batch and len(json.loads(turn.batch)) > 1
            done = turn.number, ({"error": "", "to_split": True} if kills else ROW)
        if done:
            self.exchange._held.clear()
            self.exchange._results.append(done)
        return answer


@pytest.fixture
def local(monkeypatch):
    made = Local(monkeypatch)
    yield made
    made.loop.close()


def test_every_batch_gets_one_result_though_the_exchange_is_started_again(local):
    items = Read(400)
    local.restart_at = (3, 4, 9, 20)
    results = list(ray_encoding._swapped(make_batches(items, 1), local, Future(), max_under_way=4))
    batches = [json.dumps([item.to_json() for item in batch]) for batch in make_batches(items, 1)]
    assert len(results) == len(batches)
    assert sorted(set(local.texts)) == sorted(batches)
    assert len(local.texts) > len(batches), "some results were lost, and their batches encoded again"


@pytest.mark.parametrize("restart_at", [(), (3,), (4,), (5,), (6,)])
def test_batch_that_kills_its_workers_is_given_again_video_by_video(local, restart_at):
    """Also where it is the last, and where the exchange is started again meanwhile."""
    items = list(Read(20))
    local.restart_at, local.deadly = restart_at, items[-1].uri
    batches = [items[:7], items[7:14], items[14:]]
    results = list(ray_encoding._swapped(batches, local, Future(), max_under_way=2))
    assert len(results) == len(batches) - 1 + len(batches[-1])
    given = {text for text in local.texts if local.deadly not in text or len(json.loads(text)) == 1}
    alone = [[item] for item in batches[-1]]
    assert given == {json.dumps([item.to_json() for item in batch]) for batch in [*batches[:-1], *alone]}


def test_workers_that_end_before_all_is_done_are_an_error(monkeypatch):
    monkeypatch.setattr(ray_encoding.ray, "get", lambda answer: answer)
    lost = SimpleNamespace(swap=SimpleNamespace(remote=lambda batches, is_over, known_as: ("name", [])))
    ended: Future[None] = Future()
    ended.set_result(None)
    with pytest.raises(WorkerError, match="ended before all was done; what was committed is kept"):
        list(ray_encoding._swapped(make_batches(Read(9), 1), lost, ended, max_under_way=4))


def test_memory_of_feeding_does_not_grow_with_the_number_of_items(local):
    local.texts = SimpleNamespace(append=lambda text: None)

    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        try:
            batches = make_batches(Read(count), 2)
            num_results = sum(1 for _ in ray_encoding._swapped(batches, local, Future(), max_under_way=8))
            assert num_results == sum(1 for _ in make_batches(Read(count), 2))
            assert local.max_held <= 8
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(1000)
    assert peak_bytes(20_000) < peak_bytes(1000) + 100_000


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "segments").mkdir()
    return EncoderSettings(index_path=str(tmp_path), model="tiny_test", sampling=SamplingConfig(mode="exact"))


@pytest.fixture
def clips(synthetic):
    names = [synthetic.write(f"{number}.mp4", range(0, 1000, 100)) for number in range(12)]
    return sorted((WorkItem(file=look_at(name)) for name in names), key=work_order)


def uris(results):
    return sorted(uri for result in results for uri in result.videos["uri"].to_pylist())


@pytest.mark.slow
def test_run_survives_the_death_of_the_exchange(clips, settings, monkeypatch):
    def process_id(exchange):
        return os.getpid()

    exchanges = []
    real = ray_encoding._shared_exchange
    monkeypatch.setattr(ray_encoding, "_shared_exchange", lambda count: exchanges.append(real(count)) or exchanges[0])
    with ray_cluster(num_cpus=2) as cluster:
        results = encode_on_ray(clips, settings, cluster, RunConfig(num_workers=2, device="cpu"))
        found = [next(results)]
        os.kill(ray.get(exchanges[0].__ray_call__.remote(process_id)), signal.SIGKILL)
        found += results
    assert uris(found) == [item.file.uri for item in sorted(clips, key=lambda item: item.file.uri)]


@pytest.mark.slow
def test_run_that_is_left_while_the_workers_are_busy_ends_at_once(clips, settings, monkeypatch, capfd):
    class Hanging(ray_encoding.EncodingWorker):
        def _row(self, items, is_deadly):
            time.sleep(0 if items[0].file.uri == first else 600)
            return super()._row(items, is_deadly)

    first = clips[0].file.uri
    threads = {thread for thread in threading.enumerate() if not thread.daemon}
    monkeypatch.setattr(ray_encoding, "EncodingWorker", Hanging)
    with ray_cluster(num_cpus=2) as cluster:
        results = encode_on_ray(clips, settings, cluster, RunConfig(num_workers=2, device="cpu"))
        next(results)
        started = time.monotonic()
        results.close()
        assert time.monotonic() - started < 20
    assert {thread for thread in threading.enumerate() if not thread.daemon} <= threads
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_run_that_waits_for_a_free_core_ends_at_once_when_it_is_stopped(clips, settings):
    """No worker can start: this process has the only core."""
    with ray_cluster(num_cpus=1) as cluster:
        holder = ray.remote(num_cpus=1)(SimpleNamespace).remote()
        ray.get(holder.__ray_ready__.remote())
        timer = threading.Timer(8, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(encode_on_ray(clips, settings, cluster, RunConfig(num_workers=1, device="cpu")))
        assert time.monotonic() - started < 25
