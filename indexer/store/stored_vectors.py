"""Vectors in a file that is mapped for as long as some of them are looked at, so that the others take no memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# Vectors picked from everywhere through one mapping: the system maps 64 kB around each.
_PICKED_AT_ONCE = 256


class StoredVectors:
    """Vectors float32 [N, dim] in a `.npy` file, read like an array.

    A mapping that stays would come to hold the whole file, as far as memory has room.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shape: tuple[int, int] = self._mapped().shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Vectors float32 [..., dim] of some rows; of a slice, a mapping that ends with the array, else a copy."""
        if isinstance(rows, slice):
            return self._mapped()[rows]
        picked = np.empty((rows.size, self.shape[1]), np.float32)
        for start in range(0, rows.size, _PICKED_AT_ONCE):
            part = slice(start, start + _PICKED_AT_ONCE)
            picked[part] = self._mapped()[rows.reshape(-1)[part]]
        return picked.reshape(*rows.shape, -1)

    def _mapped(self) -> np.ndarray:
        vectors: np.ndarray = np.load(self._path, mmap_mode="r")
        return vectors.view(np.ndarray)
