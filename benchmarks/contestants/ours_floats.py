"""`videobert index` with its default sampling, and `mini`: its defaults where 8-bit integers do not pay."""

from __future__ import annotations

from benchmarks.contestants.arguments import Finished, Race, run
from benchmarks.contestants.ours import index


def ours_floats(race: Race) -> Finished:
    return index(race, "--model", "mini")


if __name__ == "__main__":
    run(ours_floats)
