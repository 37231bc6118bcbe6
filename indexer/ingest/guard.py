"""Decode in a child process that may hang, crash or run out of memory without taking the indexer along.

    parent: GuardedDecoder ──request──▶ child: decode_worker ──info, frames, alive, end─▶ parent

No signal or thread can stop a decoder that hangs inside native code; killing its process can. The child is kept
from one video to the next, since starting one takes some 0.2 s.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Unpack

from indexer.errors import VideoError, WorkerError
from indexer.ingest.decode_child import ChildDiedError, ChildTimedOutError, DecodeChild
from indexer.ingest.leeway import EXACTLY
from indexer.ingest.paths import source_path
from indexer.ingest.sampled import DecodeEnd, DecodeLimits, SampledFrame, VideoInfo
from indexer.ingest.wanted import WantedFrames


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
        self._child: DecodeChild | None = None
        self._num_reads = 0
        self._is_stopped = False
        self.num_children = self.num_timeouts = self.num_crashes = 0

    def read_video(self, path: str, **wanted: Unpack[WantedFrames]) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
        """The stream of `video.read_video`, decoded in the child. Starting another read ends the one before it.

        Raises:
            VideoError: what `video.read_video` raises; and stage "decode", kinds TimedOut, DecoderCrashed, OutOfMemory.
        """
        request: dict[str, Any] = {
            **wanted,
            "path": source_path(path),
            "leeway": asdict(wanted.get("leeway", EXACTLY)),
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
            except (ChildTimedOutError, ChildDiedError) as error:
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
            self._child = DecodeChild(self._command, self._timeout_s)
            self.num_children += 1
        if self._is_stopped:  # before, or meanwhile
            self.close()
            raise ChildDiedError("the run was stopped")

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
        except (ChildTimedOutError, ChildDiedError) as error:
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

    def _ready_child(self) -> DecodeChild:
        if self._child is not None and (self._child.busy or not self._child.is_running()):
            self.close()
        self.start()
        assert self._child is not None
        self._child.busy = True
        return self._child

    def _count(self, error: Exception) -> None:
        if isinstance(error, ChildTimedOutError):
            self.num_timeouts += 1
        else:
            self.num_crashes += 1

    def _as_video_error(self, error: Exception) -> VideoError:
        if isinstance(error, ChildTimedOutError):
            return VideoError("decode", "TimedOut", f"the decoder made no progress for {self._timeout_s:g} s")
        return VideoError("decode", "DecoderCrashed", f"the decoder crashed ({error})")
