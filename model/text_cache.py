"""Vectors of fixed texts, kept in the user's cache folder: a large text tower needs minutes for a thousand on a CPU."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def cached_embeddings(texts: Sequence[str], fingerprint: str, encode: Callable[[Sequence[str]], Tensor]) -> Tensor:
    """What `encode` makes of the texts, or made of them before.

    Args:
        texts: any.
        fingerprint: of the model that `encode` belongs to.
        encode: N texts -> float32 [N, E].

    Returns:
        float32 [N, E] on the CPU.
    """
    key = hashlib.sha256("\n".join([fingerprint, *texts]).encode()).hexdigest()[:24]
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videobert" / f"texts-{key}.npy"
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError):
        vectors = encode(texts).cpu()
        _save(path, vectors)
        return vectors


def _save(path: Path, vectors: Tensor) -> None:
    """A cache that cannot be written costs time, not the result."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(temporary, vectors.numpy(), allow_pickle=False)
        temporary.rename(path)
    except OSError:
        return
