"""One thumbnail a moment: of the frame nearest its middle that shows something."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from av.video.frame import VideoFrame

from indexer.ingest.pixels import PixelReader, Pixels
from indexer.ingest.sampled import DecodeEnd, SampledFrame, VideoInfo
from indexer.ingest.segments import window_of

# Standard deviation of the pixels (0 to 255) below which a frame shows next to nothing: black, or faded.
_BLANK_STD = 12.0
_STEP_PX = 7  # a thousand pixels tell it as well as all of them


def with_thumbnails(
    stream: Iterator[VideoInfo | SampledFrame | DecodeEnd], reader: PixelReader, moment_s: float
) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
    """Passes everything on; the last frame of each moment carries the thumbnail of the moment.

    That frame comes only when what follows it is known. One decoded frame is held, so that no JPEG is made in vain.

    Args:
        reader: what `stream` gets its pixels from.
        moment_s: moments are [0, L), [L, 2L), ... seconds.
    """
    stated_s = math.inf
    last: SampledFrame | None = None
    window, best = -1, _Best(0.0)
    for item in stream:
        if last is not None:
            is_last = not isinstance(item, SampledFrame) or window_of(item.target_s, moment_s) != window
            yield replace(last, thumbnail=best.jpeg(reader)) if is_last else last
            last = None
        if not isinstance(item, SampledFrame):
            stated_s = (item.stated_duration_s or math.inf) if isinstance(item, VideoInfo) else math.inf
            yield item
            continue
        last = item
        if window_of(item.target_s, moment_s) != window:
            window = window_of(item.target_s, moment_s)
            end_s = (window + 1) * moment_s
            best = _Best((window * moment_s + (stated_s if item.target_s < stated_s < end_s else end_s)) / 2)
        best.see(item, reader.last_frame)


class _Best:
    """The best frame so far for a moment whose middle is at `middle_s`."""

    def __init__(self, middle_s: float) -> None:
        self._middle_s = middle_s
        self._rank = (True, math.inf)
        self._frame: VideoFrame | None = None

    def see(self, sampled: SampledFrame, frame: VideoFrame | None) -> None:
        distance_s = abs(sampled.target_s - self._middle_s)
        if (False, distance_s) >= self._rank:  # no better, blank or not
            return
        rank = (_is_blank(sampled.pixels), distance_s)
        if rank < self._rank:
            self._rank, self._frame = rank, frame

    def jpeg(self, reader: PixelReader) -> bytes | None:
        return None if self._frame is None else reader.thumbnail(self._frame)


def _is_blank(pixels: Pixels) -> bool:
    return float(pixels[_STEP_PX // 2 :: _STEP_PX, _STEP_PX // 2 :: _STEP_PX].std()) <= _BLANK_STD
