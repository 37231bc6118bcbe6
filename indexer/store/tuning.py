"""Queries that an approximate index is tuned and measured with, and the setting that reaches a recall.

Texts lie elsewhere than videos do, so moments of the index would be too easy as queries: the shipped everyday sentences
are taken, as vectors of the index's own model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from indexer.config import IndexConfig

RECALL_AT = 10
RECALL_TARGET = 0.97
# Each step looks into so many times more lists.
_STEP = 1.25
_SENTENCES = Path(__file__).parents[1] / "query" / "background_queries.txt"


def text_queries(config: IndexConfig) -> np.ndarray | None:
    """Everyday sentences as vectors float32 [Q, dim], or None where the model that made the index is not installed."""
    from model.errors import ModelError
    from model.weights import load_text_encoder, model_facts

    try:
        if model_facts(config.model).fingerprint != config.model_fingerprint:
            return None
        encoder = load_text_encoder(config.model)
    except ModelError:
        return None
    return np.asarray(encoder.encode(_SENTENCES.read_text(encoding="utf-8").splitlines()), dtype=np.float32)


def tune(search: Callable[[np.ndarray, int], np.ndarray], queries: np.ndarray, exact: np.ndarray, most: int) -> int:
    """The smallest setting, in steps of a quarter, that reaches `RECALL_TARGET`; else `most`.

    Args:
        search: rows int64 [Q, RECALL_AT] that are found for queries with a setting.
        queries: float32 [Q, dim].
        exact: int64 [Q, RECALL_AT], the true nearest rows.
        most: the largest setting, which finds all.
    """
    setting = 1.0
    while setting < most and recall(search(queries, int(setting)), exact) < RECALL_TARGET:
        setting = max(setting + 1, setting * _STEP)
    return min(int(setting), most)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the true nearest rows that were found."""
    hits = [np.isin(right, rows).sum() for rows, right in zip(found, exact, strict=True)]
    return float(np.sum(hits) / exact.size)
