"""Read a video: what it is, and the frames that the sampling grid asks for.

    file → packets → which are needed → frames → which are wanted → pixels

Everything here runs in the calling process; `guard.py` runs it in a child that may be killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

from indexer.errors import VideoError
from indexer.ingest.coded import NotOrdinaryError
from indexer.ingest.container import ffmpeg_errors, open_container
from indexer.ingest.hardware import HardwareDecoder
from indexer.ingest.leeway import EXACTLY, Leeway
from indexer.ingest.linear import read_linearly
from indexer.ingest.opened import OpenedVideo
from indexer.ingest.pixels import PixelReader
from indexer.ingest.sampled import DecodeEnd, DecodeLimits, SampledFrame, VideoInfo
from indexer.ingest.sparse import can_read_sparsely, read_sparsely
from indexer.ingest.thumbnails import with_thumbnails
from indexer.ingest.timeline import SamplingGrid

__all__ = ["DecodeEnd", "DecodeLimits", "SampledFrame", "VideoInfo", "read_video"]


def read_video(
    path: str,
    *,
    frame_rate_hz: float,
    size_px: int,
    start_s: float = 0.0,
    end_s: float | None = None,
    leeway: Leeway = EXACTLY,
    moment_s: float | None = None,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 (frozen)
    on_packet: Callable[[], None] | None = None,
    hardware: HardwareDecoder | None = None,
) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
    """Yields one VideoInfo, then SampledFrames in order of time, then one DecodeEnd.

    Targets are (k + 0.5) / frame_rate_hz. A video too short to hold one gives its last frame, once. A frame is held
    for at most 60 s. Damage in the middle is skipped as FFmpeg does, and becomes `DecodeEnd.warning`; damage in what
    need not be decoded is not noticed. Where the file is not as it should be, all of it is decoded.

    Args:
        frame_rate_hz: frames wanted a second, above 0.
        size_px: side of `SampledFrame.pixels`.
        start_s, end_s: only targets in [start_s, end_s), seconds; each gets the frame that a whole read gives it. None
            means the end of the video. A range without targets gives VideoInfo and DecodeEnd alone.
        leeway: which frames may be taken in place of the one shown at a target, so that less need be decoded.
        moment_s: moments are [0, L), [L, 2L), ... seconds. The last frame of each carries a thumbnail of the one
            nearest its middle that is not nearly of one colour. None: all is one moment, without a thumbnail.
        on_packet: called for every packet read from the file, sound included.
        hardware: decodes in place of the CPU as long as all is well.

    Raises:
        VideoError: stage "read" (not there, empty, no permission), "open" (not a video, no picture, too large) or
            "decode" (no frame could be decoded).
    """
    reader = PixelReader(size_px)
    grid = partial(SamplingGrid, frame_rate_hz, start_s=start_s, end_s=end_s)
    sparsely = partial(read_sparsely, leeway=leeway, moment_s=moment_s)
    reached = _Reached()

    def decoded_by(hardware: HardwareDecoder | None) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
        return _best_way(path, grid, sparsely, reader, limits, on_packet, reached, hardware)

    stream = decoded_by(None) if hardware is None else _with_fallback(decoded_by(hardware), decoded_by(None))
    for item in stream if moment_s is None else with_thumbnails(stream, reader, moment_s):
        yield replace(item, resize_s=reader.spent_s) if isinstance(item, DecodeEnd) else item


def _with_fallback(
    on_hardware: Iterator[VideoInfo | SampledFrame | DecodeEnd], on_cpu: Iterator[VideoInfo | SampledFrame | DecodeEnd]
) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
    """Whatever goes wrong on the hardware, the CPU goes on from there and finds out what it was."""
    with suppress(VideoError, NotOrdinaryError):
        yield from on_hardware
        return
    yield from on_cpu


def _best_way(
    path: str,
    new_grid: Callable[[], SamplingGrid],
    sparsely: Callable[..., Iterator[VideoInfo | SampledFrame | DecodeEnd]],
    reader: PixelReader,
    limits: DecodeLimits,
    on_packet: Callable[[], None] | None,
    reached: _Reached,
    hardware: HardwareDecoder | None,
) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
    """Without decoding everything, and if that does not work from there on by decoding everything.

    Raises:
        NotOrdinaryError: it does not work on the hardware, where all is as it should be or nothing.
    """
    seek = sparse = True
    while True:
        with open_container(path, hardware.accel if hardware else None) as container, ffmpeg_errors("decode"):
            video = OpenedVideo(container, limits, reader, on_packet)
            sparse = sparse and can_read_sparsely(video)
            if hardware is not None and not (sparse and hardware.decodes(video.stream.codec_context)):
                raise NotOrdinaryError("a codec or a container that is left to the CPU")
            grid = new_grid()
            stream = sparsely(video, grid, seek=seek) if sparse else read_linearly(video, grid)
            try:
                yield from reached.rest_of(stream)
                return
            except NotOrdinaryError:  # once more from the start if there was a search, else by decoding everything
                reached.num_decoded += video.num_decoded
                if hardware is not None:
                    raise
                seek, sparse = False, seek and video.was_searched


class _Reached:
    """How far one way of reading came before another takes over."""

    def __init__(self) -> None:
        self.num_decoded = 0
        self._gave_info = False
        self._last_target_s = -1.0

    def rest_of(
        self, stream: Iterator[VideoInfo | SampledFrame | DecodeEnd]
    ) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
        """What the caller has not been given yet."""
        already_s, had_info = self._last_target_s, self._gave_info
        for item in stream:
            if isinstance(item, DecodeEnd):
                yield replace(item, num_decoded=item.num_decoded + self.num_decoded)
            elif isinstance(item, VideoInfo):
                self._gave_info = True
                if not had_info:
                    yield item
            elif item.target_s > already_s:
                self._last_target_s = item.target_s
                yield item
