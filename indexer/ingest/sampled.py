"""What reading a video gives: facts of the file, the sampled frames, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

KEY_FRAMES = "keyframes"  # only key frames were decoded
SPARSE = "sparse"  # groups of pictures, or parts of them, were left out
LINEAR = "linear"  # everything was decoded
PLANS = (KEY_FRAMES, SPARSE, LINEAR)


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
        audio_language: see `schema.VIDEOS`.
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
    audio_language: str | None = None


@dataclass(frozen=True, kw_only=True)
class SampledFrame:
    """The frame that is shown at `target_s`, or one that was taken in its place: see `Leeway`.

    A frame shown over several targets comes once for each, with the very same `pixels` object.

    Attributes:
        time_s: presentation time of the frame, seconds from the start of the file's timeline; at most `target_s` but
            for a key frame, which may come later.
        target_s: the moment asked for, seconds.
        pixels: uint8 [size, size, 3], RGB, upright, squashed to the square.
        thumbnail: of the moment that ends with this frame: JPEG, upright, aspect kept, at most 320 px long; None
            for all other frames, and if not asked for.
    """

    time_s: float
    target_s: float
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    thumbnail: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class DecodeEnd:
    """How it ended.

    Attributes:
        duration_s: end of the last frame that was met, seconds.
        num_decoded: frames decoded, kept or not.
        warning: set if the file was readable only in part; one line for people. What was never decoded is not checked.
        plan: how it was read, one of `PLANS`.
        num_coded: frames that the file, or the range, holds; None where that is not known without reading all of it.
        resize_s: seconds that went into pixels and thumbnails. Two reads are equal whatever they took.
        on_hardware: whether a GPU decoded it; likewise.
    """

    duration_s: float
    num_decoded: int
    warning: str | None
    plan: str = LINEAR
    num_coded: int | None = None
    resize_s: float = field(default=0.0, compare=False, repr=False)
    on_hardware: bool = field(default=False, compare=False, repr=False)
