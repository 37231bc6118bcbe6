"""SIGTERM stops `videobert index` as Ctrl-C does: what has arrived is committed, and the next run goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.cli import console
from indexer.store.index import IndexStore
from indexer.store.verify import verify

ROOT = Path(__file__).parents[3]

# The process stops itself at its second report of a finished batch, as `kill PID` would.
DRIVER = """
import os, signal, sys
from indexer.cli.app import main
from indexer.recorder import Recorder

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
signal_number = int(sys.argv.pop(1))
real, batches = Recorder._count, 0

def count(self, result):
    global batches
    real(self, result)
    batches += 1
    if batches == 2:
        os.kill(os.getpid(), signal_number)

Recorder._count = count
main()
"""


ON_RAY = pytest.param(["--workers", "2"], marks=pytest.mark.slow, id="ray")


@pytest.mark.parametrize("how", [pytest.param([], id="here"), ON_RAY])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_run_commits_what_has_arrived_and_the_next_goes_on(videos, synthetic, run_index, tmp_path, how, number):
    for i in range(4):
        synthetic.write(f"videos/more{i}.mp4", range(0, 1_000, 100))
    arguments = ["index", str(videos), "--into", str(tmp_path / "index"), "--model", "tiny_test", "--json", *how]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(int(number)), *arguments],
        cwd=ROOT,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("stopped; what was committed is kept")
    assert "Traceback" not in done.stderr
    store = IndexStore.open(tmp_path / "index")
    kept = store.ledger.snapshot().videos.num_rows
    assert 1 <= kept < 7
    rest = run_index(videos)
    assert (rest.unchanged, rest.indexed) == (kept, 7 - kept)
    assert verify(store) == []


def test_sigterm_is_left_alone_outside_of_a_run():
    before = signal.getsignal(signal.SIGTERM)
    with console.sigterm_like_ctrl_c(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
