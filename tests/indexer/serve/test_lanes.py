"""Queues: what has no room is refused, every question gets its own answer, an error only its own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from indexer.errors import OverloadedError
from indexer.serve.lanes import BatchQueue, Lane


def test_lane_refuses_what_has_no_room_and_takes_it_again_later():
    async def run():
        lane, go = Lane("clip", num_threads=1, max_waiting=1), threading.Event()
        running = [asyncio.create_task(lane.run(go.wait, 10)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="too many clip requests at once"):
            await lane.run(go.wait, 10)
        go.set()
        assert await asyncio.gather(*running) == [True, True]
        await asyncio.sleep(0.01)
        assert await lane.run(sum, [1, 2]) == 3
        lane.close()

    asyncio.run(run())


def test_lane_keeps_the_place_of_a_call_whose_client_has_gone():
    async def run():
        lane, go, started = Lane("clip", num_threads=1, max_waiting=0), threading.Event(), threading.Event()

        def work():
            started.set()
            go.wait(10)

        gone = asyncio.create_task(lane.run(work))
        await asyncio.to_thread(started.wait, 10)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        with pytest.raises(OverloadedError):
            await lane.run(sum, [])
        go.set()
        lane.close()

    asyncio.run(run())


def test_batch_queue_answers_together_what_came_in_while_it_was_busy():
    batches: list[list[int]] = []
    go, started = threading.Event(), threading.Event()

    def answer(questions):
        batches.append(list(questions))
        started.set()
        go.wait(10)
        return [10 * question for question in questions]

    async def run():
        queue = BatchQueue(answer, max_batch=3, max_waiting=10)
        first = asyncio.create_task(queue.ask(0))
        await asyncio.to_thread(started.wait, 10)
        others = [asyncio.create_task(queue.ask(number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        go.set()
        assert await asyncio.gather(first, *others) == [0, 10, 20, 30, 40, 50]
        queue.close()

    asyncio.run(run())
    assert batches == [[0], [1, 2, 3], [4, 5]]


def test_batch_queue_tells_each_question_its_own_error():
    def answer(questions):
        return [ValueError(question) if question < 0 else question for question in questions]

    async def run():
        queue = BatchQueue(answer, max_batch=10, max_waiting=10)
        found = await asyncio.gather(*(queue.ask(number) for number in (1, -2, 3)), return_exceptions=True)
        assert [found[0], str(found[1]), found[2]] == [1, "-2", 3]
        queue.close()

    asyncio.run(run())


def test_batch_queue_goes_on_after_a_batch_that_failed():
    def answer(questions):
        if questions == ["bad"]:
            raise RuntimeError("broken")
        return questions

    async def run():
        queue = BatchQueue(answer, max_batch=1, max_waiting=10)
        with pytest.raises(RuntimeError, match="broken"):
            await queue.ask("bad")
        assert await queue.ask("good") == "good"
        queue.close()

    asyncio.run(run())


def test_batch_queue_refuses_what_has_no_room():
    go = threading.Event()

    async def run():
        queue = BatchQueue(lambda questions: [go.wait(10) for _ in questions], max_batch=1, max_waiting=2)
        asked = [asyncio.create_task(queue.ask(number)) for number in range(1)]
        await asyncio.sleep(0.01)  # it is being answered, and no longer waits
        asked += [asyncio.create_task(queue.ask(number)) for number in range(2)]
        await asyncio.sleep(0)
        assert queue.num_waiting == 2
        with pytest.raises(OverloadedError, match="too many search requests at once"):
            await queue.ask(4)
        go.set()
        await asyncio.gather(*asked)
        queue.close()

    asyncio.run(run())
