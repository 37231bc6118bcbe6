"""`videobert index` as it is if nobody names a model or a sampling: `mini-int8` where 8-bit integers pay."""

from __future__ import annotations

from benchmarks.contestants.arguments import run
from benchmarks.contestants.ours import index

if __name__ == "__main__":
    run(index)
