"""`videobert index` on Ray, with decoders under guard, ledger, segment files and both search indexes."""

from __future__ import annotations

import subprocess
import sys

import pyarrow.compute as pc

from benchmarks.contestants.arguments import Race, run
from indexer.store.index import IndexStore


def ours(race: Race) -> int:
    index = race.out / "index"
    options = ["--workers", race.num_workers, "--fps", race.frame_rate_hz]
    command = [sys.executable, "-m", "indexer", "index", *race.videos, "--into", index, *options]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return int(pc.sum(IndexStore.open(index).ledger.snapshot().videos["num_frames"]).as_py())


if __name__ == "__main__":
    run(ours)
