"""The same batches on Ray Data.

Batches go in as one row each, results come back as one row each. On CPUs each actor decodes and encodes, and neither
pixels nor embeddings pass through Ray. Where there are GPUs the actors decode, and share a model on each GPU: see
`ray_shared_model.py`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import ray

from indexer import schema
from indexer.batches import BatchEncoder, EncoderSettings, failed_batch, make_batches
from indexer.config import RunConfig
from indexer.errors import StorageError, VideoBertSearchError, WorkerError
from indexer.parts import cut_long_videos
from indexer.ray_attempts import MAX_DEATHS, Attempts
from indexer.ray_shared_model import SharedModelClient, start_shared_models
from indexer.work import BatchResult, WorkItem
from model.errors import ModelError

if TYPE_CHECKING:
    import ray.data

# A little under one core, so that other small tasks still find room when every core has an actor: with whole cores a
# machine of one or two would have none left, and Ray Data would wait for ever.
_CPUS_PER_WORKER = 0.9
# Only small rows pass through it; beside a GPU also the few frames under way from each core. Ray's default would
# reserve a third of the memory.
_OBJECT_STORE_BYTES, _OBJECT_STORE_BYTES_A_CORE = 200 << 20, 16 << 20
# A decoder that hangs is stopped by its guard; a video of many hours is no reason to stop the run.
_NO_PROGRESS_LIMIT_S = -1
_CONNECT_LIMIT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The Ray cluster in use.

    Attributes:
        num_cpus: cores in it.
        num_gpus: GPUs in it.
    """

    num_cpus: int
    num_gpus: int


def load_ray_data() -> None:
    """Loads what `encode_on_ray` needs beyond `ray.init`, which has time for it: it waits for other processes."""
    import ray.data  # noqa: F401


