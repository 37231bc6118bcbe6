"""Videos of one colour each: the tiny model tells eight colours apart, so that right answers are known."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from indexer.query.video_index import VideoIndex
from tests.indexer.conftest import index_folder

COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


def write_colours(path: Path, *names: str, seconds_each: int = 10) -> None:
    """A video that shows each colour for some seconds, at 2 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2, options={"crf": "1"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv444p"
        for name in names:
            for _ in range(2 * seconds_each):
                picture = np.full((64, 64, 3), COLOURS[name], np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_three(folder: Path) -> Path:
    folder.mkdir()
    write_colours(folder / "red.mp4", "red", seconds_each=4)
    write_colours(folder / "blue.mp4", "blue", seconds_each=4)
    write_colours(folder / "mixed.mp4", "yellow", "green", "green")
    return folder


@pytest.fixture
def colour_videos(tmp_path: Path) -> Path:
    """Three videos: red and blue of 4 s, and one of 10 s of yellow and 20 s of green."""
    return write_three(tmp_path / "colours")


@pytest.fixture
def colour_index(colour_videos, run_index, tmp_path) -> VideoIndex:
    """An index of them, for tests that change the videos."""
    run_index(colour_videos)
    return VideoIndex.open(tmp_path / "index")


def indexed_folder(videos: Path, index: Path) -> VideoIndex:
    index_folder(videos, index)
    return VideoIndex.open(index)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """The same index, made once. Not to be changed."""
    folder = tmp_path_factory.mktemp("colours")
    return indexed_folder(write_three(folder / "videos"), folder / "index")


@pytest.fixture
def copied_colours(colours: VideoIndex, tmp_path: Path) -> Path:
    """A copy of its folder, for tests that change the index."""
    return Path(shutil.copytree(str(colours.path), tmp_path / "copied"))
