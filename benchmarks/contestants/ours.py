"""`videobert index` on Ray, with decoders under guard, ledger, segment files and both search indexes."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow.compute as pc

from benchmarks.contestants.arguments import Finished, Race, run
from indexer.store.index import IndexStore


def index(race: Race, *options: str) -> Finished:
    """Indexes the race's videos, with options of the command line."""
    folder = race.out / "index"
    command = [
        sys.executable,
        "-m",
        "indexer",
        "index",
        *race.videos,
        "--into",
        folder,
        "--json",
        "--profile",
        *options,
    ]
    command += ["--workers", race.num_workers]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    profile = json.loads(done.stdout.splitlines()[-1])["profile"]
    store = IndexStore.open(folder)
    frames = int(pc.sum(store.ledger.snapshot().videos["num_frames"]).as_py())
    phases = {kind: profile[kind] for kind in ("workers", "driver")}
    return Finished(frames=frames, model=store.config.model, phases=phases)


def ours(race: Race) -> Finished:
    """The very frames that the others encode, by the same network."""
    return index(race, "--model", "mini", "--fps", str(race.frame_rate_hz), "--sampling", "exact")


if __name__ == "__main__":
    run(ours)
