"""The command line, run in this process, and an index that it made."""

import sys
from pathlib import Path

import pytest

from indexer.cli.app import main


@pytest.fixture
def videobert(monkeypatch, capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    import indexer.pipeline

    def encode_here(items, settings, run):
        yield from indexer.pipeline._encode_here(items, settings)

    monkeypatch.setattr("indexer.pipeline._encode_on_ray", encode_here)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["videobert", *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    return run


@pytest.fixture
def index(videobert, videos, tmp_path) -> Path:
    assert videobert("index", videos, "--into", tmp_path / "index", "--model", "tiny_test")[0] == 0
    return tmp_path / "index"
