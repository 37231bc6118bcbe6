"""A training job on Ray Train: one function a worker, which share each batch; the only file that wires it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.train
import ray.train.torch

from indexer.errors import VideoBertSearchError, WorkerError
from indexer.ray_cluster import Cluster, ray_cluster
from indexer.training.job import work
from indexer.training.monitor import TrainingProgress, clear_progress, read_progress
from model.errors import ModelError

# Less than a core, so that the small tasks of Ray Train (setting up the process group, reading ports) find room where
# every core has a worker: with whole cores two workers on two cores would wait for ever. Its controller takes none.
_CPUS_PER_WORKER = 0.5
# How long Ray Train waits for all workers before it gives up; an autoscaler may have to start machines first.
_START_LIMIT_S = 600
_LOOK_EVERY_S = 0.5


def train_on_ray(
    folder: str,
    *,
    num_workers: int | None = None,
    device: str = "auto",
    address: str | None = None,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> None:
    """Trains the job in a run folder, and returns when its result is written.

    Args:
        folder: the run folder; on a cluster, every node has to see it under the same path.
        num_workers: processes that share each batch; None is one a GPU, or one on the CPU with all its cores.
        device: "cpu", "cuda" or "auto" (GPUs where the cluster has any).
        address: Ray cluster to join; None starts Ray on this machine.
        on_progress: called about twice a second.

    Raises:
        WorkerError: the workers could not start, or died.
        ModelError, VideoBertSearchError: what a worker raised.
    """
    _quieten()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with ray_cluster(address) as cluster:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own there, which ends with exit code 15
        on_gpu = device == "cuda" or (device == "auto" and cluster.num_gpus > 0)
        num_workers = num_workers or (max(1, cluster.num_gpus) if on_gpu else 1)
        _require_room(cluster, num_workers, on_gpu)
        threads = max(1, cluster.num_cpus // num_workers)
        trainer = ray.train.torch.TorchTrainer(
            _worker,
            train_loop_config={"folder": folder, "on_gpu": on_gpu, "num_threads": threads},
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if on_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=num_workers,
                use_gpu=on_gpu,
                resources_per_worker={"CPU": _CPUS_PER_WORKER, **({"GPU": 1} if on_gpu else {})},
            ),
            run_config=ray.train.RunConfig(name="ray", storage_path=folder, failure_config=_no_second_try()),
        )
        clear_progress(Path(folder))
        outcome = _in_thread(trainer)
        while not outcome.done.wait(_LOOK_EVERY_S):
            if (progress := read_progress(Path(folder))) is not None:
                on_progress(progress)
        if outcome.error is not None:
            raise _cause(outcome.error) from outcome.error


_KEPT = "its state is kept, run the same command again to go on"


def _no_second_try() -> ray.train.FailureConfig:
    """By default Ray Train starts workers that do not come up again and again, for ever and in silence."""
    settings: dict[str, Any] = {"max_failures": 0, "controller_failure_limit": 0}  # the second is not in Ray's types
    return ray.train.FailureConfig(**settings)


def _worker(config: dict[str, Any]) -> None:
    """What each worker runs. Errors of ours end it; Ray Train hands them to the driver."""
    work(config["folder"], str(ray.train.torch.get_device()) if config["on_gpu"] else "cpu", config["num_threads"])


def _require_room(cluster: Cluster, num_workers: int, on_gpu: bool) -> None:
    """Workers that do not fit would be waited for; so say it at once."""
    if on_gpu and num_workers > cluster.num_gpus:
        raise WorkerError(
            f"{num_workers} workers need as many GPUs, the cluster has {cluster.num_gpus}: use fewer, or --device cpu"
        )
    most = int(cluster.num_cpus / _CPUS_PER_WORKER)
    if num_workers > most:
        raise WorkerError(f"there is room for {most} workers on {cluster.num_cpus} cores, got {num_workers}: use fewer")


def _quieten() -> None:
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_START_LIMIT_S))
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)


class _Outcome:
    """How `fit` ended, once `done` is set."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None


def _in_thread(trainer: ray.train.torch.TorchTrainer) -> _Outcome:
    """Starts `fit` in a thread: in the main one it would keep Ctrl-C to itself, and end with exit code 0."""
    outcome = _Outcome()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # whatever it is, it is the main thread's to judge
            outcome.error = error
        finally:
            outcome.done.set()

    threading.Thread(target=fit, daemon=True).start()
    return outcome


def _cause(error: BaseException) -> VideoBertSearchError | ModelError:
    """The error of ours that ended a worker, or one line of what else happened."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        for cause in (failure, getattr(failure, "cause", None), failure.__cause__):
            if isinstance(cause, (VideoBertSearchError, ModelError)):
                return cause
    return WorkerError(f"training stopped: {_one_line(failures[0] if failures else error)}; {_KEPT}")


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"[:300]
