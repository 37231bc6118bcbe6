"""One open video: its stream, its clock, what it says of itself, what went wrong while it was read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from indexer.errors import VideoError
from indexer.ingest.coded import NotOrdinaryError
from indexer.ingest.container import Damage, choose_stream, is_cover_art, out_of_memory, require_size
from indexer.ingest.hardware import FRAME_FORMAT, is_like_the_cpus
from indexer.ingest.languages import language_code
from indexer.ingest.pixels import PixelReader, orientation
from indexer.ingest.sampled import DecodeLimits, SampledFrame, VideoInfo
from indexer.ingest.timeline import plausible_period_s


class OpenedVideo:
    """What the ways of reading a video share.

    Attributes:
        damage: what could not be decoded so far.
        num_decoded: frames decoded so far.
        stopped: why reading stopped before the end, one line, or None.
        on_hardware: whether it was the hardware that decoded.
        was_searched: whether anything but reading on has been done.
        origin_s: where the file's timeline starts, seconds; None if the file does not say.
        time_base: seconds a tick.
        nominal_s: how long a frame lasts that does not say so itself, seconds.
    """

    def __init__(
        self,
        container: InputContainer,
        limits: DecodeLimits,
        reader: PixelReader,
        on_packet: Callable[[], None] | None,
    ) -> None:
        self.container = container
        self.limits = limits
        self.on_packet = on_packet or (lambda: None)
        self.stream = choose_stream(container, limits.max_pixels)
        self.damage = Damage()
        self.on_hardware = False
        self.num_decoded = 0
        self.stopped: str | None = None
        self.was_searched = False
        self.origin_s = _origin_s(container, self.stream)
        self.time_base = self.stream.time_base or Fraction(1, av.time_base)
        self._numerator, self._denominator = self.time_base.as_integer_ratio()
        self.nominal_s = plausible_period_s(_fps(self.stream))
        self._reader = reader

    def seconds(self, ticks: int) -> float:
        """Rounded once, as float(ticks * time_base) is, in a twentieth of its time."""
        return ticks * self._numerator / self._denominator

    def count(self, frame: VideoFrame) -> None:
        """To be called with every decoded frame.

        Raises:
            VideoError: stage "open", kind TooLarge.
            NotOrdinaryError: a frame from hardware that has not the pixels of the CPU's.
        """
        self.num_decoded += 1
        require_size(frame.width, frame.height, self.limits.max_pixels)
        if frame.format.name == FRAME_FORMAT:
            self.on_hardware = True
            if not is_like_the_cpus(frame, self.stream.codec_context):
                raise NotOrdinaryError("the hardware gives another picture")

    def sampled(self, frame: VideoFrame, time_s: float, targets_s: list[float]) -> Iterator[SampledFrame]:
        """The frame once for each target; nothing if its pixels cannot be converted.

        Raises:
            NotOrdinaryError: they cannot be had from the hardware.
        """
        try:
            pixels = self._reader.read(frame)
        except (av.error.FFmpegError, ValueError) as error:
            if self.on_hardware:
                raise NotOrdinaryError("a frame cannot be had from the hardware") from error
            self.damage.note(time_s)
            return
        for target_s in targets_s:
            yield SampledFrame(time_s=time_s, target_s=target_s, pixels=pixels)

    def has_enough(self, num_kept: int) -> bool:
        """Whether so many sampled frames are all that may be read; notes that reading stopped then."""
        if is_enough := num_kept >= self.limits.max_frames_kept:
            self.stopped = f"only the first {num_kept} sampled frames were read (the limit)"
        return is_enough

    def is_too_late(self, time_s: float) -> bool:
        """Whether frames at this time are no longer read; notes that reading stopped then."""
        if is_late := time_s >= self.limits.max_duration_s:
            self.stopped = f"only the first {self.limits.max_duration_s / 3600:g} hours were read (the limit)"
        return is_late

    def info(self, frame: VideoFrame) -> VideoInfo:
        """Facts of the file; what it looks like is taken from the frame."""
        degrees, _ = orientation(frame)
        width, height = (frame.width, frame.height) if degrees % 180 == 0 else (frame.height, frame.width)
        return VideoInfo(
            container=self.container.format.name,
            video_codec=self.stream.codec_context.codec.canonical_name,
            width=width,
            height=height,
            fps=_fps(self.stream),
            rotation_deg=degrees,
            has_audio=bool(self.container.streams.audio),
            title=_clean(self.container.metadata.get("title")),
            stated_duration_s=self._stated_duration_s(),
            audio_language=_stated_language(self.container),
        )

    def no_frames(self) -> VideoError:
        """Why there is no frame at all."""
        if self.damage.encrypted:
            return VideoError("decode", "Encrypted", "the video is encrypted: no frame could be decoded")
        if self.damage.out_of_memory:
            return out_of_memory("decode")
        if self.stopped:
            return VideoError("decode", "TooLong", f"no frame before the limit: {self.stopped}")
        reason = f": {self.damage.num_packets} damaged packets" if self.damage.num_packets else ""
        return VideoError("decode", "NoFrames", f"no frame could be decoded{reason}")

    def warning(self, end_s: float | None, timeline: str | None = None) -> str | None:
        """What was wrong, one line, or None.

        Args:
            end_s: where the video ended; None if only the range did.
            timeline: what was wrong with the timestamps.
        """
        cut_off = None if end_s is None else self._cut_off(end_s)
        return "; ".join(part for part in (self.damage.describe(), timeline, self.stopped or cut_off) if part) or None

    def _stated_duration_s(self) -> float | None:
        """The stream's own length if the header gives one, else the container's."""
        if self.stream.duration is not None and self.stream.time_base is not None:
            return float(self.stream.duration * self.stream.time_base)
        return None if self.container.duration is None else self.container.duration / av.time_base

    def _cut_off(self, end_s: float) -> str | None:
        stated_s = self._stated_duration_s()
        reached_s = max(end_s, self.damage.other_streams_end_s)
        if stated_s is None or is_cover_art(self.stream) or reached_s >= stated_s - max(1.0, 0.05 * stated_s):
            return None
        return f"the file ends at {end_s:.1f} s of {stated_s:.1f} s"


def _stated_language(container: InputContainer) -> str | None:
    """What all audio streams that state a language agree on; if none does, the subtitle streams."""
    for streams in (container.streams.audio, container.streams.subtitles):
        stated = {language_code(stream.metadata.get("language")) for stream in streams} - {None}
        if stated:
            return stated.pop() if len(stated) == 1 else None
    return None


def _origin_s(container: InputContainer, stream: VideoStream) -> float | None:
    if container.start_time is not None:
        return container.start_time / av.time_base
    if stream.start_time is not None and stream.time_base is not None:
        return float(stream.start_time * stream.time_base)
    return None


def _fps(stream: VideoStream) -> float | None:
    return float(stream.average_rate) if stream.average_rate else None


def _clean(title: str | None) -> str | None:
    """Printable text without surrogates, or None."""
    if title is None:
        return None
    text = title.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split()) or None
