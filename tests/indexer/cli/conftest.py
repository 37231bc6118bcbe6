"""Indexes that the command line made."""

import shutil
from pathlib import Path

import pytest

from indexer.config import RunConfig, SamplingConfig
from indexer.pipeline import index_videos


@pytest.fixture
def index(videobert, videos, tmp_path) -> Path:
    """An index of `videos` that the command line made, for tests that change the videos."""
    assert videobert("index", videos, "--into", tmp_path / "index", "--model", "tiny_test")[0] == 0
    return tmp_path / "index"


@pytest.fixture(scope="session")
def indexed(small_videos, tmp_path_factory) -> Path:
    """The same index of `small_videos`, made once. Not to be changed."""
    folder = tmp_path_factory.mktemp("indexed") / "index"
    index_videos(
        [str(small_videos)], folder, model="tiny_test", sampling=SamplingConfig(), run=RunConfig(), in_process=True
    )
    return folder


@pytest.fixture
def copied_index(indexed, tmp_path) -> Path:
    """A copy of it, for tests that change the index."""
    return Path(shutil.copytree(indexed, tmp_path / "index"))
