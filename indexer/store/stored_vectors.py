"""Vectors in a file of which only what is asked for is in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class StoredVectors:
    """Vectors float32 [N, dim] in a `.npy` file, indexed like an array.

    They are read, not mapped: a mapping comes to hold the whole file as far as memory has room, and of rows picked
    from everywhere a system maps a hundred times as much around each.
    """

    def __init__(self, path: Path) -> None:
        mapped = np.load(path, mmap_mode="r")
        self._path, self._offset = path, mapped.offset
        self.shape: tuple[int, int] = mapped.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """A copy of some rows: float32 [..., dim] for rows [...]."""
        dim = self.shape[1]
        with open(self._path, "rb", buffering=0) as file:
            if isinstance(rows, slice):
                start, stop, _ = rows.indices(len(self))
                file.seek(self._offset + 4 * dim * start)
                return np.fromfile(file, np.float32, dim * max(0, stop - start)).reshape(-1, dim)
            picked = np.empty((rows.size, dim), np.float32)
            for vector, row in zip(picked, rows.reshape(-1).tolist(), strict=True):
                file.seek(self._offset + 4 * dim * row)
                file.readinto(vector.data)
        return picked.reshape(*rows.shape, dim)
