"""Reading a range, and reading without decoding everything, give the very frames that the definition names."""

from __future__ import annotations

import bisect
import os
from dataclasses import dataclass
from functools import partial

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.ingest import needed, sparse
from indexer.ingest.coded import NotOrdinaryError
from indexer.ingest.container import open_container
from indexer.ingest.leeway import EXACTLY, Leeway
from indexer.ingest.opened import OpenedVideo
from indexer.ingest.pixels import PixelReader
from indexer.ingest.sampled import KEY_FRAMES, LINEAR, SPARSE, DecodeEnd, DecodeLimits, SampledFrame
from indexer.ingest.sparse import read_sparsely
from indexer.ingest.timeline import SamplingGrid
from indexer.ingest.video import read_video

REGULAR = list(range(0, 12_000, 40))
UNEVEN = sorted({i * i * 7 % 11_983 for i in range(150)} | {0})
SMALL = {"width": 64, "height": 48}
X264 = {"bf": "3", "g": "40"}
OPEN = {"x264-params": "open-gop=1:bframes=4:keyint=30:min-keyint=30"}
X265 = {"x265-params": "open-gop=1:bframes=4:keyint=25:log-level=0"}
PYRAMID = {"x264-params": "bframes=7:b-pyramid=normal:keyint=60"}

# name → (file, times in ms, arguments of `SyntheticVideos.write`)
CASES = {
    "B-frames": ("bframes.mp4", REGULAR, {"options": X264}),
    "B-frames, one group": ("one.mp4", REGULAR, {"options": {"bf": "3", "g": "999"}}),
    "pyramid of B-frames": (
        "pyramid.mkv",
        REGULAR,
        {"options": PYRAMID},
    ),
    "open groups": ("open.mp4", REGULAR, {"options": OPEN}),
    "open groups, ts": (
        "open.ts",
        REGULAR,
        {"options": OPEN},
    ),
    "no key frames but the first": ("refresh.mp4", REGULAR, {"options": {"x264-params": "intra-refresh=1:keyint=30"}}),
    "interlaced": ("interlaced.mp4", REGULAR, {"options": {"x264-params": "tff=1:bframes=2:keyint=40"}}),
    "uneven": ("uneven.mp4", UNEVEN, {"options": X264}),
    "uneven, mkv": ("uneven.mkv", UNEVEN, {"options": X264}),
    "delayed": ("delayed.mp4", [time + 2500 for time in REGULAR], {"options": X264}),
    "cut by an edit list": ("edited.mp4", list(range(-600, 11_000, 40)), {"options": X264}),
    "transport stream": ("late.ts", [time + 700 for time in UNEVEN], {"options": X264}),
    "fragmented": ("fragmented.mp4", REGULAR, {"options": X264 | {"movflags": "frag_keyframe+empty_moov"}}),
    "all key frames": ("intra.mp4", REGULAR, {"options": {"g": "1"}}),
    "MPEG-2": ("mpeg2.ts", REGULAR, {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}}),
    "HEVC, ts": (
        "hevc.ts",
        REGULAR[:150],
        {"codec": "libx265", "options": X265},
    ),
    "HEVC": (
        "hevc.mp4",
        REGULAR[:150],
        {"codec": "libx265", "options": X265},
    ),
    "VP9": ("vp9.webm", REGULAR[:150], {"codec": "libvpx-vp9", "options": {"g": "40", "cpu-used": "8"}}),
    "VP8": ("vp8.webm", REGULAR[:150], {"codec": "libvpx", "options": {"g": "40", "auto-alt-ref": "1"}}),
    "MPEG-4 in AVI": ("mpeg4.avi", REGULAR, {"codec": "mpeg4", "options": {"g": "25"}}),
    "with sound": ("sound.mp4", REGULAR, {"options": X264, "sound_s": 12.0}),
}


@dataclass
class Film:
    """A synthetic video and when its frames are shown, by definition."""

    path: str
    starts_s: list[float]  # of the frames that are shown, from the start of the file's timeline
    numbers: list[int]
    number: object

    def expected(self, rate_hz: float, start_s: float, end_s: float | None, duration_s: float) -> list[tuple]:
        """(target, number of the frame shown then) for the targets in [start_s, end_s)."""
        targets = [(k + 0.5) / rate_hz for k in range(int(duration_s * rate_hz) + 2)]
        targets = [t for t in targets if start_s <= t < (end_s if end_s is not None else 1e9) and t < duration_s]
        shown = [(t, bisect.bisect_right(self.starts_s, t + 1e-6) - 1) for t in targets]
        return [(t, self.numbers[i]) for t, i in shown if i >= 0]

    def found(self, frames: list[SampledFrame]) -> list[tuple]:
        return [(frame.target_s, self.number(frame.pixels)) for frame in frames]


def write_mpeg2(videos, name, times_ms, *, codec, width, height, options):
    """As `SyntheticVideos.write`, for a codec that takes no arbitrary times: 25 frames a second."""
    path = videos.folder / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(len(times_ms)):
            picture = videos.picture(number, width, height)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


