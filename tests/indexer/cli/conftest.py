"""An index that the command line made."""

from pathlib import Path

import pytest


@pytest.fixture
def index(videobert, videos, tmp_path) -> Path:
    """For tests that change the videos; see `indexed` and `copied_index` for the others."""
    assert videobert("index", videos, "--into", tmp_path / "index", "--model", "tiny_test")[0] == 0
    return tmp_path / "index"
