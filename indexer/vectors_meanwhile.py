"""Vectors and keywords of what a long run has committed so far, made by a process of its own while the run goes on.

Readers compare one by one what the vector file does not cover. Where a run adds much, this process writes a new file
every now and then. Nothing waits for it: a commit needs no vector file, and a file is there once its manifest is.
Killed at any point, it leaves parts that nobody reads and `compact` deletes; left alone after the run was killed, it
ends by itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from indexer.storage import Location
from indexer.store import vectors
from indexer.store.index import IndexStore

# Each new file costs as much as all moments so far: with this share of them all files of a run cost ten times the last.
_LEAST_SHARE = 0.1
# While workers encode, they come first.
_NICENESS = 10
_STOP_LIMIT_S = 10.0


class VectorsMeanwhile:
    """Decides when new files are due, and has them written.

    A file is due when comparing what is not covered is no longer quick (`vectors.FLAT_UP_TO_BYTES`), and is a tenth of
    what the last file covers. A process that fails is not started again: the end of the run does the same, and says
    what is wrong.

    Args:
        path: the index.
        num_moments: how many it holds; they count as covered.
        dim: length of a vector.
    """

    def __init__(self, path: Location, num_moments: int, dim: int) -> None:
        self._path, self._dim = path, dim
        self._covered, self._uncovered = num_moments, 0
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False

    def committed(self, num_moments: int) -> None:
        """So many more moments are visible. Returns at once."""
        self._uncovered += num_moments
        if self._process is not None and self._process.poll():
            self._is_over = True
        is_busy = self._process is not None and self._process.poll() is None
        is_slow = 4 * self._dim * self._uncovered > vectors.FLAT_UP_TO_BYTES
        if not self._is_over and not is_busy and is_slow and self._uncovered >= _LEAST_SHARE * self._covered:
            self._covered, self._uncovered = self._covered + self._uncovered, 0
            self._process = subprocess.Popen(
                [sys.executable, "-m", "indexer.vectors_meanwhile", str(self._path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the run, which stops this process too
            )

    def stop(self) -> None:
        """Ends a process that is not done yet, and starts no other: the end of a run covers everything anyway."""
        self._is_over = True
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is half written is deleted
    os.nice(_NICENESS)
    store = IndexStore.open(sys.argv[1])
    store.build_vectors(if_due=True)
    store.build_keywords()
    store.build_keys()


if __name__ == "__main__":
    _main()
