"""Frame features of all items as one file that every worker maps into memory.

Shapes: N items, F frames of all together, T frames of the longest in a batch, K tokens per frame, D numbers per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from indexer.training.feature_cache import FeatureCache, Features

_VALUES, _TIMES, _STARTS = "features.npy", "frame_times.npy", "frame_starts.npy"


class FrameBatch(NamedTuple):
    """Features float32 [B, T, K, D], mask bool [B, T] and times float32 [B, T] of some items."""

    features: Tensor
    mask: Tensor
    times_s: Tensor


class FeatureWriter:
    """Writes the file, items in any order.

    Args:
        folder: where to.
        num_frames: of each item.
        feature_shape: (K, D).
    """

    def __init__(self, folder: Path, num_frames: Sequence[int], feature_shape: tuple[int, int]) -> None:
        self._starts = np.concatenate([[0], np.cumsum(num_frames)]).astype(np.int64)
        shape = (int(self._starts[-1]), *feature_shape)
        self._values = np.lib.format.open_memmap(folder / _VALUES, mode="w+", dtype="<f2", shape=shape)
        self._times = np.zeros(shape[0], np.float32)
        self._folder = folder

    def put(self, item: int, features: Features) -> None:
        frames = slice(self._starts[item], self._starts[item + 1])
        self._values[frames], self._times[frames] = features.values, features.times_s

    def close(self) -> None:
        self._values.flush()
        np.save(self._folder / _TIMES, self._times)
        np.save(self._folder / _STARTS, self._starts)


def write_from_cache(folder: Path, cache: FeatureCache, keys: Sequence[str], feature_shape: tuple[int, int]) -> None:
    """Copies the features of `keys`, one item a key, out of the cache."""
    writer = FeatureWriter(folder, [cache.num_frames(key) for key in keys], feature_shape)
    items: dict[str, list[int]] = {}
    for item, key in enumerate(keys):
        items.setdefault(key, []).append(item)

    def put(key: str, features: Features) -> None:
        for item in items[key]:
            writer.put(item, features)

    cache.read(items, put)
    writer.close()


class FeatureSet:
    """Reads it.

    Attributes:
        num_frames: int64 [N], how many frames each item has.
        feature_shape: (K, D).
    """

    def __init__(self, folder: Path) -> None:
        self._values = np.load(folder / _VALUES, mmap_mode="r")
        self._times, self._starts = np.load(folder / _TIMES), np.load(folder / _STARTS)
        self.num_frames = np.diff(self._starts)
        self.feature_shape = (int(self._values.shape[1]), int(self._values.shape[2]))

    def __len__(self) -> int:
        return len(self.num_frames)

    def all_frames(self, most: int, seed: int) -> Tensor:
        """Frames of all items, or so many drawn at random: float32 [F, K, D]."""
        rows = np.arange(len(self._values))
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
        return torch.from_numpy(self._values[rows].astype(np.float32))

    def batch(self, items: Sequence[int], frames: Sequence[np.ndarray] | None = None) -> FrameBatch:
        """All frames of some items, or those whose numbers are given for each."""
        chosen = frames if frames is not None else [np.arange(self.num_frames[item]) for item in items]
        longest = max((len(one) for one in chosen), default=0)
        features = np.zeros((len(items), longest, *self._values.shape[1:]), np.float32)
        mask, times = np.zeros((len(items), longest), bool), np.zeros((len(items), longest), np.float32)
        for row, (item, numbers) in enumerate(zip(items, chosen, strict=True)):
            source = self._starts[item] + numbers
            features[row, : len(numbers)] = self._values[source]
            times[row, : len(numbers)] = self._times[source]
            mask[row, : len(numbers)] = True
        return FrameBatch(torch.from_numpy(features), torch.from_numpy(mask), torch.from_numpy(times))

    def some_frames(self, items: Sequence[int], most: int) -> list[np.ndarray]:
        """For each item, one frame (half of the time) or up to `most`, in order, drawn with torch's random numbers.

        Short draws teach what single moments look like, long ones what a mean over frames looks like.
        """
        most = 1 if float(torch.rand(())) < 0.5 else most
        drawn = []
        for item in items:
            order = torch.randperm(int(self.num_frames[item]))
            count = int(torch.randint(1, most + 1, ()))
            drawn.append(np.sort(order[:count].numpy()))
        return drawn
