"""The same batches on Ray Data.

Ray Data starts the workers, and anew when they die; each of its rows is a seat, on which a worker takes batch after
batch from `ray_exchange.py` until there are none. On CPUs each worker decodes and encodes, and neither pixels nor
embeddings pass through Ray. Where there are GPUs the workers decode, and share a model on each GPU: see
`ray_shared_model.py`.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from indexer import schema
from indexer.batches import BatchEncoder, EncoderSettings, failed_video, make_batches
from indexer.config import RunConfig
from indexer.errors import StorageError, VideoBertSearchError, WorkerError
from indexer.parts import cut_long_videos
from indexer.ray_cluster import Cluster, one_line
from indexer.ray_exchange import MAX_DEATHS, Exchange
from indexer.ray_model_client import SharedModelClient
from indexer.ray_shared_model import start_shared_models
from indexer.work import BatchResult, WorkItem
from model.errors import ModelError

if TYPE_CHECKING:
    import ray.data

# A little under one core, so that other small tasks still find room when every core has an actor: with whole cores a
# machine of one or two would have none left, and Ray Data would wait for ever.
_CPUS_PER_WORKER = 0.9
# A decoder that hangs is stopped by its guard; a video of many hours is no reason to stop the run.
_NO_PROGRESS_LIMIT_S = -1
# Batches that are being encoded or wait for it: enough to go on with while the driver commits.
_UNDER_WAY_PER_WORKER = 4
# The first row of all, which comes back as soon as a worker is there.
_NO_SEAT = -1


def load_ray_data() -> None:
    """Loads what `encode_on_ray` needs beyond `ray.init`, which has time for it: it waits for other processes."""
    import ray.data  # noqa: F401


def encode_on_ray(
    items: Collection[WorkItem],
    settings: EncoderSettings,
    cluster: Cluster,
    run: RunConfig,
) -> Iterator[BatchResult]:
    """Encodes videos with Ray Data actors, and yields each batch when it is done, in any order.

    Args:
        items: the videos, as `make_batches` takes them.
        settings: for the workers; `device` and `num_threads` are set here.
        cluster: what `ray_cluster` gave.
        run: which device, and how many actors.

    Raises:
        WorkerError: the actors could not start, or died.
        StorageError: a worker could not write.
    """
    load_ray_data()
    on_gpu = run.device == "cuda" or (run.device == "auto" and cluster.num_gpus > 0)
    if on_gpu and not cluster.num_gpus:
        raise WorkerError("the cluster has no GPU: use --device cpu, or add GPU workers")
    num_models = (cluster.num_gpus or 1) if on_gpu or run.share_model else 0
    num_workers = run.num_workers or max(1, cluster.num_cpus - num_models)  # a core a model, to feed it
    batches = make_batches(cut_long_videos(items, num_workers, settings), num_workers)
    first = list(islice(batches, num_workers))
    num_workers = len(first)
    if not first:
        return
    settings = replace(settings, num_threads=max(1, cluster.num_cpus // (num_models or num_workers)))
    models = start_shared_models(settings, "cuda" if on_gpu else "cpu", num_models)
    exchange = _shared_exchange(num_workers)
    _quieten(ray.data.DataContext.get_current())
    seats = [{"seat": number} for number in (_NO_SEAT, *range(num_workers))]
    dataset = ray.data.from_items(seats, override_num_blocks=len(seats)).map_batches(
        EncodingWorker,
        fn_constructor_args=(settings, exchange, models),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=num_workers, initial_size=num_workers, max_tasks_in_flight_per_actor=1
        ),
        num_cpus=_CPUS_PER_WORKER,
    )
    with _at_work(dataset, exchange) as workers:
        yield from _swapped(chain(first, batches), exchange, workers, _UNDER_WAY_PER_WORKER * num_workers)
    for spent in ray.get([model.account.remote() for model in models]):
        yield BatchResult(videos=schema.VIDEOS.empty_table(), spent=spent)


def _swapped(
    batches: Iterable[list[WorkItem]], exchange: Any, workers: Future[Any], max_under_way: int
) -> Iterator[BatchResult]:
    """Gives batches to the workers, a few more than they are at, and yields the results.

    One that kills them is given again video by video, so that only the one at fault fails. Hence nothing is over before
    all results are here.
    """
    numbers = count()
    numbered = ((next(numbers), json.dumps([item.to_json() for item in batch])) for batch in batches)
    under_way: dict[int, str] = {}
    again: dict[int, str] = {}
    known_as, is_over = "", False
    while under_way or not is_over:
        have_ended = workers.done()
        new = dict(islice(numbered, max(0, max_under_way - len(under_way))))
        under_way |= new
        is_over = not under_way
        name, results = ray.get(exchange.swap.remote(again | new, is_over, known_as))
        apart: dict[int, str] = {}
        for number, row in results:
            batch = under_way.pop(number, None)
            if batch is not None and row.get("to_split"):
                apart |= {next(numbers): json.dumps([item]) for item in json.loads(batch)}
            elif batch is not None:
                yield _result(row)
        under_way |= apart
        was_restarted = bool(known_as) and name != known_as
        again = under_way.copy() if was_restarted else apart
        known_as = name
        if have_ended and under_way:
            workers.result()
            raise _stopped("they ended before all was done")


@contextmanager
def _at_work(dataset: ray.data.Dataset, exchange: Any) -> Iterator[Future[Any]]:
    """Waits for the first worker, then runs them in a thread, which ends when they do.

    Left early, it kills them, as a batch may take minutes. Before there are any, Ray Data can only be stopped by the
    thread that waits for it: this one.
    """
    with closing(_blocks(dataset)) as blocks, ThreadPoolExecutor(max_workers=1) as thread:
        next(blocks)
        workers = thread.submit(deque, blocks, maxlen=0)
        try:
            yield workers
            while not workers.done():  # told again, as the exchange may have been started again
                ray.get(exchange.stop.remote())
                wait([workers], timeout=1.0)
            workers.result()
        finally:
            if not workers.done():
                for worker in ray.get(exchange.stop.remote()):
                    ray.kill(worker)


def _blocks(dataset: ray.data.Dataset) -> Generator[Any, None, None]:
    """What Ray Data gives. Its own generator is closed here: collected later, after Ray has been shut down, it would
    raise.

    Raises:
        WorkerError: whatever Ray Data raised; errors from inside it are of any type.
    """
    try:
        blocks: Any = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        with closing(blocks):
            yield from blocks
    except Exception as error:
        raise _stopped(one_line(error)) from error


def _stopped(why: str) -> WorkerError:
    return WorkerError(f"the workers stopped: {why}; what was committed is kept, run the same command again")


def _shared_exchange(num_workers: int) -> Any:
    """`Exchange` as an actor beside the driver, without a core of its own, that all can call at once."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(Exchange).options(**options, max_concurrency=2 * num_workers + 8).remote(num_workers)


