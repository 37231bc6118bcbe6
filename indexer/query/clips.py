"""A moment as a short MP4 that a browser plays: cut from the original, upright, small, starting at the moment.

    seek → key frame before the start → decode forward → frames shown in [start_s, end_s) → H.264 + AAC

Times are those of the index: seconds from the container's start time (see `indexer.ingest.timeline`).
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from indexer.errors import UsageError, VideoError
from indexer.ingest.container import Damage, choose_stream, decode_frames, ffmpeg_errors, open_container, require_size
from indexer.ingest.pixels import Pixels, orientation, upright
from indexer.ingest.timeline import Timed, Timeline, TimestampGuess, plausible_period_s, shown_spans

Shown = tuple[Timed[VideoFrame], float]  # a frame and the second at which it stops being shown

_MAX_PIXELS = 8192 * 8192
_TIME_BASE = Fraction(1, 90_000)
_SOUND_RATE_HZ = 48_000
_SOUND_SAMPLES = 1024  # of one AAC frame
# Some containers seek to a key frame after the one asked for; then it is tried from further back, at last from the
# beginning.
_SEEK_BACK_S = (0.0, 5.0, 30.0)
# Frames decoded before the start, at most: about ten minutes without a key frame.
_MAX_LEAD_IN_FRAMES = 20_000
# VP9 is what is left where FFmpeg was built without x264: every current browser plays it in an MP4.
_ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "26", "bf": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "34", "b": "0"},
}


def make_clip(
    path: str | os.PathLike[str], start_s: float, end_s: float, *, max_side_px: int = 640, max_length_s: float = 60
) -> bytes:
    """Cuts [start_s, end_s) out of a video: the first frame is the one that is shown at `start_s`.

    Decodes from the key frame before the start, never the whole file. The clip has the sound of the original if it
    can be decoded. Files glued together, whose timestamps start again, are cut where their own timestamps say.

    Args:
        path: of a video, or its s3:// URI; of an object only what is needed is fetched.
        start_s, end_s: seconds on the timeline of the index.
        max_side_px: longest side of the picture, at least 16; never enlarged; sides are rounded to even numbers.
        max_length_s: what lies beyond is left out.

    Returns:
        An MP4 (H.264 or VP9, yuv420p; AAC), its index in front.

    Raises:
        UsageError: the span is empty, negative or not a number, or a limit is too small.
        VideoError: the video cannot be read, or has no picture in the span.
    """
    _require_span(start_s, end_s, max_side_px, max_length_s)
    end_s = min(end_s, start_s + max_length_s)
    path = os.fspath(path)
    with tempfile.TemporaryDirectory(prefix="videobert-clip-") as folder:
        target = os.path.join(folder, "clip.mp4")
        with ffmpeg_errors("decode"), av.open(target, "w", options={"movflags": "+faststart"}) as output:
            picture = _Picture(output, max_side_px)
            sound = _sound(path, start_s, end_s)
            _write(output, picture, _frames_between(path, start_s, end_s), sound)
        with open(target, "rb") as file:
            return file.read()


def _require_span(start_s: float, end_s: float, max_side_px: int, max_length_s: float) -> None:
    if not (0 <= start_s < end_s and math.isfinite(end_s)):
        raise UsageError(f"a clip needs a start of at least 0 s and an end after it, got {start_s!r} to {end_s!r}")
    if max_side_px < 16:
        raise UsageError(f"the longest side of a clip must be at least 16 pixels, got {max_side_px!r}")
    if not max_length_s > 0:
        raise UsageError(f"the length of a clip must be above 0 s, got {max_length_s!r}")


def _write(
    output: OutputContainer, picture: _Picture, frames: Iterator[tuple[float, float, VideoFrame]], sound: Any
) -> None:
    for offset_s, duration_s, frame in frames:
        if sound is not None and not picture.is_open:
            picture.open(frame)
            _write_sound(output, sound)
        picture.write(frame, offset_s, duration_s)
    picture.finish()


def _frames_between(path: str, start_s: float, end_s: float) -> Iterator[tuple[float, float, VideoFrame]]:
    """(offset, duration, frame) of all frames shown in the span, seconds from its start; the first has offset 0."""
    from_s = start_s
    for shown, until_s in _shown_from(path, start_s):
        if shown.time_s >= end_s:
            break
        yield from_s - start_s, min(until_s, end_s) - from_s, shown.frame
        from_s = min(until_s, end_s)
    if from_s == start_s:
        raise VideoError("decode", "NoFrames", f"the video has no picture at {start_s:.1f} s")


def _shown_from(path: str, start_s: float) -> Iterator[Shown]:
    """Frames in order of time; the first is the one shown at `start_s`, or the next if there is a gap."""
    for back_s in _SEEK_BACK_S:
        if back_s < start_s:
            spans = _decode_from(path, start_s - back_s)
            first = _first_shown(spans, start_s)
            if first is not None and first[0].time_s <= start_s:
                return chain([first], spans)
    spans = _decode_from(path, 0.0)
    first = _first_shown(spans, start_s, need_key_frame=False)
    return iter(()) if first is None else chain([first], spans)


def _first_shown(spans: Iterator[Shown], start_s: float, *, need_key_frame: bool = True) -> Shown | None:
    """Takes spans until one lasts beyond `start_s`; None if there is none, or no whole key frame came up to it.

    Containers call packets key frames that are none, and decoders make pictures without their references.
    """
    is_whole = not need_key_frame
    for num_before, (shown, until_s) in enumerate(spans):
        is_whole = is_whole or (shown.frame.key_frame and not shown.frame.is_corrupt)
        if until_s > start_s:
            return (shown, until_s) if is_whole else None
        if num_before >= _MAX_LEAD_IN_FRAMES:
            text = f"no key frame in the {_MAX_LEAD_IN_FRAMES} frames before {start_s:.1f} s: it would take too long"
            raise VideoError("decode", "NoKeyframe", text)
    return None


def _decode_from(path: str, seek_s: float) -> Iterator[Shown]:
    """Frames from the key frame before `seek_s`; none if the file cannot seek there."""
    with open_container(path) as container:
        stream = choose_stream(container, _MAX_PIXELS)
        if seek_s > 0:
            _prime(container, stream)
            if not _seek(container, stream, seek_s):
                return
        yield from shown_spans(_timed_frames(container, stream))


def _prime(container: InputContainer, stream: VideoStream) -> None:
    """Decodes the first packet, the only one in which x264 says how its 4:4:4 is to be read (FFmpeg's h264 decoder)."""
    with contextlib.suppress(av.error.FFmpegError):
        next(container.demux(stream)).decode()


def _seek(container: InputContainer, stream: Stream, seek_s: float) -> bool:
    """Goes to the key frame before `seek_s`. False, and nothing has changed, where that fails."""
    try:
        container.seek(int((seek_s + _origin_s(container)) / (stream.time_base or _TIME_BASE)), stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def _origin_s(container: InputContainer) -> float:
    return (container.start_time or 0) / av.time_base


def _timed_frames(container: InputContainer, stream: VideoStream) -> Iterator[Timed[VideoFrame]]:
    guess, timeline = TimestampGuess(), Timeline[VideoFrame]()
    nominal_s = plausible_period_s(float(stream.average_rate) if stream.average_rate else None)
    for frame in decode_frames(container, stream, Damage()):
        require_size(frame.width, frame.height, _MAX_PIXELS)
        stamp = guess.choose(frame.pts, frame.dts)
        time_base = frame.time_base or stream.time_base or _TIME_BASE
        time_s = None if stamp is None else float(stamp * time_base) - _origin_s(container)
        period_s = float(frame.duration * time_base) if frame.duration else nominal_s
        yield from timeline.push(time_s, period_s, frame)
    yield from timeline.finish()


class _Picture:
    """The video stream of the clip; it takes its size from the first frame."""

    def __init__(self, output: OutputContainer, max_side_px: int) -> None:
        self._output = output
        self._max_side_px = max_side_px
        self._stream: Any = None
        self._to_rgb, self._to_yuv = VideoReformatter(), VideoReformatter()
        self._turn = (0, False)
        self._size = (0, 0)  # before the picture is turned
        self._durations: dict[int, int] = {}

    @property
    def is_open(self) -> bool:
        return self._stream is not None

    def open(self, frame: VideoFrame) -> None:
        name = next((name for name in _ENCODERS if name in av.codecs_available), None)
        if name is None:
            raise VideoError("encode", "NoEncoder", f"this FFmpeg has none of the encoders {', '.join(_ENCODERS)}")
        self._turn = orientation(frame)
        self._size = width, height = _even_size(frame.width, frame.height, self._max_side_px)
        stream: Any = self._output.add_stream(name, rate=30, options=_ENCODERS[name])
        stream.width, stream.height = (width, height) if self._turn[0] % 180 == 0 else (height, width)
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        context = stream.codec_context
        context.color_range = context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709, limited
        self._stream = stream

    def write(self, frame: VideoFrame, offset_s: float, duration_s: float) -> None:
        if not self.is_open:
            self.open(frame)
        picture = self._convert(frame)
        picture.pts, picture.time_base = round(offset_s / _TIME_BASE), _TIME_BASE
        if picture.pts in self._durations:  # two frames in the same 1/90,000 s
            return
        self._durations[picture.pts] = max(1, round((offset_s + duration_s) / _TIME_BASE) - picture.pts)
        self._mux(self._stream.encode(picture))

    def finish(self) -> None:
        self._mux(self._stream.encode(None))

    def _convert(self, frame: VideoFrame) -> VideoFrame:
        """Scales inside FFmpeg, turns, and goes to yuv420p in the one colour space that browsers assume."""
        width, height = self._size
        pixels: Pixels = self._to_rgb.reformat(frame, width=width, height=height, format="rgb24").to_ndarray()  # type: ignore[assignment]
        turned = VideoFrame.from_ndarray(np.ascontiguousarray(upright(pixels, *self._turn)), format="rgb24")
        return self._to_yuv.reformat(turned, format="yuv420p", dst_colorspace=Colorspace.ITU709)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._durations.get(packet.pts, packet.duration)
            self._output.mux(packet)


def _even_size(width: int, height: int, max_side_px: int) -> tuple[int, int]:
    """Aspect kept, longest side at most `max_side_px`, both sides even and at least 16: H.264 wants that."""
    scale = min(1.0, max_side_px / max(width, height))
    return max(16, int(width * scale) // 2 * 2), max(16, int(height * scale) // 2 * 2)


def _sound(path: str, start_s: float, end_s: float) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """float32 [2, samples] at 48 kHz for the whole span, silent where there is none; None if all of it is."""
    samples = np.zeros((2, round((end_s - start_s) * _SOUND_RATE_HZ)), np.float32)
    found = False
    try:
        with open_container(path) as container:
            for time_s, part in _sound_parts(container, start_s):
                at = round((time_s - start_s) * _SOUND_RATE_HZ)
                if at >= samples.shape[1]:
                    break
                part = part[:, max(0, -at) :]
                room = samples[:, max(0, at) : max(0, at) + part.shape[1]]
                room[:] = part[:, : room.shape[1]]
                found = found or room.shape[1] > 0
    except (av.error.FFmpegError, VideoError, ValueError):
        pass  # damaged sound must not hide the picture: what was decoded before is kept
    return samples if found else None


def _sound_parts(container: InputContainer, start_s: float) -> Iterator[tuple[float, np.ndarray[Any, Any]]]:
    """(time in seconds, float32 [2, n]) from somewhat before the start."""
    stream = next((stream for stream in container.streams.audio if stream.codec_context is not None), None)
    if stream is None:
        return
    if start_s > 0:
        _seek(container, stream, start_s)
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=_SOUND_RATE_HZ)
    for frame in container.decode(stream):
        if frame.pts is None or frame.time_base is None:
            continue
        for part in resampler.resample(frame):
            if part.pts is not None and part.time_base is not None:
                yield float(part.pts * part.time_base) - _origin_s(container), part.to_ndarray()


def _write_sound(output: OutputContainer, samples: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    stream: Any = output.add_stream("aac", rate=_SOUND_RATE_HZ, layout="stereo")
    stream.bit_rate = 96_000
    for at in range(0, samples.shape[1], _SOUND_SAMPLES):
        part = np.ascontiguousarray(samples[:, at : at + _SOUND_SAMPLES])
        frame = AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = _SOUND_RATE_HZ, at, Fraction(1, _SOUND_RATE_HZ)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
