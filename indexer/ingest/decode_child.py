"""The process in which `GuardedDecoder` decodes, and the two pipes to it. What it runs is `decode_worker.py`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.errors import VideoError
from indexer.ingest import wire
from indexer.ingest.sampled import DecodeEnd, SampledFrame, VideoInfo

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])


class ChildTimedOutError(Exception):
    """It sent nothing for too long."""


class ChildDiedError(Exception):
    """It is gone, or sent what it never should; the message says how, for people."""


class DecodeChild:
    """A running child. It answers one request at a time.

    Args:
        command: what to run.
        timeout_s: seconds without any message after which reading raises ChildTimedOutError.

    Attributes:
        busy: a request has been sent and not been answered in full. Kept by the caller.
    """

    def __init__(self, command: Sequence[str], timeout_s: float) -> None:
        paths = [_PACKAGE_PARENT, *filter(None, [os.environ.get("PYTHONPATH")])]
        # Each thread would take address space of its own.
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TOKIO_WORKER_THREADS"), "1")
        threads["MALLOC_ARENA_MAX"] = "2"
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # Ctrl-C goes to the parent alone
            bufsize=0,
        )
        self._timeout_s = timeout_s
        self.busy = False
        assert self._process.stdout is not None
        _make_large(self._process.stdout.fileno())

    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            for buffer in wire.pack(request):
                self._process.stdin.write(buffer)
        except OSError as error:
            raise ChildDiedError(self._how_it_died()) from error

    def hardware_problem(self) -> str:
        """Why no GPU can be used; empty if one can. To be asked before anything else, and only if one was asked for."""
        try:
            return str(wire.unpack(self._read_exactly)[0]["problem"])
        except (wire.WireError, KeyError) as error:
            raise ChildDiedError("it sent nonsense") from error

    def messages(self, size_px: int) -> Iterator[VideoInfo | SampledFrame | DecodeEnd | VideoError]:
        """Everything that the child says about one video; the last is a DecodeEnd or a VideoError."""
        pixels = np.empty((0, 0, 3), np.uint8)
        while True:
            try:
                head, bodies = wire.unpack(self._read_exactly)
                kind = head.pop("type")
                if kind == "frame":
                    if not head.pop("again", False):
                        pixels = np.frombuffer(bodies.pop(0), np.uint8).reshape(size_px, size_px, 3)
                    yield SampledFrame(pixels=pixels, thumbnail=bytes(bodies[0]) if bodies else None, **head)
                elif kind == "info":
                    yield VideoInfo(**head)
                elif kind == "end":
                    yield DecodeEnd(**head)
                    return
                elif kind == "error":
                    yield VideoError(**head)
                    return
            except (wire.WireError, ValueError, KeyError, TypeError, IndexError) as error:
                raise ChildDiedError("it sent nonsense") from error

    def _read_exactly(self, length: int) -> bytearray:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        data = bytearray(length)
        view, filled = memoryview(data), 0
        poller = select.poll()  # not select.select, which fails above 1024 open files
        poller.register(fd, select.POLLIN)
        deadline = time.monotonic() + self._timeout_s
        while filled < length:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise ChildTimedOutError
            num_read = os.readv(fd, [view[filled:]])
            if num_read == 0:
                raise ChildDiedError(self._how_it_died())
            filled += num_read
        return data

    def _how_it_died(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=5)
            return signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return "it closed its pipe"

    def end(self) -> None:
        """Kills the process and leaves the pipes to the thread that may be reading from them."""
        self._process.kill()

    def kill(self) -> None:
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel, e.g. on a dead network disk
            self._process.wait(timeout=5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _make_large(pipe: int) -> None:
    """Room for some frames: through Linux's 64 KiB each would take several turns of both processes."""
    if set_size := getattr(fcntl, "F_SETPIPE_SZ", None):
        with contextlib.suppress(OSError):  # a user may have only so much of it
            fcntl.fcntl(pipe, set_size, wire.PIPE_BYTES)
