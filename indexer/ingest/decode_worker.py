"""The child process of `guard.GuardedDecoder`.

    python -m indexer.ingest.decode_worker PARENT_PID MEMORY_BYTES DECODER

Reads one request after another from stdin and answers with messages on stdout (see `wire.py`): info, frames, alive
(every half second in which packets were decoded), then end or error. The first of all messages says whether the GPU
can be used, if one was asked for. The child dies with its parent, and ignores Ctrl-C: the parent decides.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
import time
from dataclasses import asdict
from typing import Any, BinaryIO

import av.subtitles.stream  # noqa: F401 (PyAV loads it when it meets a file; by then memory is limited)
from PIL import Image

from indexer.errors import VideoError
from indexer.ingest import wire
from indexer.ingest.hardware import HardwareDecoder, HardwareError
from indexer.ingest.leeway import Leeway
from indexer.ingest.video import DecodeEnd, DecodeLimits, SampledFrame, VideoInfo, read_video

ALIVE_INTERVAL_S = 0.5
# Frames that are sent together, since each time the parent wakes up this process has to stop.
_MAX_UNSENT_BYTES = wire.PIPE_BYTES // 2
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    parent_pid, memory_bytes, decoder = int(arguments[0]), int(arguments[1]), arguments[2]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(parent_pid)
    Image.preinit()
    requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    _close_standard_streams()
    worker = _Worker(answers)
    is_on_gpu = decoder == "nvdec" and worker.open_hardware()
    _limit_memory(memory_bytes, of_data=is_on_gpu)
    gc.freeze()  # so that looking for what a video left behind takes less than a millisecond
    while True:
        try:
            request = _next_request(requests)
        except EOFError:
            return 0
        worker.answer(request)
        gc.collect()  # PyAV's files and streams refer to each other, and keep decoders with all their pictures


def _die_with_parent(parent_pid: int) -> None:
    """Asks Linux to kill this process when the thread that started it ends; elsewhere the closed pipes do it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def _limit_memory(memory_bytes: int, *, of_data: bool) -> None:
    """Limits the address space; or the memory that the process can write, beyond what it has of that already.

    CUDA reserves more addresses than there is memory, and has its share of the latter before the limit is set.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":  # elsewhere RLIMIT_AS is refused or means nothing
        return
    limit = resource.RLIMIT_DATA if of_data else resource.RLIMIT_AS
    wanted = memory_bytes + (_data_bytes() if of_data else 0)
    _, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _data_bytes() -> int:
    """What RLIMIT_DATA counts, as the kernel says."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))


def _close_standard_streams() -> None:
    """A library that prints must not end up in the middle of a message."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)


def _next_request(requests: BinaryIO) -> dict[str, Any]:
    def read_exactly(length: int) -> bytearray:
        data = requests.read(length)
        if len(data) < length:
            raise EOFError
        return bytearray(data)

    return wire.unpack(read_exactly)[0]


class _Worker:
    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._unsent: list[memoryview] = []
        self._alive_at = 0.0
        self._pixels: object = None  # those of the last frame sent
        self._hardware: HardwareDecoder | None = None

    def open_hardware(self) -> bool:
        """Starts CUDA and tells the parent how that went."""
        try:
            self._hardware = HardwareDecoder()
            self._write({"type": "hardware", "problem": ""})
        except HardwareError as error:
            self._write({"type": "hardware", "problem": str(error)})
        return self._hardware is not None

    def answer(self, request: dict[str, Any]) -> None:
        limits, leeway = DecodeLimits(**request.pop("limits")), Leeway(**request.pop("leeway"))
        hardware = self._hardware if request.pop("decoder") == "nvdec" else None
        try:
            for message in read_video(
                **request, leeway=leeway, limits=limits, on_packet=self._alive, hardware=hardware
            ):
                self._send(message)
        except BrokenPipeError:
            raise
        except VideoError as error:
            self._write_error(error)
        except Exception as error:  # the boundary of one video: what we did not foresee must name itself to the parent
            self._write_error(VideoError("decode", "Unexpected", f"{type(error).__name__}: {error}"))
        self._pixels = None

    def _write_error(self, error: VideoError) -> None:
        self._write({"type": "error", "stage": error.stage, "kind": error.kind, "message": error.message})

    def _send(self, message: VideoInfo | SampledFrame | DecodeEnd) -> None:
        if isinstance(message, SampledFrame):
            self._send_frame(message)
        else:
            self._write({"type": "info" if isinstance(message, VideoInfo) else "end", **asdict(message)})

    def _send_frame(self, frame: SampledFrame) -> None:
        again = frame.pixels is self._pixels
        self._pixels = frame.pixels
        bodies = [] if again else [frame.pixels.data.cast("B")]
        bodies += [] if frame.thumbnail is None else [memoryview(frame.thumbnail)]
        head = {"type": "frame", "time_s": frame.time_s, "target_s": frame.target_s, "again": again}
        self._unsent += map(memoryview, wire.pack(head, *bodies))
        if sum(map(len, self._unsent)) > _MAX_UNSENT_BYTES:
            self._flush()

    def _alive(self) -> None:
        if time.monotonic() - self._alive_at > ALIVE_INTERVAL_S:
            self._write({"type": "alive"})

    def _write(self, head: dict[str, Any]) -> None:
        self._unsent += map(memoryview, wire.pack(head))
        self._flush()

    def _flush(self) -> None:
        self._alive_at = time.monotonic()
        rest, self._unsent = self._unsent, []
        while rest:
            written = os.writev(self._answers, rest)
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if rest:
                rest[0] = rest[0][written:]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:
        os._exit(0)
