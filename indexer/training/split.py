"""Which items are kept back for validation: the same ones in every run, and never one side of the same file."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np

_MOST_HELD_OUT = 1000  # of a group; enough to measure on, and recall among more would be another figure


def hold_out(keys: Sequence[str], groups: Sequence[Hashable], share: float, seed: int) -> np.ndarray:
    """Choose items by the hash of their content.

    Args:
        keys: fingerprint of each item's file: items with the same go to the same side.
        groups: of each item, e.g. its class; the share is taken of each group.
        share: 0 to 1; above 0, at least one file of each group that has two.
        seed: another one gives another choice.

    Returns:
        bool [N], True for items that are kept back.
    """
    files: dict[Hashable, dict[str, bytes]] = {}
    for key, group in zip(keys, groups, strict=True):
        files.setdefault(group, {})[key] = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    chosen: set[str] = set()
    for hashes in files.values():
        wanted = min(round(share * len(hashes)), _MOST_HELD_OUT)
        if share > 0 and len(hashes) > 1:
            wanted = max(1, wanted)
        chosen.update(sorted(hashes, key=hashes.__getitem__)[: min(wanted, len(hashes) - 1)])
    return np.array([key in chosen for key in keys], bool)
