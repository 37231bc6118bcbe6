"""Decode in a child process that may hang, crash or run out of memory without taking the indexer along.

    parent: GuardedDecoder ──request──▶ child: decode_worker ──info, frames, alive, end─▶ parent

No signal or thread can stop a decoder that hangs inside native code; killing its process can. The child is kept
from one video to the next, since starting one takes some 0.2 s.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from indexer.errors import VideoError, WorkerError
from indexer.ingest import wire
from indexer.ingest.leeway import EXACTLY, Leeway
from indexer.ingest.paths import source_path
from indexer.ingest.sampled import DecodeEnd, DecodeLimits, SampledFrame, VideoInfo

READ_BYTES = 1 << 20
# What Linux gives everybody: some frames of 224 px.
_PIPE_BYTES = 1 << 20
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])


class _ChildTimedOutError(Exception):
    pass


class _ChildDiedError(Exception):
    pass


class GuardedDecoder:
    """Reads one video at a time in a child process. Not for use by several threads at once.

    A child that sends nothing for `timeout_s` is killed (VideoError kind TimedOut); one that dies raises kind
    DecoderCrashed, one without memory OutOfMemory. The video is first tried once more in a new child, which goes on
    after what had been yielded: the fault may be what earlier videos left behind, or a neighbour's, or the GPU's, so
    the second try is the CPU's.
    Time in which the caller does not ask for the next frame does not count.

    Args:
        timeout_s: seconds without any progress, not seconds a video.
        memory_bytes: address space of the child; more makes a video fail as OutOfMemory. With "nvdec": memory that it
            can write, without CUDA's own.
        decoder: see `RunConfig`.
        limits: see `DecodeLimits`.
        command: what to run as the child; for tests.

    Attributes:
        num_children: children started so far.
        num_timeouts, num_crashes: how often one hung or died, healed by the second try or not.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 60.0,
        memory_bytes: int = 4 << 30,
        decoder: str = "cpu",
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 (frozen)
        command: Sequence[str] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._limits = limits
        self._decoder = decoder
        arguments = [str(os.getpid()), str(memory_bytes), decoder]
        own_command = [sys.executable, "-m", "indexer.ingest.decode_worker", *arguments]
        self._command = list(command) if command is not None else own_command
        self._child: _Child | None = None
        self._num_reads = 0
        self._is_stopped = False
        self.num_children = self.num_timeouts = self.num_crashes = 0

    def read_video(
        self,
        path: str,
        *,
        frame_rate_hz: float,
        size_px: int,
        start_s: float = 0.0,
        end_s: float | None = None,
        leeway: Leeway = EXACTLY,
        moment_s: float | None = None,
    ) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
        """The stream of `video.read_video`, decoded in the child. Starting another read ends the one before it.

        Raises:
            VideoError: what `video.read_video` raises; and stage "decode", kinds TimedOut, DecoderCrashed, OutOfMemory.
        """
        request = {
            "path": source_path(path),
            "frame_rate_hz": frame_rate_hz,
            "size_px": size_px,
            "start_s": start_s,
            "end_s": end_s,
            "leeway": asdict(leeway),
            "moment_s": moment_s,
            "limits": asdict(self._limits),
        }
        self._num_reads += 1
        this_read, num_yielded = self._num_reads, 0
        for last_try in (False, True):
            request["decoder"] = "cpu" if last_try else self._decoder
            try:
                for message in itertools.islice(self._stream(request), num_yielded, None):
                    num_yielded += 1
                    yield message
                return
            except (_ChildTimedOutError, _ChildDiedError) as error:
                if this_read != self._num_reads:  # another read has taken the child away
                    raise self._as_video_error(error) from error
                self._count(error)
                if last_try:
                    raise self._as_video_error(error) from error
            except VideoError as error:
                if error.kind != "OutOfMemory":
                    raise
                self.close()  # its memory may be full of what it did not give back
                if last_try:
                    raise

    def start(self) -> None:
        """Starts the child now, to save the first read the wait for it."""
        if self._child is None and not self._is_stopped:
            self._child = _Child(self._command, self._timeout_s)
            self.num_children += 1
        if self._is_stopped:  # before, or meanwhile
            self.close()
            raise _ChildDiedError("the run was stopped")

    def stop(self) -> None:
        """For another thread: whatever is being read, and all that would be, fails at once. There is no way back."""
        self._is_stopped = True
        if (child := self._child) is not None:
            child.end()

    def require_hardware(self) -> None:
        """Waits until the child has tried the GPU, if one is to decode.

        Raises:
            WorkerError: it cannot be used.
        """
        if self._decoder == "cpu":
            return
        self.start()
        assert self._child is not None
        try:
            problem = self._child.hardware_problem()
        except (_ChildTimedOutError, _ChildDiedError) as error:
            problem = f"the GPU cannot be tried: {self._as_video_error(error).message}"
        if problem:
            self.close()
            raise WorkerError(f"--decoder nvdec does not work here: {problem}; or leave --decoder out")

    def close(self) -> None:
        """Ends the child. The decoder can be used again; it then starts a new one."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def __enter__(self) -> GuardedDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stream(self, request: dict[str, Any]) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
        """One try. Whatever ends it early, a consumer that stops included, ends the child: its pipe is half read."""
        child = self._ready_child()
        finished = False
        try:
            child.send(request)
            for message in child.messages(request["size_px"]):
                finished = isinstance(message, (DecodeEnd, VideoError))
                if isinstance(message, VideoError):
                    raise message
                yield message
        finally:
            child.busy = False
            if not finished:
                child.kill()

    def _ready_child(self) -> _Child:
        if self._child is not None and (self._child.busy or not self._child.is_running()):
            self.close()
        self.start()
        assert self._child is not None
        self._child.busy = True
        return self._child

    def _count(self, error: Exception) -> None:
        if isinstance(error, _ChildTimedOutError):
            self.num_timeouts += 1
        else:
            self.num_crashes += 1

    def _as_video_error(self, error: Exception) -> VideoError:
        if isinstance(error, _ChildTimedOutError):
            return VideoError("decode", "TimedOut", f"the decoder made no progress for {self._timeout_s:g} s")
        return VideoError("decode", "DecoderCrashed", f"the decoder crashed ({error})")


class _Child:
    """The child process and its two pipes."""

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
            raise _ChildDiedError(self._how_it_died()) from error

    def hardware_problem(self) -> str:
        """Why no GPU can be used; empty if one can. To be asked before anything else, and only if one was asked for."""
        try:
            return str(wire.unpack(self._read_exactly)[0]["problem"])
        except (wire.WireError, KeyError) as error:
            raise _ChildDiedError("it sent nonsense") from error

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
                raise _ChildDiedError("it sent nonsense") from error

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
                raise _ChildTimedOutError
            num_read = os.readv(fd, [view[filled:]])
            if num_read == 0:
                raise _ChildDiedError(self._how_it_died())
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
            fcntl.fcntl(pipe, set_size, _PIPE_BYTES)
