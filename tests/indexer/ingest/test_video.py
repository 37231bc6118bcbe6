"""The frame returned for a target is the one shown at that time: checked against frames that show their own number."""

from __future__ import annotations

import io
import os

import av
import numpy as np
import pytest
from PIL import Image

from indexer.errors import VideoError
from indexer.ingest.opened import _stated_language
from indexer.ingest.video import DecodeEnd, DecodeLimits, SampledFrame, VideoInfo, read_video

REGULAR = range(0, 4000, 40)
UNEVEN = [0, 10, 400, 440, 450, 1700, 1710, 1720, 2600, 3300, 3310, 3950]


def read(path, *, rate_hz=1.0, size_px=64, **arguments):
    """(info, frames, end)"""
    info, *frames, end = read_video(path, frame_rate_hz=rate_hz, size_px=size_px, **arguments)
    assert isinstance(info, VideoInfo)
    assert all(isinstance(frame, SampledFrame) for frame in frames)
    assert isinstance(end, DecodeEnd)
    return info, frames, end


def shown_at(times_ms, target_s):
    """Number of the frame on the screen, by the definition: the last whose time has come."""
    start_ms = times_ms[0]
    return max(i for i, time_ms in enumerate(times_ms) if time_ms - start_ms <= target_s * 1000 + 1e-6)


CASES = {
    "mp4, B-frames": ("a.mp4", REGULAR, {"options": {"bf": "3", "g": "50"}}),
    "mp4, no B-frames": ("a.mp4", REGULAR, {"options": {"bf": "0"}}),
    "mp4, uneven": ("a.mp4", UNEVEN, {"options": {"bf": "3"}}),
    "mkv, uneven": ("a.mkv", UNEVEN, {}),
    "mp4, delayed start": ("a.mp4", [time + 2500 for time in REGULAR], {}),
    "transport stream": ("a.ts", REGULAR, {"options": {"bf": "2"}}),
    "transport stream, delayed": ("a.ts", [time + 700 for time in UNEVEN], {}),
    "webm": ("a.webm", REGULAR, {"codec": "libvpx"}),
    "avi": ("a.avi", REGULAR, {"codec": "mpeg4"}),
    "mov, mpeg4": ("a.mov", UNEVEN, {"codec": "mpeg4"}),
    "4:4:4": ("a.mkv", REGULAR, {"pix_fmt": "yuv444p"}),
    "10 bit": ("a.mkv", REGULAR, {"pix_fmt": "yuv420p10le"}),
    "odd size": ("a.mkv", REGULAR, {"pix_fmt": "yuv444p", "width": 129, "height": 97}),
    "with sound": ("a.mp4", REGULAR, {"sound_s": 4.0}),
}