@pytest.fixture(scope="module")
def films(make_videos, tmp_path_factory):
    """Makes each film once: films("uneven")."""
    videos, made = make_videos(tmp_path_factory.mktemp("films")), {}

    def film(case: str) -> Film:
        if case not in made:
            name, times_ms, arguments = CASES[case]
            write = partial(write_mpeg2, videos) if case == "MPEG-2" else videos.write
            path = write(name, times_ms, **SMALL, **arguments)
            first_ms = 0 if case == "cut by an edit list" else times_ms[0]
            shown = [(i, time) for i, time in enumerate(times_ms) if time >= first_ms]
            starts_s = [(time - first_ms) / 1000 for _, time in shown]
            made[case] = Film(path, starts_s, [i for i, _ in shown], videos.number)
        return made[case]

    return film


def read(path, rate_hz=1.0, **arguments):
    """(frames, end)"""
    _, *frames, end = read_video(path, frame_rate_hz=rate_hz, size_px=32, **arguments)
    assert isinstance(end, DecodeEnd)
    return frames, end


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=6, deadline=None)
@given(
    rate_hz=st.sampled_from([0.2, 0.5, 1.0, 2.0, 3.3, 7.0, 23.0]),
    start_s=st.one_of(st.just(0.0), st.floats(0, 13)),
    length_s=st.one_of(st.none(), st.floats(0, 6)),
)
def test_range_gives_the_frames_shown_at_its_targets(films, case, rate_hz, start_s, length_s):
    film = films(case)
    end_s = None if length_s is None else start_s + length_s
    whole, whole_end = read(film.path, rate_hz)

    frames, end = read(film.path, rate_hz, start_s=start_s, end_s=end_s)

    assert film.found(frames) == film.expected(rate_hz, start_s, end_s, whole_end.duration_s)
    in_range = [(f.time_s, f.target_s) for f in whole if start_s <= f.target_s < (1e9 if end_s is None else end_s)]
    assert [(frame.time_s, frame.target_s) for frame in frames] == in_range
    assert whole_end.duration_s == pytest.approx(film.starts_s[-1], abs=0.2)
    assert end.warning is None


def sparse_only(path, rate_hz, **arguments):
    """What `read_sparsely` does by itself, without a fall-back."""
    seek, leeway = arguments.pop("seek", True), arguments.pop("leeway", EXACTLY)
    moment_s = arguments.pop("moment_s", None)
    with open_container(path) as container:
        video = OpenedVideo(container, DecodeLimits(), PixelReader(32), None)
        _, *frames, end = read_sparsely(video, SamplingGrid(rate_hz, **arguments), leeway, moment_s, seek=seek)
        return frames, end


# Packets do not say all there is to say: pictures refreshed bit by bit, frames not shown, no presentation times.
UNUSUAL = {"no key frames but the first", "VP8", "MPEG-4 in AVI"}


@pytest.mark.parametrize("case", sorted(set(CASES) - UNUSUAL))
def test_ordinary_files_need_no_fall_back(films, case):
    film = films(case)

    frames, end = sparse_only(film.path, 1.0)

    assert film.found(frames) == film.expected(1.0, 0, None, end.duration_s)
    assert end.num_coded == len(film.starts_s)


def test_groups_without_targets_and_unreferenced_frames_are_not_decoded(films):
    film = films("B-frames")  # groups of 1.6 s

    _, often = sparse_only(film.path, 25.0)
    _, seldom = sparse_only(film.path, 1.0)
    _, rarely = sparse_only(film.path, 0.1)

    assert (often.plan, often.num_decoded) == (LINEAR, 300)
    assert seldom.plan == SPARSE
    assert seldom.num_decoded < 150
    assert rarely.num_decoded < 25


@pytest.mark.parametrize("case", ["B-frames", "open groups", "uneven, mkv", "all key frames"])
@pytest.mark.parametrize("tolerance_s", [0.5, 2.0, 30.0])
def test_near_key_frame_is_taken_in_place_of_the_frame_shown(films, case, tolerance_s):
    film = films(case)
    with av.open(film.path) as container:
        stream = container.streams.video[0]
        origin_s = container.start_time / av.time_base
        keys_s = [float(p.pts * p.time_base) - origin_s for p in container.demux(stream) if p.size and p.is_keyframe]

    frames, end = sparse_only(film.path, 1.0, leeway=Leeway(key_frame_s=tolerance_s))

    for frame in frames:
        nearest_s = min(keys_s, key=lambda key_s: abs(key_s - frame.target_s))
        if frame.target_s - tolerance_s <= nearest_s < frame.target_s + tolerance_s:
            assert frame.time_s == pytest.approx(nearest_s)
        else:
            shown = bisect.bisect_right(film.starts_s, frame.target_s) - 1
            assert frame.time_s == pytest.approx(film.starts_s[shown])
        assert film.starts_s[film.numbers.index(film.number(frame.pixels))] == pytest.approx(frame.time_s)
    assert end.plan == KEY_FRAMES if tolerance_s == 30 else end.num_decoded <= end.num_coded