@contextmanager
def ray_cluster(
    address: str | None = None, num_cpus: int | None = None, *, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[Cluster]:
    """Joins a cluster, or starts Ray on this machine, for the time of the block.

    Args:
        address: of the cluster to join; None joins the one in RAY_ADDRESS (set in a Ray job), else starts Ray here.
        num_cpus: cores to use when Ray is started here; None uses all.
        meanwhile: called while Ray starts.

    Raises:
        WorkerError: there is no cluster at the address, or Ray could not start.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = (
        {"address": address}
        if address
        else {
            "address": "local",
            "num_cpus": num_cpus,
            "object_store_memory": _OBJECT_STORE_BYTES + _OBJECT_STORE_BYTES_A_CORE * (num_cpus or os.cpu_count() or 1),
            "include_dashboard": False,
        }
    )
    if address:
        _require_reachable(address)
    logging.getLogger("ray").setLevel(logging.ERROR)
    with _native_messages_hidden():
        yield from _connected(address, own, meanwhile)


def _require_reachable(address: str) -> None:
    """Asks whether anything listens there: Ray itself would try for minutes, in silence. "auto" it looks up itself."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_LIMIT_S).close()
    except (OSError, OverflowError) as error:
        raise WorkerError(
            f"nothing answers at the Ray address {address!r} ({error}): start a cluster with `ray start --head`, "
            "or leave out --address"
        ) from error


def _connected(address: str | None, options: dict[str, Any], meanwhile: Callable[[], None]) -> Iterator[Cluster]:
    """Starts Ray in a thread of its own, which lives as long as Ray does: when it ends, so do the processes it started.

    Objects that are put by the thread that started Ray are numbered from 1 again in every session. A reference left
    from an earlier session in this process (in the traceback of an error, say), once collected, would then release the
    object of the same number in this one. The objects of all other threads have names drawn at random.
    """
    options = {**options, "logging_level": logging.ERROR, "log_to_driver": False, "ignore_reinit_error": True}
    with ThreadPoolExecutor(max_workers=1) as starter:
        try:
            starting = starter.submit(_init, options, num_tries=1 if address else 2)
            meanwhile()
            starting.result()
        except Exception as error:  # a node that does not start in time is Ray's plain Exception
            where = f"join the Ray cluster at {address!r}" if address else "start Ray on this machine"
            raise WorkerError(f"could not {where}: {_one_line(error)}") from error
        try:
            resources = ray.cluster_resources()
            yield Cluster(num_cpus=max(1, int(resources.get("CPU", 1))), num_gpus=int(resources.get("GPU", 0)))
        finally:
            ray.shutdown()


def _init(options: dict[str, Any], num_tries: int) -> None:
    """Ray gives its own node 30 s, fixed, which a busy machine may miss once; what it had started by then is ended."""
    try:
        ray.init(**options)
    except Exception:
        ray.shutdown()
        if num_tries == 1:
            raise
        _init(options, num_tries - 1)


def encode_on_ray(
    items: Collection[WorkItem],
    settings: EncoderSettings,
    cluster: Cluster,
    run: RunConfig,
) -> Iterator[BatchResult]:
    """Encodes videos with Ray Data actors, and yields each batch when it is done, in any order.

    Args:
        items: the videos.
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
    num_workers = min(num_workers, len(batches))
    settings = replace(settings, num_threads=max(1, cluster.num_cpus // (num_models or num_workers)))
    models = start_shared_models(settings, "cuda" if on_gpu else "cpu", num_models)
    rows = [{"batch": json.dumps([item.to_json() for item in batch])} for batch in batches]
    _quieten(ray.data.DataContext.get_current())
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        EncodingWorker,
        fn_constructor_args=(settings, _shared_attempts(num_workers), models),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_workers, initial_size=num_workers),
        num_cpus=_CPUS_PER_WORKER,
    )
    with closing(_rows(dataset)) as results:
        for row in results:
            yield _result(row)
    for spent in ray.get([model.account.remote() for model in models]):
        yield BatchResult(videos=schema.VIDEOS.empty_table(), spent=spent)


def _rows(dataset: ray.data.Dataset) -> Generator[dict[str, Any], None, None]:
    """Rows as they arrive. Without prefetching, which would hold a result back until the next one has arrived.

    Ray Data's own generator is closed here: collected later, after Ray has been shut down, it would raise.

    Raises:
        WorkerError: whatever Ray Data raised; errors from inside it are of any type.
    """
    try:
        tables: Any = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        with closing(tables):
            for table in tables:
                yield from table.to_pylist()
    except Exception as error:
        kept = "what was committed is kept, run the same command again"
        raise WorkerError(f"the workers stopped: {_one_line(error)}; {kept}") from error


def _shared_attempts(num_workers: int) -> Any:
    """`Attempts` as an actor without a core of its own. Lost with its node, it counts from 0 again."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote(num_workers)


class EncodingWorker:
    """What a Ray Data actor runs.

    Errors of ours travel as results: raised, they would arrive as pages of traceback, and one from the constructor
    would make Ray start the actor again and again.

    Args:
        settings: see `EncoderSettings`.
        attempts: an actor of `Attempts`.
        models: actors of `SharedModel`; if there are none, the worker has a model of its own.
    """

    def __init__(self, settings: EncoderSettings, attempts: Any, models: Sequence[Any] = ()) -> None:
        self._encoder: BatchEncoder | None = None
        self._model: SharedModelClient | None = None
        self._attempts = attempts
        self._error = ""
        if not ray.get(attempts.start.remote()):
            self._error = "the workers die while they start: perhaps memory is short; try with fewer --workers"
            return
        try:
            self._model = SharedModelClient(models) if models else None
            self._encoder = BatchEncoder(settings, self._model)
        except (VideoBertSearchError, ModelError) as error:
            self._error = f"the workers could not start: {error}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        row = {"videos": b"", "rest": b"", "error": self._error}
        if self._encoder is not None:
            text = batch["batch"][0]
            items = [WorkItem.from_json(item) for item in json.loads(text)]
            try:
                row |= self._result_of(text, items, self._encoder).to_row()
            except StorageError as error:
                row["error"] = str(error)
            if self._model is not None and self._model.lost:
                row["error"] = self._model.lost
        return {name: [value] for name, value in row.items()}

    def _result_of(self, batch: str, items: Sequence[WorkItem], encoder: BatchEncoder) -> BatchResult:
        if ray.get(self._attempts.begin.remote(batch)):
            return encoder.encode(items)
        neighbours = f", or one of {len(items) - 1} others in its batch" if len(items) > 1 else ""
        return failed_batch(
            items, "WorkerDied", f"the worker died {MAX_DEATHS + 1} times over this video{neighbours}: try `retry`"
        )


def _result(row: dict[str, Any]) -> BatchResult:
    if row["error"]:
        raise WorkerError(row["error"])
    return BatchResult.from_row(row)


@contextmanager
def _native_messages_hidden() -> Iterator[None]:
    """Hides what Ray's C++ core writes to file descriptor 2, such as warnings about Ray Data's own actors, from the
    progress bar. Python's stderr goes on to the terminal."""
    sys.stderr.flush()
    terminal, python_stderr = _terminal_descriptor(), sys.stderr
    os.dup2(2, terminal)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = os.fdopen(terminal, "w", buffering=1, closefd=False)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        sys.stderr = python_stderr


@cache
def _terminal_descriptor() -> int:
    """A file descriptor that is never closed: Ray's fault handler and threads keep the stream they find."""
    return os.dup(2)


def _quieten(context: ray.data.DataContext) -> None:
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = _NO_PROGRESS_LIMIT_S
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
