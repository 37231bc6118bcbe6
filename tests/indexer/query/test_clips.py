"""Clips: from synthetic videos whose frames show their own number."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from indexer.errors import UsageError, VideoError
from indexer.query import clips
from indexer.query.clips import make_clip

RATE_HZ = 10
KEY_FRAME_INTERVAL = 25
SOUND_RATE_HZ = 16_000
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "videos"


@pytest.fixture
def write(synthetic) -> Callable[..., str]:
    """8 s at 10 Hz, a key frame every 2.5 s."""

    def write(name: str, **options: Any) -> str:
        return synthetic.write(name, range(0, 8000, 1000 // RATE_HZ), options={"g": str(KEY_FRAME_INTERVAL)}, **options)

    return write


@pytest.fixture
def video(write) -> str:
    return write("video.mp4", sound_s=8.0)


@pytest.fixture
def numbers_of(synthetic) -> Callable[[bytes], list[int]]:
    """Which frame of the source each frame of a clip is."""
    return lambda clip: [synthetic.number(pixels) for _, pixels in frames_of(clip)]


def frames_of(clip: bytes) -> list[tuple[float, np.ndarray]]:
    """(time in seconds, uint8 [height, width, 3])."""
    with av.open(io.BytesIO(clip)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def duration_of(clip: bytes) -> float:
    with av.open(io.BytesIO(clip)) as container:
        return container.duration / av.time_base


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """A list that grows by one with every frame decoded from now on."""
    decoded: list[None] = []
    decode_frames = clips.decode_frames
    monkeypatch.setattr(clips, "decode_frames", lambda *args: (decoded.append(None) or f for f in decode_frames(*args)))
    return decoded


@pytest.mark.parametrize("start_s", [0.0, 2.5, 3.72, 4.9])
def test_clip_starts_with_the_frame_shown_at_the_start(video, numbers_of, start_s) -> None:
    first, last = int(start_s * RATE_HZ + 1e-6), int((start_s + 1.5) * RATE_HZ - 1e-6)
    assert numbers_of(make_clip(video, start_s, start_s + 1.5)) == list(range(first, last + 1))


def test_clip_times_start_at_zero_and_keep_the_rhythm(video) -> None:
    times_s = [time_s for time_s, _ in frames_of(make_clip(video, 3.72, 4.5))]
    assert times_s[0] == 0
    np.testing.assert_allclose(times_s[1:], np.arange(1, len(times_s)) / RATE_HZ - 0.02, atol=1e-3)


@pytest.mark.parametrize(("end_s", "expected_s"), [(4.0, 2.0), (100.0, 6.0)])
def test_clip_lasts_as_long_as_the_span_or_the_video(write, end_s, expected_s) -> None:
    assert duration_of(make_clip(write("v.mp4"), 2.0, end_s)) == pytest.approx(expected_s, abs=0.02)


def test_clip_is_cut_at_max_length(video) -> None:
    assert duration_of(make_clip(video, 1.0, 8.0, max_length_s=2)) == pytest.approx(2.0, abs=0.05)


def test_clip_uses_the_timeline_of_the_container_when_it_does_not_start_at_zero(write, numbers_of) -> None:
    video = write("v.ts")  # MPEG-TS starts later than 0 s
    with av.open(video) as container:
        assert container.start_time > 0
    assert numbers_of(make_clip(video, 5.0, 5.5)) == [50, 51, 52, 53, 54]


def test_clip_is_the_same_where_seeking_fails(video, monkeypatch) -> None:
    sought = make_clip(video, 6.03, 7.0)
    monkeypatch.setattr(clips, "_seek", lambda *args: False)
    assert make_clip(video, 6.03, 7.0) == sought


def test_clip_is_right_where_seeking_lands_after_the_start(video, numbers_of, monkeypatch) -> None:
    seek = clips._seek
    monkeypatch.setattr(clips, "_seek", lambda container, stream, seek_s: seek(container, stream, seek_s + 4))
    assert numbers_of(make_clip(video, 6.0, 6.3)) == [60, 61, 62]


def test_clip_starts_with_the_first_frame_where_the_picture_starts_late(synthetic, numbers_of) -> None:
    video = synthetic.write("late.mkv", range(2000, 4000, 100), sound_s=4.0)
    clip = make_clip(video, 0.0, 3.0)
    assert (frames_of(clip)[0][0], numbers_of(clip)[0], duration_of(clip)) == (0.0, 0, pytest.approx(3.0, abs=0.05))


@pytest.mark.parametrize("size", [(97, 65), (96, 65), (1280, 722)])
def test_clip_sides_are_even_and_bounded(write, size) -> None:
    video = write("v.mkv", width=size[0], height=size[1], pix_fmt="yuv444p")
    height, width, _ = frames_of(make_clip(video, 1.0, 1.2, max_side_px=320))[0][1].shape
    assert (width % 2, height % 2) == (0, 0)
    assert width == min(320, size[0] // 2 * 2)
    assert height == pytest.approx(width * size[1] / size[0], abs=2)


@pytest.mark.parametrize("degrees_ccw", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_clip_is_upright_when_the_source_is_turned(write, synthetic, degrees_ccw, mirrored) -> None:
    """FFmpeg mirrors what it has turned."""
    video = write("v.mp4", rotation_ccw_deg=degrees_ccw, mirrored=mirrored)
    expected = np.rot90(synthetic.picture(30), k=degrees_ccw // 90)
    expected = expected[:, ::-1] if mirrored else expected
    pixels = frames_of(make_clip(video, 3.0, 3.3))[0][1]
    assert pixels.shape == expected.shape
    assert synthetic.number(pixels) == synthetic.number(expected)


def write_tone(path: Path) -> str:
    """8 s of silence but for a tone from second 3 to 4, under a black picture."""
    times_s = np.arange(8 * SOUND_RATE_HZ) / SOUND_RATE_HZ
    samples = np.where((times_s >= 3) & (times_s < 4), np.sin(2 * np.pi * 440 * times_s) * 0.5, 0.0).astype(np.float32)
    sound = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    sound.sample_rate, sound.pts, sound.time_base = SOUND_RATE_HZ, 0, Fraction(1, SOUND_RATE_HZ)
    with av.open(str(path), "w") as output:
        picture, track = (
            output.add_stream("libx264", rate=1),
            output.add_stream("aac", rate=SOUND_RATE_HZ, layout="mono"),
        )
        picture.width = picture.height = 32
        picture.pix_fmt = "yuv420p"
        for _ in range(8):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            output.mux(picture.encode(frame))
        output.mux([*picture.encode(None), *track.encode(sound), *track.encode(None)])
    return str(path)


def test_clip_sound_is_in_step_with_the_picture(tmp_path) -> None:
    """The tone lasts from second 3 to 4 of the source: from 0.5 to 1.5 of the clip."""
    with av.open(io.BytesIO(make_clip(write_tone(tmp_path / "tone.mp4"), 2.5, 5.0))) as container:
        frames = [(frame.time, frame.to_ndarray(), frame.sample_rate) for frame in container.decode(audio=0)]
    loud = [time_s for time_s, samples, _ in frames if np.abs(samples).max() > 0.1]
    assert loud[0] == pytest.approx(0.5, abs=0.06)
    assert loud[-1] == pytest.approx(1.5, abs=0.06)


def test_clip_has_no_sound_track_when_the_source_has_none(write) -> None:
    with av.open(io.BytesIO(make_clip(write("v.mp4"), 1.0, 2.0))) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_clip_is_what_browsers_play(video) -> None:
    clip = make_clip(video, 1.0, 2.0)
    with av.open(io.BytesIO(clip)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert container.streams.audio[0].codec_context.name == "aac"
    assert clip.index(b"moov") < clip.index(b"mdat")  # a player can start before it has everything


def test_clip_decodes_no_more_than_one_group_of_pictures_before_the_start(video, monkeypatch) -> None:
    decoded = count_decoded(monkeypatch)
    make_clip(video, 6.0, 6.5)
    assert len(decoded) <= KEY_FRAME_INTERVAL + 5 + 10  # ten are held back to be sorted


@pytest.mark.parametrize(
    ("start_s", "end_s", "max_side_px", "max_length_s"),
    [(-1, 2, 640, 60), (3, 3, 640, 60), (0, float("nan"), 640, 60), (0, 1, 8, 60), (0, 1, 640, 0)],
)
def test_clip_refuses_a_senseless_span_or_limit(video, start_s, end_s, max_side_px, max_length_s) -> None:
    with pytest.raises(UsageError):
        make_clip(video, start_s, end_s, max_side_px=max_side_px, max_length_s=max_length_s)


def test_clip_beyond_the_end_of_the_video_is_an_error(video) -> None:
    with pytest.raises(VideoError, match=r"no picture at 50\.0 s"):
        make_clip(video, 50, 60)


def test_clip_of_a_missing_file_is_an_error(tmp_path) -> None:
    with pytest.raises(VideoError, match="does not exist"):
        make_clip(tmp_path / "gone.mp4", 0, 1)


def test_clip_of_something_else_is_an_error(tmp_path) -> None:
    path = tmp_path / "note.mp4"
    path.write_text("not a video")
    with pytest.raises(VideoError, match="not a video"):
        make_clip(path, 0, 1)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/videos")
@pytest.mark.parametrize(
    ("name", "start_s", "why"),
    [
        ("normal/cockatoo.mp4", 10.0, "4:4:4 of an old x264, which names its version in the first packet only"),
        ("odd/empty_edit_5s.mp4", 2.97, "seeking lands between key frames"),
        ("odd/vc1-wmapro.mp4", 1.49, "every packet is called a key frame"),
        ("odd/rv30.mp4", 1.08, "seeking fails"),
    ],
)
def test_clip_after_a_seek_is_as_decoded_from_the_beginning(monkeypatch, name, start_s, why) -> None:
    sought = frames_of(make_clip(SHARED / name, start_s, start_s + 0.5))
    monkeypatch.setattr(clips, "_seek", lambda *args: False)
    expected = frames_of(make_clip(SHARED / name, start_s, start_s + 0.5))
    assert [time_s for time_s, _ in sought] == [time_s for time_s, _ in expected]
    for (_, left), (_, right) in zip(sought, expected, strict=True):
        assert np.abs(left.astype(int) - right).mean() < 1, why


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/videos")
def test_clip_of_old_444_video_needs_no_second_try(monkeypatch) -> None:
    decoded = count_decoded(monkeypatch)
    make_clip(SHARED / "normal" / "cockatoo.mp4", 10.0, 10.5)
    assert len(decoded) < 90  # key frame at 7.25 s, 20 frames a second; the whole video has 280
