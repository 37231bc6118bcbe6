"""Read a video: what it is, and the frames that the sampling grid asks for.

    file → packets → frames → Timeline (when is each shown) → SamplingGrid (which are wanted) → pixels

Everything here runs in the calling process; `guard.py` runs it in a child that may be killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from indexer.errors import VideoError
from indexer.ingest.container import (
    Damage,
    choose_stream,
    decode_frames,
    ffmpeg_errors,
    is_cover_art,
    open_container,
    out_of_memory,
    require_size,
)
from indexer.ingest.pixels import PixelReader, orientation
from indexer.ingest.timeline import SamplingGrid, Timed, Timeline, TimestampGuess, plausible_period_s, shown_spans


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What a video may cost.

    Attributes:
        max_pixels: largest width x height, pixels; larger videos fail as TooLarge.
        max_duration_s: decoding stops at this time, seconds; the video is then read in part, with a warning.
        max_frames_kept: likewise for the number of sampled frames.
    """

    max_pixels: int = 8192 * 8192
    max_duration_s: float = 24 * 3600.0
    max_frames_kept: int = 500_000


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What the file is. `width` and `height` are pixels after rotation; the sample aspect ratio is ignored.

    Attributes:
        container: format, FFmpeg's name.
        video_codec: FFmpeg's name.
        fps: average frame rate that the container states, frames per second.
        rotation_deg: clockwise rotation that was applied, 0, 90, 180 or 270 degrees.
        stated_duration_s: length that the header claims, seconds; may be far off.
    """

    container: str
    video_codec: str
    width: int
    height: int
    fps: float | None
    rotation_deg: int
    has_audio: bool
    title: str | None
    stated_duration_s: float | None


@dataclass(frozen=True, kw_only=True)
class SampledFrame:
    """The frame that is shown at `target_s`.

    A frame shown over several targets comes once for each, with the very same `pixels` and `thumbnail` objects.

    Attributes:
        time_s: presentation time of the frame, seconds from the start of the file's timeline; at most `target_s`.
        target_s: the moment asked for, seconds.
        pixels: uint8 [size, size, 3], RGB, upright, squashed to the square.
        thumbnail: JPEG, upright, aspect kept, longest side at most 320 px; None if not asked for.
    """

    time_s: float
    target_s: float
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    thumbnail: bytes | None


@dataclass(frozen=True, kw_only=True)
class DecodeEnd:
    """How it ended.

    Attributes:
        duration_s: end of the last frame that was decoded, seconds.
        num_decoded: frames decoded, kept or not.
        warning: set if the file was readable only in part; one line for people.
    """

    duration_s: float
    num_decoded: int
    warning: str | None


def read_video(
    path: str,
    *,
    frame_rate_hz: float,
    size_px: int,
    thumbnails: bool = True,
    limits: DecodeLimits = DecodeLimits(),
    on_packet: Callable[[], None] | None = None,
) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
    """Yields one VideoInfo, then SampledFrames in order of time, then one DecodeEnd.

    Targets are (k + 0.5) / frame_rate_hz. A video too short to hold one gives its last frame, once. A frame is held
    for at most 60 s. Damage in the middle is skipped as FFmpeg does, and becomes `DecodeEnd.warning`.

    Args:
        frame_rate_hz: frames wanted a second, above 0.
        size_px: side of `SampledFrame.pixels`.
        on_packet: called for every packet read from the file, sound included.

    Raises:
        VideoError: stage "read" (not there, empty, no permission), "open" (not a video, no picture, too large) or
            "decode" (no frame could be decoded).
    """
    with open_container(path) as container, ffmpeg_errors("decode"):
        yield from _Reading(container, limits, on_packet).sample(
            frame_rate_hz, PixelReader(size_px, thumbnails=thumbnails)
        )


class _Reading:
    """One pass over one open file."""

    def __init__(self, container: InputContainer, limits: DecodeLimits, on_packet: Callable[[], None] | None) -> None:
        self._container = container
        self._limits = limits
        self._on_packet = on_packet
        self._stream = choose_stream(container, limits.max_pixels)
        self._damage = Damage()
        self._timeline: Timeline[VideoFrame] = Timeline()
        self._num_decoded = 0
        self._stopped: str | None = None

    def sample(self, frame_rate_hz: float, reader: PixelReader) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
        grid = SamplingGrid(frame_rate_hz)
        num_kept, end_s = 0, 0.0
        last: Timed[VideoFrame] | None = None
        for shown, end_s in shown_spans(self._within_limit(self._timed_frames())):
            if last is None:
                yield self._info(shown.frame)
            last = shown
            targets = grid.within(shown.time_s, end_s)
            if targets:
                kept = list(self._kept(shown, targets, reader))
                num_kept += len(kept)
                yield from kept
            if num_kept >= self._limits.max_frames_kept:
                self._stopped = f"only the first {num_kept} sampled frames were read (the limit)"
                break
        if last is None:
            raise self._no_frames()
        if not num_kept:
            yield from self._kept(last, [last.time_s], reader)
        yield DecodeEnd(duration_s=end_s, num_decoded=self._num_decoded, warning=self._warning(end_s))

    def _timed_frames(self) -> Iterator[Timed[VideoFrame]]:
        """Decoded frames in order of time."""
        guess = TimestampGuess()
        origin_s = self._origin_s()
        nominal_s = plausible_period_s(_fps(self._stream))
        time_base = self._stream.time_base or Fraction(1, av.time_base)
        for frame in decode_frames(self._container, self._stream, self._damage, self._on_packet):
            self._num_decoded += 1
            require_size(frame.width, frame.height, self._limits.max_pixels)
            stamp = guess.choose(frame.pts, frame.dts)
            if stamp is not None and origin_s is None:
                origin_s = float(stamp * time_base)
            time_s = None if stamp is None else float(stamp * time_base) - (origin_s or 0.0)
            period_s = float(frame.duration * time_base) if frame.duration else nominal_s
            yield from self._timeline.push(time_s, period_s, frame)
        yield from self._timeline.finish()

    def _within_limit(self, frames: Iterator[Timed[VideoFrame]]) -> Iterator[Timed[VideoFrame]]:
        for timed in frames:
            if timed.time_s >= self._limits.max_duration_s:
                self._stopped = f"only the first {self._limits.max_duration_s / 3600:g} hours were read (the limit)"
                return
            yield timed

    def _origin_s(self) -> float | None:
        if self._container.start_time is not None:
            return self._container.start_time / av.time_base
        if self._stream.start_time is not None and self._stream.time_base is not None:
            return float(self._stream.start_time * self._stream.time_base)
        return None

    def _kept(self, shown: Timed[VideoFrame], targets: list[float], reader: PixelReader) -> Iterator[SampledFrame]:
        try:
            pixels, thumbnail = reader.read(shown.frame)
        except (av.error.FFmpegError, ValueError):  # a pixel format or size that swscale will not take
            self._damage.note(shown.time_s)
            return
        for target_s in targets:
            yield SampledFrame(time_s=shown.time_s, target_s=target_s, pixels=pixels, thumbnail=thumbnail)

    def _info(self, frame: VideoFrame) -> VideoInfo:
        degrees, _ = orientation(frame)
        width, height = (frame.width, frame.height) if degrees % 180 == 0 else (frame.height, frame.width)
        return VideoInfo(
            container=self._container.format.name,
            video_codec=self._stream.codec_context.codec.canonical_name,
            width=width,
            height=height,
            fps=_fps(self._stream),
            rotation_deg=degrees,
            has_audio=bool(self._container.streams.audio),
            title=_clean(self._container.metadata.get("title")),
            stated_duration_s=self._stated_duration_s(),
        )

    def _stated_duration_s(self) -> float | None:
        """The stream's own length if the header gives one, else the container's."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return None if self._container.duration is None else self._container.duration / av.time_base

    def _no_frames(self) -> VideoError:
        if self._damage.encrypted:
            return VideoError("decode", "Encrypted", "the video is encrypted: no frame could be decoded")
        if self._damage.out_of_memory:
            return out_of_memory("decode")
        if self._stopped:
            return VideoError("decode", "TooLong", f"no frame before the limit: {self._stopped}")
        reason = f": {self._damage.num_packets} damaged packets" if self._damage.num_packets else ""
        return VideoError("decode", "NoFrames", f"no frame could be decoded{reason}")

    def _warning(self, end_s: float) -> str | None:
        parts = [self._damage.describe(), self._timeline.describe(), self._stopped or self._cut_off(end_s)]
        return "; ".join(part for part in parts if part) or None

    def _cut_off(self, end_s: float) -> str | None:
        stated_s = self._stated_duration_s()
        reached_s = max(end_s, self._damage.other_streams_end_s)
        if stated_s is None or is_cover_art(self._stream) or reached_s >= stated_s - max(1.0, 0.05 * stated_s):
            return None
        return f"the file ends at {end_s:.1f} s of {stated_s:.1f} s"


def _fps(stream: VideoStream) -> float | None:
    return float(stream.average_rate) if stream.average_rate else None


def _clean(title: str | None) -> str | None:
    """Printable text without surrogates, or None."""
    if title is None:
        return None
    text = title.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split()) or None
