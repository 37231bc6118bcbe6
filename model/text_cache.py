"""Vectors of fixed texts, kept in the user's cache folder: a large text tower needs minutes for a thousand on a CPU."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from model.cache import read_cached, write_cached


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
    name = f"texts-{key}"
    if (data := read_cached(name)) is not None:
        return torch.from_numpy(np.load(io.BytesIO(data), allow_pickle=False))
    vectors = encode(texts).cpu()
    written = io.BytesIO()
    np.save(written, vectors.numpy(), allow_pickle=False)
    write_cached(name, written.getvalue())
    return vectors