@pytest.mark.parametrize("rate_hz", [0.5, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("case", CASES)
def test_frames_are_those_shown_at_the_targets(synthetic, case, rate_hz):
    name, times_ms, arguments = CASES[case]
    _, frames, end = read(synthetic.write(name, times_ms, **arguments), rate_hz=rate_hz)

    targets_s = [frame.target_s for frame in frames]
    assert targets_s == [(k + 0.5) / rate_hz for k in range(len(targets_s))]
    assert targets_s[-1] < end.duration_s <= targets_s[-1] + 1 / rate_hz
    assert [synthetic.number(frame.pixels) for frame in frames] == [shown_at(times_ms, target) for target in targets_s]
    assert end.num_decoded <= end.num_coded == len(times_ms)
    assert end.warning is None


def test_time_is_the_presentation_time_of_the_frame(synthetic):
    _, frames, _ = read(synthetic.write("a.mkv", UNEVEN), rate_hz=5)

    for frame in frames:
        assert frame.time_s == pytest.approx(UNEVEN[synthetic.number(frame.pixels)] / 1000)
        assert frame.time_s <= frame.target_s


def test_held_frame_comes_once_a_target_as_the_same_object(synthetic):
    _, frames, _ = read(synthetic.write("a.mkv", [0, 100, 5000]), rate_hz=2)

    held = frames[:10]
    assert len({id(frame.pixels) for frame in held}) == 1
    assert synthetic.number(held[0].pixels) == synthetic.number(held[-1].pixels) == 1


def test_frame_is_held_for_at_most_a_minute(synthetic):
    _, frames, end = read(synthetic.write("a.mkv", [0, 40, 3_600_000, 3_600_040], codec="mpeg4"))

    assert [frame.target_s for frame in frames] == [k + 0.5 for k in range(60)]
    assert end.duration_s > 3600


def test_video_shorter_than_a_target_gives_one_frame_within_it(synthetic):
    _, frames, end = read(synthetic.write("a.mp4", [0, 40, 80]))

    assert len(frames) == 1
    assert 0 <= frames[0].target_s < end.duration_s
    assert end.duration_s == pytest.approx(0.12)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_single_frame_gives_one_frame(synthetic, name):
    _, frames, end = read(synthetic.write(name, [0], numbers=[77]))

    assert [synthetic.number(frame.pixels) for frame in frames] == [77]
    assert 0 <= frames[0].target_s < end.duration_s


def test_picture_opens_as_a_video_of_one_frame(synthetic, tmp_path):
    path = tmp_path / "cover.mjpeg"
    Image.fromarray(synthetic.picture(5)).save(path, format="JPEG")

    _, frames, _ = read(str(path))

    assert [synthetic.number(frame.pixels) for frame in frames] == [5]


def test_info_says_what_the_file_is(synthetic):
    path = synthetic.write("a.mp4", REGULAR, width=160, height=90, sound_s=1.0, title="A\nfilm \x07 title")

    info, _, end = read(path)

    assert (info.width, info.height, info.rotation_deg) == (160, 90, 0)
    assert (info.video_codec, info.has_audio, info.title) == ("h264", True, "A film title")
    assert "mp4" in info.container
    assert info.fps == pytest.approx(25)
    assert info.stated_duration_s == pytest.approx(4.0, abs=0.1)
    assert end.duration_s == pytest.approx(4.0)


def test_pixels_are_square_and_thumbnail_keeps_the_aspect(synthetic):
    path = synthetic.write("a.mp4", REGULAR, width=640, height=160, numbers=[9] * 100)
    _, frames, _ = read(path, size_px=224, moment_s=10.0)

    thumbnail = Image.open(io.BytesIO(frames[-1].thumbnail))
    assert frames[0].pixels.shape == (224, 224, 3)
    assert frames[0].pixels.dtype == np.uint8
    assert thumbnail.format == "JPEG"
    assert thumbnail.size == (320, 80)
    assert synthetic.number(np.asarray(thumbnail)) == 9


def test_no_thumbnail_is_made_when_not_asked_for(synthetic):
    _, frames, _ = read(synthetic.write("a.mp4", REGULAR))

    assert {frame.thumbnail for frame in frames} == {None}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("clockwise_deg", [0, 90, 180, 270])
def test_rotated_video_stands_upright(synthetic, clockwise_deg, mirrored):
    number = 0b0000_0000_0010_0111
    path = synthetic.write("a.mp4", REGULAR, numbers=[number] * 100, rotation_ccw_deg=-clockwise_deg, mirrored=mirrored)

    info, frames, _ = read(path, moment_s=10.0)

    expected = synthetic.picture(number, 64, 64)
    expected = np.rot90(expected, k=-clockwise_deg // 90)
    expected = expected[:, ::-1] if mirrored else expected  # FFmpeg mirrors what it has turned
    assert synthetic.number(frames[0].pixels) == synthetic.number(expected)
    assert synthetic.number(np.asarray(Image.open(io.BytesIO(frames[-1].thumbnail)))) == synthetic.number(expected)
    assert (info.width, info.height) == ((128, 96) if clockwise_deg % 180 == 0 else (96, 128))
    assert mirrored or info.rotation_deg == clockwise_deg


def test_extension_does_not_matter(synthetic):
    path = synthetic.write("a.mkv", REGULAR)
    os.rename(path, path + ".txt")

    info, frames, _ = read(path + ".txt")

    assert "matroska" in info.container
    assert len(frames) == 4


def test_truncated_file_gives_what_is_readable_and_a_warning(synthetic):
    path = synthetic.write("a.mkv", range(0, 20_000, 40))
    os.truncate(path, os.path.getsize(path) // 2)

    _, frames, end = read(path)

    assert 5 < end.duration_s < 15
    assert len(frames) == round(end.duration_s)
    assert end.warning is not None
    assert "the file ends at" in end.warning
    assert "of 20.0 s" in end.warning


def test_damage_in_the_middle_is_skipped_with_a_warning(synthetic):
    path = synthetic.write("a.mp4", range(0, 8000, 40), options={"g": "25"})
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 3)
        file.write(np.random.default_rng(0).bytes(1000))

    _, frames, end = read(path)

    assert synthetic.number(frames[-1].pixels) >= 180
    assert end.warning is not None
    assert "damaged data" in end.warning


def test_sound_longer_than_the_picture_is_no_warning(synthetic):
    _, _, end = read(synthetic.write("a.mkv", REGULAR, sound_s=30.0))

    assert end.warning is None


def test_longer_video_than_allowed_is_read_in_part(synthetic):
    _, frames, end = read(synthetic.write("a.mp4", REGULAR), limits=DecodeLimits(max_duration_s=2.0))

    assert len(frames) == 2
    assert end.duration_s == pytest.approx(2.0)
    assert "only the first" in (end.warning or "")


def test_video_without_a_frame_before_the_limit_raises_too_long(synthetic):
    path = synthetic.write("a.mkv", [0, 40])

    with pytest.raises(VideoError) as caught:
        read(path, limits=DecodeLimits(max_duration_s=0.0))

    assert caught.value.kind == "TooLong"


def test_more_frames_than_allowed_are_not_kept(synthetic):
    _, frames, end = read(synthetic.write("a.mp4", REGULAR), limits=DecodeLimits(max_frames_kept=3))

    assert len(frames) == 3
    assert "only the first 3 sampled frames" in (end.warning or "")


def _text(path):
    path.write_text("This is no video.\n" * 100)


def _empty(path):
    path.write_bytes(b"")


def _noise(path):
    path.write_bytes(np.random.default_rng(0).bytes(50_000))


def _folder(path):
    path.mkdir()


def _nothing(path):
    pass


@pytest.mark.parametrize(
    ("make", "stage", "kind"),
    [
        (_text, "open", "NotAVideo"),
        (_noise, "open", "NotAVideo"),
        (_empty, "read", "EmptyFile"),
        (_folder, "read", "NotAFile"),
        (_nothing, "read", "NotFound"),
    ],
)
def test_file_that_is_no_video_raises_and_says_why(tmp_path, make, stage, kind):
    path = tmp_path / "a.mp4"
    make(path)

    with pytest.raises(VideoError) as caught:
        read(str(path))

    assert (caught.value.stage, caught.value.kind) == (stage, kind)
    assert "\n" not in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_header_without_data_raises_no_frames(synthetic):
    path = synthetic.write("a.mp4", REGULAR, options={"movflags": "faststart"})
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(data[: data.index(b"mdat") + 8] + b"\xff" * 500)

    with pytest.raises(VideoError) as caught:
        read(path)

    assert caught.value.kind in ("NoFrames", "NotAVideo")


def test_sound_only_raises_no_video_stream(synthetic, tmp_path):
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16_000))

    with pytest.raises(VideoError, match="only audio") as caught:
        read(str(tmp_path / "a.wav"))

    assert caught.value.kind == "NoVideoStream"


def test_picture_larger_than_allowed_raises_too_large(synthetic):
    with pytest.raises(VideoError, match="128 x 96 pixels") as caught:
        read(synthetic.write("a.mp4", REGULAR), limits=DecodeLimits(max_pixels=10_000))

    assert caught.value.kind == "TooLarge"


def test_playlist_that_names_other_files_is_not_followed(synthetic, tmp_path):
    synthetic.write("a.ts", REGULAR)
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")

    with pytest.raises(VideoError) as caught:
        read(str(playlist))

    assert caught.value.stage in ("open", "decode")


def test_name_that_is_not_utf8_can_be_read(synthetic, tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.mp4")
    os.rename(synthetic.write("a.mp4", REGULAR), path)

    _, frames, _ = read(os.fsdecode(path))

    assert len(frames) == 4


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(("stated", "language"), [("jpn", "ja"), ("und", None), (None, None)])
def test_language_is_what_the_container_states_for_the_sound(synthetic, name, stated, language):
    path = synthetic.write(name, range(0, 1000, 100), sound_s=1.0, sound_language=stated)
    assert read(path)[0].audio_language == language


def test_sounds_in_several_languages_state_none(tmp_path):
    def stated(*languages):
        with av.open(str(tmp_path / "a.mkv"), "w") as container:
            for language in languages:
                container.add_stream("aac", rate=16000).metadata["language"] = language
            return _stated_language(container)

    assert stated("eng") == "en"
    assert stated("eng", "en") == "en"
    assert stated("eng", "und") == "en"
    assert stated("eng", "fra") is None
    assert stated("und") is None
