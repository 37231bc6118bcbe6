"""From a decoded frame to the pixels that the model sees and the thumbnail that people see, both upright."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

THUMBNAIL_LONGEST_PX = 320
JPEG_QUALITY = 80


def orientation(frame: VideoFrame) -> tuple[int, bool]:
    """How to stand the frame upright: mirror it left to right if the second value says so, then turn it clockwise by
    the first value, 0, 90, 180 or 270 degrees. Read from the display matrix; other angles are rounded to the nearest.
    """
    try:
        side_data = cast(Mapping[str, Any], frame.side_data)  # PyAV's stub names only one of the types
    except ValueError:  # PyAV does not know every type of side data that FFmpeg has, and then shows none of it
        return round(-frame.rotation / 90) % 4 * 90, False
    if "DISPLAYMATRIX" not in side_data:
        return 0, False
    matrix = struct.unpack("=9i", bytes(side_data["DISPLAYMATRIX"])[:36])
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]  # x' = ax + cy, y' = bx + dy, y downwards
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return round(math.degrees(math.atan2(b, a)) / 90) % 4 * 90, mirrored


class PixelReader:
    """Converts frames one after another; the scalers are kept between frames of the same size.

    Attributes:
        last_frame: the one whose pixels were read last.
        spent_s: seconds that this took so far.
    """

    def __init__(self, size_px: int) -> None:
        self._size_px = size_px
        self._to_square = VideoReformatter()
        self._to_thumbnail = VideoReformatter()
        self.last_frame: VideoFrame | None = None
        self.spent_s = 0.0

    def read(self, frame: VideoFrame) -> Pixels:
        """Returns uint8 [size, size, 3] RGB, upright, squashed to the square inside FFmpeg.

        Raises:
            FFmpegError, ValueError: a pixel format or size that swscale will not take.
        """
        with self._timed():
            degrees, mirrored = orientation(frame)
            pixels = upright(_scaled(self._to_square, frame, self._size_px, self._size_px), degrees, mirrored)
            self.last_frame = frame
            return np.ascontiguousarray(pixels)

    def thumbnail(self, frame: VideoFrame) -> bytes | None:
        """A JPEG of a frame; None if it cannot be made that small."""
        with self._timed(), contextlib.suppress(av.error.FFmpegError, ValueError):
            degrees, mirrored = orientation(frame)
            scale = min(1.0, THUMBNAIL_LONGEST_PX / max(frame.width, frame.height))
            width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
            pixels = upright(_scaled(self._to_thumbnail, frame, width, height), degrees, mirrored)
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="JPEG", quality=JPEG_QUALITY)
            return buffer.getvalue()
        return None

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s += time.perf_counter() - started


def upright(pixels: Pixels, degrees: int, mirrored: bool) -> Pixels:
    """Mirrors left to right if asked, then turns clockwise."""
    if mirrored:
        pixels = pixels[:, ::-1]
    return np.rot90(pixels, k=-(degrees // 90))


def _scaled(reformatter: VideoReformatter, frame: VideoFrame, width: int, height: int) -> Pixels:
    scaled = reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
    return scaled.to_ndarray()  # type: ignore[return-value]
