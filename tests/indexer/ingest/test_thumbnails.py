"""Each moment has one thumbnail, and it shows the right frame: against picking it from the list of all frames."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.ingest.sampled import DecodeEnd, SampledFrame, VideoInfo
from indexer.ingest.thumbnails import with_thumbnails
from indexer.ingest.video import read_video

INFO = VideoInfo(
    container="c",
    video_codec="v",
    width=4,
    height=4,
    fps=None,
    rotation_deg=0,
    has_audio=False,
    title=None,
    stated_duration_s=None,
)
CLEAR = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)
BLANK = np.full((64, 64, 3), 40, np.uint8)


class Reader:
    """Its frames are numbers, a thumbnail is the number as text."""

    last_frame: object = None

    def thumbnail(self, frame):
        return str(frame).encode()


def chosen(targets_s, blank, moment_s):
    """What the stream carries as thumbnails: {number of the frame that carries one: number of the frame shown}"""
    reader = Reader()

    def stream():
        yield INFO
        for number, target_s in enumerate(targets_s):
            reader.last_frame = number
            pixels = BLANK if number in blank else CLEAR
            yield SampledFrame(time_s=target_s, target_s=target_s, pixels=pixels)
        yield DecodeEnd(duration_s=100.0, num_decoded=1, warning=None)

    items = list(with_thumbnails(stream(), reader, moment_s))
    assert isinstance(items[0], VideoInfo)
    assert isinstance(items[-1], DecodeEnd)
    assert [item.target_s for item in items[1:-1]] == list(targets_s)
    return {number: int(item.thumbnail) for number, item in enumerate(items[1:-1]) if item.thumbnail is not None}


@settings(deadline=None)
@given(num_frames=st.integers(1, 35), blank=st.sets(st.integers(0, 34)), moment_s=st.sampled_from([1.0, 4.0, 10.0]))
def test_moment_shows_the_frame_nearest_its_middle_that_is_not_blank(num_frames, blank, moment_s):
    targets_s = [k + 0.5 for k in range(num_frames)]
    expected = {}
    for window in range(math.ceil(num_frames / moment_s)):
        inside = [k for k in range(num_frames) if window * moment_s <= targets_s[k] < (window + 1) * moment_s]
        middle_s = (window + 0.5) * moment_s
        candidates = [k for k in inside if k not in blank] or inside
        expected[inside[-1]] = min(candidates, key=lambda k: abs(targets_s[k] - middle_s))

    assert chosen(targets_s, blank, moment_s) == expected


def test_video_without_frames_has_no_thumbnail():
    assert chosen([], set(), 10.0) == {}


@pytest.mark.parametrize(("length_s", "expected"), [(4.0, 1), (12.0, 4)])
def test_middle_of_a_moment_ends_with_the_video(synthetic, length_s, expected):
    path = synthetic.write("a.mp4", range(0, int(length_s * 1000), 100))

    _, *frames, _ = read_video(path, frame_rate_hz=1.0, size_px=64, moment_s=10.0)

    first = next(frame for frame in frames if frame.thumbnail)
    shown_s = synthetic.number(np.asarray(Image.open(io.BytesIO(first.thumbnail)))) / 10
    assert shown_s == [frame.time_s for frame in frames][expected]
