"""Read a video by decoding all of it: slow, and right for every file that can be decoded at all."""

from __future__ import annotations

from collections.abc import Iterator

from av.video.frame import VideoFrame

from indexer.ingest.container import decode_frames
from indexer.ingest.opened import OpenedVideo
from indexer.ingest.sampled import LINEAR, DecodeEnd, SampledFrame, VideoInfo
from indexer.ingest.timeline import SamplingGrid, Timed, Timeline, TimestampGuess, shown_spans


def read_linearly(video: OpenedVideo, grid: SamplingGrid) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
    """The stream of `video.read_video`; always the very frames.

    Raises:
        VideoError: no frame could be decoded.
    """
    timeline: Timeline[VideoFrame] = Timeline()
    num_kept, num_in_range, end_s, left_range = 0, 0, 0.0, False
    last: Timed[VideoFrame] | None = None
    for shown, shown_until_s in shown_spans(_within_limit(video, _timed_frames(video, timeline))):
        if last is None:
            yield video.info(shown.frame)
        last, end_s = shown, shown_until_s
        if left_range := grid.is_past(shown.time_s):
            break
        num_in_range += grid.holds(shown.time_s)
        if targets := grid.within(shown.time_s, end_s):
            kept = list(video.sampled(shown.frame, shown.time_s, targets))
            num_kept += len(kept)
            yield from kept
        if video.has_enough(num_kept):
            break
    if last is None:
        raise video.no_frames()
    if not grid.has_met_target and not left_range and grid.holds(last.time_s):
        yield from video.sampled(last.frame, last.time_s, [last.time_s])
    yield DecodeEnd(
        duration_s=end_s,
        num_decoded=video.num_decoded,
        warning=video.warning(None if left_range else end_s, timeline.describe()),
        plan=LINEAR,
        num_coded=num_in_range,
    )


def _timed_frames(video: OpenedVideo, timeline: Timeline[VideoFrame]) -> Iterator[Timed[VideoFrame]]:
    """Decoded frames in order of time."""
    guess = TimestampGuess()
    origin_s = video.origin_s
    for frame in decode_frames(video.container, video.stream, video.damage, video.on_packet):
        video.count(frame)
        stamp = guess.choose(frame.pts, frame.dts)
        if stamp is not None and origin_s is None:
            origin_s = video.seconds(stamp)
        time_s = None if stamp is None else video.seconds(stamp) - (origin_s or 0.0)
        period_s = video.seconds(frame.duration) if frame.duration else video.nominal_s
        yield from timeline.push(time_s, period_s, frame)
    yield from timeline.finish()


def _within_limit(video: OpenedVideo, frames: Iterator[Timed[VideoFrame]]) -> Iterator[Timed[VideoFrame]]:
    for timed in frames:
        if video.is_too_late(timed.time_s):
            return
        yield timed