class EncodingWorker:
    """What a Ray Data actor runs: on its seat, the row that it is given, it takes batch after batch from the exchange.

    Errors of ours travel as results: raised, they would arrive as pages of traceback, and one from the constructor
    would make Ray start the actor again and again.

    Args:
        settings: see `EncoderSettings`.
        exchange: an actor of `Exchange`.
        models: actors of `SharedModel`; if there are none, the worker has a model of its own.
    """

    def __init__(self, settings: EncoderSettings, exchange: Any, models: Sequence[Any] = ()) -> None:
        self._encoder: BatchEncoder | None = None
        self._model: SharedModelClient | None = None
        self._exchange = exchange
        self._error = ""
        context = ray.get_runtime_context()
        self._id = context.get_actor_id()
        if not ray.get(exchange.start.remote(self._id, context.current_actor)):
            self._error = "the workers die while they start: perhaps memory is short; try with fewer --workers"
            return
        try:
            self._model = SharedModelClient(models) if models else None
            self._encoder = BatchEncoder(settings, self._model)
        except (VideoBertSearchError, ModelError) as error:
            self._error = f"the workers could not start: {error}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        seat, done = int(row["seat"][0]), None
        if seat == _NO_SEAT:
            return {"seat": [seat]}
        while turn := ray.get(self._exchange.turn.remote(seat, self._id, done)):
            number, batch, is_deadly = turn
            done = number, self._row([WorkItem.from_json(item) for item in json.loads(batch)], is_deadly)
        return {"seat": [seat]}

    def _row(self, items: Sequence[WorkItem], is_deadly: bool) -> dict[str, Any]:
        row: dict[str, Any] = {"error": self._error}
        if self._encoder is not None:
            if is_deadly and len(items) > 1:
                return row | {"to_split": True}
            try:
                result = _deadly(items[0]) if is_deadly else self._encoder.encode(items)
                row |= result.to_row()
            except StorageError as error:
                row["error"] = str(error)
            if self._model is not None and self._model.lost:
                row["error"] = self._model.lost
        return row


def _deadly(item: WorkItem) -> BatchResult:
    return failed_video(item, "WorkerDied", f"the worker died {MAX_DEATHS + 1} times over this video: try `retry`")


def _result(row: dict[str, Any]) -> BatchResult:
    if row["error"]:
        raise WorkerError(row["error"])
    return BatchResult.from_row(row)


def _quieten(context: ray.data.DataContext) -> None:
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = _NO_PROGRESS_LIMIT_S
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors it raises too
