"""Bounded queues: what a service has no room for is refused at once, and says so, instead of waiting for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, ParamSpec, TypeVar

from indexer.errors import OverloadedError

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Parameters = ParamSpec("Parameters")


class Lane:
    """Some threads for one kind of work, and a queue before them.

    Args:
        name: of the work, for the error.
        num_threads: calls that run at the same time.
        max_waiting: calls that may wait for a thread.
    """

    def __init__(self, name: str, num_threads: int, max_waiting: int) -> None:
        self._name = name
        self._room = num_threads + max_waiting
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=f"videobert-{name}")
        self._taken = 0

    async def run(
        self, call: Callable[Parameters, Answer], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Answer:
        """Calls in a thread.

        Raises:
            OverloadedError: too many wait already.
        """
        if self._taken >= self._room:
            raise OverloadedError(f"too many {self._name} requests at once: try again in a second")
        self._taken += 1
        loop = asyncio.get_running_loop()
        work = self._threads.submit(call, *args, **kwargs)
        # Not when the one who asked stops waiting: the thread goes on, and the place stays taken.
        work.add_done_callback(lambda done: None if loop.is_closed() else loop.call_soon_threadsafe(self._leave))
        return await asyncio.wrap_future(work)

    def _leave(self) -> None:
        self._taken -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class BatchQueue(Generic[Question, Answer]):
    """Answers questions in batches, by one thread: all that came in while it was busy are its next batch.

    A query that is encoded alone takes several times as long as one of a batch of eight, and threads do not help:
    docs/design/serve.md has the figures.

    Args:
        answer: one answer a question, in their order; an exception among them is that question's.
        max_batch: questions that are answered together.
        max_waiting: questions that may wait.
    """

    def __init__(
        self, answer: Callable[[Sequence[Question]], list[Answer | Exception]], max_batch: int, max_waiting: int
    ) -> None:
        self._answer = answer
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="videobert-search")
        self._worker: asyncio.Task[None] | None = None

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    async def ask(self, question: Question) -> Answer:
        """The answer to one question.

        Raises:
            OverloadedError: too many wait already.
        """
        if len(self._waiting) >= self._max_waiting:
            raise OverloadedError("too many search requests at once: try again in a second")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._answer_some()
        finally:
            self._worker = None

    async def _answer_some(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
        batch = [(question, future) for question, future in batch if not future.done()]  # its client has gone
        questions = [question for question, _ in batch]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, questions)
        except Exception as error:  # every one of them is told
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
