"""`videobert index` with the sampling that it has if nobody says anything."""

from __future__ import annotations

from benchmarks.contestants.arguments import run
from benchmarks.contestants.ours import index

if __name__ == "__main__":
    run(index)
