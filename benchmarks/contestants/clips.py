"""Clips of one size, rate and length, cut from whatever videos there are."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import av

WIDTH_PX, HEIGHT_PX, FRAME_RATE_HZ = 640, 360, 30
_MOST_DIFFERENT = 48


def make_clips(videos: Sequence[Path], folder: Path, num_clips: int, length_s: float) -> list[Path]:
    """Re-encodes the videos as H.264 (x264's default key frames), each clip another start and, if short, repeated.

    Nobody in the race remembers a clip, so beyond 48 they are copies: encoding takes longer than the race.

    Args:
        videos: sources, used in turn.
        folder: created; the clips are clip_0000.mp4 and so on.
        num_clips: clips to make.
        length_s: length of each, s.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips = [folder / f"clip_{number:04d}.mp4" for number in range(num_clips)]
    for number, clip in enumerate(clips[:_MOST_DIFFERENT]):
        _write(clip, _pictures(videos, first=number), round(length_s * FRAME_RATE_HZ))
    for number, clip in enumerate(clips[_MOST_DIFFERENT:]):
        shutil.copyfile(clips[number % _MOST_DIFFERENT], clip)
    return clips


def _pictures(videos: Sequence[Path], first: int) -> Iterator[av.VideoFrame]:
    for number in itertools.count(first):
        with av.open(str(videos[number % len(videos)])) as container:
            for frame in container.decode(video=0):
                pixels = frame.to_ndarray(format="yuv420p", width=WIDTH_PX, height=HEIGHT_PX)
                yield av.VideoFrame.from_ndarray(pixels, format="yuv420p")


def _write(path: Path, pictures: Iterator[av.VideoFrame], num_frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE_HZ, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for picture in itertools.islice(pictures, num_frames):
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
