"""An index of one-colour videos, served to a test client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from indexer.query.video_index import VideoIndex
from indexer.serve.app import build_app
from indexer.serve.service import Service
from indexer.serve.settings import ServeSettings
from tests.indexer.conftest import index_folder
from tests.indexer.query.conftest import write_colours


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """videos/ and index/: red, blue with speech, and one that turns from yellow to green. Not to be changed."""
    folder = tmp_path_factory.mktemp("served")
    videos = folder / "videos"
    videos.mkdir()
    write_colours(videos / "red.mp4", "red", seconds_each=4)
    write_colours(videos / "blue.mp4", "blue", seconds_each=4)
    write_colours(videos / "mixed.mp4", "yellow", "green", "green")
    (videos / "blue.srt").write_text("1\n00:00:00,500 --> 00:00:03,000\nthe sea is calm\n")
    (folder / "own.csv").write_text("path,place\nvideos/red.mp4,Mars\nvideos/blue.mp4,Earth\n")
    index_folder(videos, folder / "index")
    return folder


@pytest.fixture(scope="session")
def ask(served_folder: Path) -> Iterator[TestClient]:
    """A client of the service; a fault of ours is an answer of 500 and not an exception."""
    service = Service(served_folder / "index", ServeSettings(metadata=str(served_folder / "own.csv")))
    with TestClient(build_app(service), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def served(served_folder: Path) -> VideoIndex:
    """The same index, asked without the service."""
    return VideoIndex.open(served_folder / "index")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[TestClient, Service]]]:
    """Serves tmp_path/index, or another one, with some settings."""
    clients: list[TestClient] = []

    def start(index: Path = tmp_path / "index", **settings: object) -> tuple[TestClient, Service]:
        service = Service(index, ServeSettings(**settings))  # type: ignore[arg-type]
        client = TestClient(build_app(service), raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return client, service

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def one_video(run_index, tmp_path):
    """A folder with one red video, indexed."""
    folder = tmp_path / "videos"
    folder.mkdir()
    write_colours(folder / "red.mp4", "red", seconds_each=2)
    run_index(folder)
    return folder
