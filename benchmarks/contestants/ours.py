"""`videobert index` on Ray, with decoders under guard, ledger, segment files and both search indexes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from benchmarks.contestants.arguments import Finished, Race, run
from indexer.store.index import IndexStore


def run_index(sources: Sequence[Path], folder: Path, num_workers: int, *options: str) -> dict[str, Any]:
    """Runs `index` as its users do, with options of the command line, and returns what it says of the run."""
    command = [sys.executable, "-m", "indexer", "index", *sources, "--into", folder, "--workers", num_workers]
    command += ["--json", "--profile", *options]
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"indexing failed: {done.stderr[-2000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def index(race: Race, *options: str) -> Finished:
    """Indexes the race's videos, with options of the command line."""
    folder = race.out / "index"
    profile = run_index(race.videos, folder, race.num_workers, *options)["profile"]
    store = IndexStore.open(folder)
    frames = int(pc.sum(store.ledger.snapshot().videos["num_frames"]).as_py())
    phases = {kind: profile[kind] for kind in ("workers", "driver")}
    return Finished(frames=frames, model=store.config.model, phases=phases)


def ours(race: Race) -> Finished:
    """The very frames that the others encode, by the same network."""
    return index(race, "--model", "mini", "--fps", str(race.frame_rate_hz), "--sampling", "exact")


if __name__ == "__main__":
    run(ours)
