"""As `ours_floats`, with the frame encoder in 8-bit integers: the default where they pay."""

from __future__ import annotations

from benchmarks.contestants.arguments import Finished, Race, run
from benchmarks.contestants.ours import index


def ours_int8(race: Race) -> Finished:
    return index(race, "--model", "mini-int8")


if __name__ == "__main__":
    run(ours_int8)
