"""The same batches by threads of this process, for a run that ends about when Ray would have started its workers.

Each thread has a decoder in a child process, as a Ray worker has, and all share one model. Decoding, waiting and the
model's arithmetic leave Python's lock to the others, so a few threads keep as many cores busy.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import chain, islice
from queue import Empty, SimpleQueue

from indexer.batches import BatchEncoder, EncoderSettings, make_batches
from indexer.ingest.files import VideoFile
from indexer.parts import cut_long_videos
from indexer.work import BatchResult, WorkItem
from model.cores import num_usable_cores

_MAX_THREADS = 4
# Batches that are being encoded or wait for it: enough to go on with while the results are committed.
_UNDER_WAY_PER_THREAD = 4
# What a video takes of one core, roughly, with the default model and sampling: docs/performance.md has the table.
_S_PER_VIDEO, _S_PER_BYTE = 0.03, 0.15 / (1 << 20)
# Four threads do this in the time that Ray takes to start, so with any number of cores Ray would be later.
_MAX_WORK_S = 32.0
_LOOK_UP_S = 0.2


def is_handful(files: Collection[VideoFile]) -> bool:
    """Whether threads would be done before Ray on all cores, as far as the sizes of the files tell.

    On up to four cores Ray never catches up; longer runs are its own there too, as its workers may die and the run not.
    """
    return len(files) * _S_PER_VIDEO + sum(file.size_bytes for file in files) * _S_PER_BYTE <= _MAX_WORK_S


def num_useful_threads() -> int:
    """Threads that `encode_in_threads` can keep busy here."""
    return min(num_usable_cores(), _MAX_THREADS)


def encode_in_threads(
    items: Collection[WorkItem],
    settings: EncoderSettings,
    num_threads: int,
    stopped: threading.Event | None = None,
) -> Iterator[BatchResult]:
    """Encodes videos, and yields each batch when it is done: with one thread in order, with several in any.

    Args:
        items: the videos, as `make_batches` takes them.
        settings: of the encoders; `num_threads` is set here.
        num_threads: batches that are encoded at a time, and threads of the model.
        stopped: ends the work within a second when another thread sets it, as after Ctrl-C; set when it has ended.

    Raises:
        ModelError: the model's weights are missing or damaged.
        WorkerError: a GPU is to decode, and cannot.
        StorageError: a file could not be written.
    """
    batches = make_batches(cut_long_videos(items, num_threads, settings), num_threads)
    ahead = list(islice(batches, num_threads))
    num_encoders = len(ahead)
    batches = chain(ahead, batches)
    todo, done = SimpleQueue[list[WorkItem] | None](), SimpleQueue[BatchResult | Exception]()
    stopped = stopped or threading.Event()

    def work(encoder: BatchEncoder) -> None:
        with closing(encoder):
            while (batch := todo.get()) is not None and not stopped.is_set():
                try:
                    done.put(encoder.encode(batch))
                except Exception as error:  # raised by the thread that takes the results
                    done.put(error)

    first = BatchEncoder(replace(settings, num_threads=num_threads))
    encoders = [first, *(BatchEncoder(settings, first.model) for _ in range(num_encoders - 1))]
    threads = [threading.Thread(target=work, args=[encoder], daemon=True) for encoder in encoders]
    for thread in threads:
        thread.start()
    num_under_way = 0
    try:
        while True:
            for batch in islice(batches, _UNDER_WAY_PER_THREAD * num_threads - num_under_way):
                todo.put(batch)
                num_under_way += 1
            if not num_under_way:
                return
            result = _next(done, stopped)
            if result is None:
                return
            num_under_way -= 1
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        stopped.set()
        for encoder in encoders:
            encoder.stop()
        for _ in threads:
            todo.put(None)
        for thread in threads:
            thread.join()


def _next(done: SimpleQueue[BatchResult | Exception], stopped: threading.Event) -> BatchResult | Exception | None:
    """What a thread has done, or None when all are to stop."""
    while not stopped.is_set():
        with suppress(Empty):
            return done.get(timeout=_LOOK_UP_S)
    return None
