"""The Ray cluster that a run works on: one that is there, or Ray started on this machine for as long as it takes."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import ray

from indexer.errors import WorkerError

# Only small rows pass through it; beside a GPU also the few frames under way from each core. Ray's default would
# reserve a third of the memory.
_OBJECT_STORE_BYTES, _OBJECT_STORE_BYTES_A_CORE = 200 << 20, 16 << 20
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
            raise WorkerError(f"could not {where}: {one_line(error)}") from error
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


def one_line(error: BaseException) -> str:
    """The last line of what Ray says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
