"""Clips: from synthetic videos whose frames say by their brightness which they are."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from indexer.errors import UsageError, VideoError
from indexer.query.clips import make_clip

RATE_HZ = 10
NUM_FRAMES = 80
KEY_FRAME_INTERVAL = 25
SOUND_RATE_HZ = 16_000


def write_video(path: Path, *, size: tuple[int, int] = (96, 64), codec: str = "libx264", sound: bool = False) -> Path:
    """80 frames at 10 Hz; frame i is grey 40 + 2 i, its upper left quarter black. Sound: silence, and 1 s of tone at 3 s."""
    width, height = size
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=RATE_HZ, options={"g": str(KEY_FRAME_INTERVAL), "crf": "5"})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        if sound:
            audio = output.add_stream("aac", rate=SOUND_RATE_HZ, layout="mono")
        for i in range(NUM_FRAMES):
            pixels = np.full((height, width, 3), 40 + 2 * i, np.uint8)
            pixels[: height // 2, : width // 2] = 0
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound:
            output.mux(audio.encode(_tone()))
            output.mux(audio.encode(None))
    return path


def _tone() -> av.AudioFrame:
    times_s = np.arange(NUM_FRAMES / RATE_HZ * SOUND_RATE_HZ) / SOUND_RATE_HZ
    samples = np.where((times_s >= 3) & (times_s < 4), np.sin(2 * np.pi * 440 * times_s) * 0.5, 0.0)
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE_HZ, 0, Fraction(1, SOUND_RATE_HZ)
    return frame


def frames_of(clip: bytes) -> list[tuple[float, np.ndarray]]:
    """(time in seconds, uint8 [height, width, 3])."""
    with av.open(io.BytesIO(clip)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def numbers_of(clip: bytes) -> list[int]:
    """Which frame of the source each frame of the clip is."""
    return [round((float(pixels[-8:, -8:].mean()) - 40) / 2) for _, pixels in frames_of(clip)]


def duration_of(clip: bytes) -> float:
    with av.open(io.BytesIO(clip)) as container:
        return container.duration / av.time_base


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "video.mp4", sound=True)


@pytest.mark.parametrize("start_s", [0.0, 2.5, 3.72, 4.9])
def test_clip_starts_with_the_frame_shown_at_the_start(video: Path, start_s: float) -> None:
    first, last = int(start_s * RATE_HZ + 1e-6), int((start_s + 1.5) * RATE_HZ - 1e-6)
    assert numbers_of(make_clip(video, start_s, start_s + 1.5)) == list(range(first, last + 1))


def test_clip_times_start_at_zero_and_keep_the_rhythm(video: Path) -> None:
    times_s = [time_s for time_s, _ in frames_of(make_clip(video, 3.72, 4.5))]
    assert times_s[0] == 0
    np.testing.assert_allclose(times_s[1:], np.arange(1, len(times_s)) / RATE_HZ - 0.02, atol=1e-3)


@pytest.mark.parametrize(("end_s", "expected_s"), [(4.0, 2.0), (100.0, 6.0)])
def test_clip_lasts_as_long_as_the_span_or_the_video(tmp_path: Path, end_s: float, expected_s: float) -> None:
    assert duration_of(make_clip(write_video(tmp_path / "v.mp4"), 2.0, end_s)) == pytest.approx(expected_s, abs=0.02)


def test_clip_is_cut_at_max_length(video: Path) -> None:
    assert duration_of(make_clip(video, 1.0, 8.0, max_length_s=2)) == pytest.approx(2.0, abs=0.05)


def test_clip_uses_the_timeline_of_the_container_when_it_does_not_start_at_zero(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.ts")  # MPEG-TS starts at 1.4 s
    with av.open(str(video)) as container:
        assert container.start_time > av.time_base
    assert numbers_of(make_clip(video, 5.0, 5.5)) == [50, 51, 52, 53, 54]


def test_clip_is_the_same_from_a_container_that_cannot_seek(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.h264")
    with av.open(str(video)) as container, pytest.raises(av.error.FFmpegError):
        container.seek(5_000_000)
    assert numbers_of(make_clip(video, 5.0, 5.5))[0] in (49, 50, 51)  # an elementary stream has only guessed times


@pytest.mark.parametrize("size", [(97, 65), (96, 65), (1280, 722)])
def test_clip_sides_are_even_and_bounded(tmp_path: Path, size: tuple[int, int]) -> None:
    _, pixels = frames_of(make_clip(write_video(tmp_path / "v.mkv", size=size), 1.0, 1.2, max_side_px=320))[0]
    height, width, _ = pixels.shape
    assert (width % 2, height % 2) == (0, 0)
    assert width == min(320, size[0] // 2 * 2)
    assert height == pytest.approx(width * size[1] / size[0], abs=2)


def test_clip_is_upright_when_the_source_is_turned(video: Path, tmp_path: Path) -> None:
    """The display matrix turns the picture by 90 degrees; the black quarter, upper left, moves to another corner."""
    turned = _with_matrix(video.read_bytes(), (0, 1, -1, 0))  # x' = -y, y' = x: clockwise
    path = tmp_path / "turned.mp4"
    path.write_bytes(turned)
    _, pixels = frames_of(make_clip(path, 2.0, 2.3))[0]
    assert pixels.shape == (96, 64, 3)
    assert pixels[:40, 40:].mean() < 10  # upper right
    assert pixels[:40, :24].mean() > 50


def _with_matrix(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """Writes a, b, c, d of the display matrix into the first track header (16.16 fixed point)."""
    at = data.index(b"tkhd") + 4 + 40  # version 0: flags, dates, id, duration, layer, volume, then the matrix
    values = [int.from_bytes(data[at + 4 * i : at + 4 * i + 4], "big", signed=True) for i in range(9)]
    assert values[0] == 0x10000
    values[0], values[1], values[3], values[4] = (value * 0x10000 for value in matrix)
    return data[:at] + b"".join(value.to_bytes(4, "big", signed=True) for value in values) + data[at + 36 :]


def test_clip_sound_is_in_step_with_the_picture(video: Path) -> None:
    """The tone lasts from second 3 to 4 of the source: from 0.5 to 1.5 of the clip."""
    with av.open(io.BytesIO(make_clip(video, 2.5, 5.0))) as container:
        frames = [(frame.time, frame.to_ndarray(), frame.sample_rate) for frame in container.decode(audio=0)]
    loud = [time_s for time_s, samples, _ in frames if np.abs(samples).max() > 0.1]
    assert loud[0] == pytest.approx(0.5, abs=0.06)
    assert loud[-1] == pytest.approx(1.5, abs=0.06)


def test_clip_has_no_sound_track_when_the_source_has_none(tmp_path: Path) -> None:
    with av.open(io.BytesIO(make_clip(write_video(tmp_path / "v.mp4"), 1.0, 2.0))) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_clip_is_what_browsers_play(video: Path) -> None:
    clip = make_clip(video, 1.0, 2.0)
    with av.open(io.BytesIO(clip)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert container.streams.audio[0].codec_context.name == "aac"
    assert clip.index(b"moov") < clip.index(b"mdat")  # a player can start before it has everything


def test_clip_decodes_no_more_than_one_group_of_pictures_before_the_start(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import indexer.query.clips as clips

    decoded = []
    decode_frames = clips.decode_frames
    monkeypatch.setattr(clips, "decode_frames", lambda *args: (decoded.append(f) or f for f in decode_frames(*args)))
    make_clip(video, 6.0, 6.5)
    assert len(decoded) <= KEY_FRAME_INTERVAL + 5 + 10  # ten are held back to be sorted


@pytest.mark.parametrize(
    ("start_s", "end_s", "max_side_px", "max_length_s"),
    [(-1, 2, 640, 60), (3, 3, 640, 60), (0, float("nan"), 640, 60), (0, 1, 8, 60), (0, 1, 640, 0)],
)
def test_clip_refuses_a_senseless_span_or_limit(
    video: Path, start_s: float, end_s: float, max_side_px: int, max_length_s: float
) -> None:
    with pytest.raises(UsageError):
        make_clip(video, start_s, end_s, max_side_px=max_side_px, max_length_s=max_length_s)


def test_clip_beyond_the_end_of_the_video_is_an_error(video: Path) -> None:
    with pytest.raises(VideoError, match=r"no picture at 50\.0 s"):
        make_clip(video, 50, 60)


def test_clip_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="does not exist"):
        make_clip(tmp_path / "gone.mp4", 0, 1)


def test_clip_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "note.mp4"
    path.write_text("not a video")
    with pytest.raises(VideoError, match="not a video"):
        make_clip(path, 0, 1)
