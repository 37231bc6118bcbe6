"""An index of one-coloured videos, made with the tiny model, and the page run on it without a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.indexer import conftest
from tests.indexer.query.conftest import write_colours

APP = Path(__file__).resolve().parents[2] / "search_ui" / "app.py"
HOSTILE_NAME = "<img src=x onerror=alert(1)> **bold** [a](javascript:b) :red[c] $d$ \u202e4pm..mp4"


def _write_colour(path: Path, name: str) -> None:
    """4 s of one colour."""
    write_colours(path, name, seconds_each=4)


@pytest.fixture(autouse=True)
def _fresh_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    st.cache_resource.clear()
    st.cache_data.clear()


@pytest.fixture
def write_colour() -> Callable[[Path, str], None]:
    return _write_colour


@pytest.fixture
def index_folder() -> Callable[[Path, Path], None]:
    """`index_folder(videos, into)`."""
    return conftest.index_folder


@pytest.fixture
def hostile_name() -> str:
    """Name of the blue video."""
    return HOSTILE_NAME


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """red.mp4, green.mp4 and a blue one whose name is an attack. Not to be changed."""
    folder = tmp_path_factory.mktemp("page") / "videos"
    folder.mkdir()
    _write_colour(folder / "red.mp4", "red")
    _write_colour(folder / "green.mp4", "green")
    _write_colour(folder / "attack.mp4", "blue")
    (folder / "attack.mp4").rename(folder / HOSTILE_NAME)
    return folder


@pytest.fixture(scope="session")
def index(videos: Path) -> Path:
    """An index of them. Not to be changed."""
    conftest.index_folder(videos, videos.parent / "index")
    return videos.parent / "index"


@pytest.fixture
def own_videos(videos: Path, tmp_path: Path) -> Path:
    """A copy of the videos, for tests that change them."""
    return Path(shutil.copytree(videos, tmp_path / "videos"))


@pytest.fixture
def own_index(own_videos: Path, tmp_path: Path) -> Path:
    """An index of that copy."""
    conftest.index_folder(own_videos, tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def empty_index(tmp_path: Path) -> Path:
    return conftest.new_index(tmp_path / "empty").path


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """`open_page(index, q="red")` runs the page on an index; keyword arguments are query parameters of the address."""

    def open_page(*arguments: Any, **parameters: str) -> AppTest:
        monkeypatch.setattr("sys.argv", [str(APP), *map(str, arguments)])
        page = AppTest.from_file(str(APP), default_timeout=60)
        page.query_params.update(parameters)
        page.run()
        assert not page.exception
        return page

    return open_page