THRIFTY = {"leeway": Leeway(key_frame_s=1.0, earlier_s=1.0, within_moment=True), "moment_s": 3.0}


@pytest.mark.parametrize("case", sorted(set(CASES) - UNUSUAL))
@settings(max_examples=4, deadline=None)
@given(first=st.integers(0, 3), length=st.one_of(st.none(), st.integers(1, 3)))
def test_range_of_whole_moments_gives_the_frames_of_a_whole_read(films, case, first, length):
    film = films(case)
    start_s, end_s = first * 3.0, None if length is None else (first + length) * 3.0
    whole, _ = read(film.path, **THRIFTY)

    frames, _ = read(film.path, **THRIFTY, start_s=start_s, end_s=end_s)

    def facts(frame):
        return frame.target_s, frame.time_s, frame.pixels.tobytes()

    in_range = [frame for frame in whole if start_s <= frame.target_s < (1e9 if end_s is None else end_s)]
    assert list(map(facts, frames)) == list(map(facts, in_range))


@pytest.mark.parametrize("case", sorted(set(CASES) - UNUSUAL))
def test_cheaper_frames_are_near_and_say_when_they_are_shown(films, case):
    film = films(case)
    exact, exact_end = sparse_only(film.path, 1.0)

    frames, end = sparse_only(film.path, 1.0, **THRIFTY)

    assert [frame.target_s for frame in frames] == [frame.target_s for frame in exact]
    for frame, shown in zip(frames, exact, strict=True):
        near = -1.3 <= frame.time_s - frame.target_s < 1.0 and frame.time_s // 3 == frame.target_s // 3
        assert near or frame.time_s == shown.time_s
        assert film.starts_s[film.numbers.index(film.number(frame.pixels))] == pytest.approx(frame.time_s)
    assert end.num_decoded <= exact_end.num_decoded
    assert end.num_coded == exact_end.num_coded


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv"])
def test_far_targets_are_sought_not_read_up_to(make_videos, tmp_path, name):
    videos = make_videos(tmp_path)
    path = videos.write(name, range(0, 120_000, 100), **SMALL, options={"bf": "2", "g": "50"})
    num_packets = []

    def count():
        num_packets.append(1)

    arguments = {"frame_rate_hz": 0.04, "size_px": 32}
    _, *frames, end = read_video(path, **arguments, on_packet=count)
    _, *late, _ = read_video(path, **arguments, start_s=80.0)

    assert [(f.target_s, videos.number(f.pixels)) for f in frames] == [
        (t, t * 10) for t in (12.5, 37.5, 62.5, 87.5, 112.5)
    ]
    assert [(f.target_s, videos.number(f.pixels)) for f in late] == [(87.5, 875), (112.5, 1125)]
    assert end.duration_s == pytest.approx(120, abs=0.1)
    assert end.num_coded is None
    assert len(num_packets) < 1000


def test_file_that_cannot_be_searched_is_read_up_to_the_range(make_videos, tmp_path):
    videos = make_videos(tmp_path)
    path = videos.write("a.mkv", range(0, 60_000, 100), **SMALL, options={"bf": "2", "g": "50"})
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:  # without the list of key frames at its end, and half of the last group
        file.write(data[: int(len(data) * 0.95)])

    frames, end = read(path, 0.1, start_s=30.0, end_s=50.0)

    assert [(f.target_s, videos.number(f.pixels)) for f in frames] == [(35.0, 350), (45.0, 450)]
    assert end.num_decoded < 300


def test_search_that_lands_too_late_is_given_up(films, monkeypatch):
    film = films("B-frames")
    monkeypatch.setattr(sparse, "_SEEK_MARGIN_S", -6.0)
    monkeypatch.setattr(sparse, "_MIN_GAP_S", 1.0)

    with pytest.raises(NotOrdinaryError, match="too far"):
        sparse_only(film.path, 1.0, start_s=5.2)
    frames, _ = read(film.path, 1.0, start_s=5.2)

    assert film.found(frames) == film.expected(1.0, 5.2, None, 12.0)


def test_little_is_held_back_where_groups_are_long(films, monkeypatch):
    film = films("B-frames, one group")
    monkeypatch.setattr(needed, "MAX_HELD_BYTES", 300)

    frames, end = sparse_only(film.path, 0.2)

    assert film.found(frames) == film.expected(0.2, 0, None, end.duration_s)


def test_what_was_given_before_a_fall_back_is_not_given_again(make_videos, tmp_path):
    videos = make_videos(tmp_path)
    path = videos.write("a.mp4", range(0, 8000, 40), **SMALL, options={"g": "25"})
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(bytes(range(256)) * 3)

    frames, end = read(path, 5.0)

    assert [frame.target_s for frame in frames] == [pytest.approx((k + 0.5) / 5) for k in range(40)]
    assert end.plan == LINEAR
    assert end.warning is not None
