"""`verify --repair` on an index with a damaged file of moments, also when it is killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from indexer.store.index import IndexStore

KILLED = """
import os, signal, sys
from indexer.cli.app import main
from indexer.store.ledger import Ledger
from indexer.store.segments_table import SegmentsTable

where, when = sys.argv.pop(1), sys.argv.pop(1)
owner, name = {"ledger": (Ledger, "remove"), "segments": (SegmentsTable, "drop")}[where]
real = getattr(owner, name)

def deadly(*arguments):
    if when == "after":
        real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, deadly)
main()
"""


def cut_a_file(index: Path) -> tuple[str, list[str]]:
    """Damages the file with the moments of a.mp4: its path, and the videos in it."""
    store = IndexStore.open(index)
    videos = {row["video_id"]: row["uri"] for row in store.ledger.snapshot().videos.to_pylist()}
    for file in store.segments.files():
        held = sorted({videos[row] for row in pq.read_table(file)["video_id"].to_pylist()})
        if any(video.endswith("/a.mp4") for video in held):
            Path(file).write_bytes(Path(file).read_bytes()[:-100])
            return file, held
    raise AssertionError("a.mp4 is in no file")


def test_repair_says_what_it_takes_out_and_index_brings_it_back(videobert, index, videos, rows_of):
    before = rows_of()
    path, names = cut_a_file(index)
    code, _, err = videobert("search", index, "blocks")
    assert (code, err.count("\n")) == (1, 1)
    assert "videobert verify --repair" in err
    assert videobert("verify", index)[0] == 1

    code, out, err = videobert("verify", index, "--repair", "--json")

    assert code == 0
    dropped = {"files": [path], "videos": names}
    assert json.loads(out) == {"sound": True, "problems": [], "dropped": dropped}
    assert all(repr(name) in err for name in [path, *names])
    assert f"taken out: damaged files 1, videos {len(names)}; `videobert index SOURCE --into" in err
    assert videobert("index", videos, "--into", index, "--model", "tiny_test")[0] == 0
    assert rows_of() == before
    assert videobert("verify", index, "--repair", "--json")[:2] == (0, '{"sound": true, "problems": []}\n')


def test_what_was_taken_out_is_not_listed_without_end(videobert, index, monkeypatch):
    for path in (index / "segments").glob("part-*.parquet"):
        path.unlink()
    monkeypatch.setattr("indexer.cli.inspect._NAMED", 2)
    err = videobert("verify", index, "--repair")[2]
    assert err.count("video taken out: ") == 2
    assert "and 1 more; --json names them all" in err


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", ["ledger", "segments"])
def test_repair_that_is_killed_does_no_harm(videobert, index, videos, rows_of, where, when):
    before = rows_of()
    cut_a_file(index)
    command = [sys.executable, "-c", KILLED, where, when, "verify", str(index), "--repair"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL

    code, out, _ = videobert("verify", index, "--repair", "--json")

    assert (code, json.loads(out)["sound"]) == (0, True)
    assert videobert("index", videos, "--into", index, "--model", "tiny_test")[0] == 0
    assert rows_of() == before
    assert videobert("verify", index)[0] == 0
