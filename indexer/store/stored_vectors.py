"""Vectors in a file that is mapped for as long as some of them are looked at, so that the others take no memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class StoredVectors:
    """Vectors float32 [N, dim] in a `.npy` file, read like an array.

    A mapping that stays would come to hold the whole file, as far as memory has room.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shape: tuple[int, ...] = np.load(path, mmap_mode="r").shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Some rows; of a slice, a mapping that ends with the array, else a copy."""
        return np.asarray(np.load(self._path, mmap_mode="r")[rows])
