"""Moments like an example: another moment, a picture or a video."""

from __future__ import annotations

import numpy as np

from indexer.query.diversity import Diversity
from indexer.query.filters import Filters
from indexer.query.index_model import require_model
from indexer.query.results import SearchResult
from indexer.query.search import Searcher
from indexer.query.syntax import ParsedQuery
from indexer.query.version import Version
from indexer.storage import Location


def search_like(
    version: Version, example: int | str | Location, k: int, where: Filters | None, diversity: Diversity | None
) -> SearchResult:
    """See `VideoIndex.search_like`; k is checked."""
    asked, snapshot = f"like {example}", version.snapshot
    if not snapshot.num_segments:
        return SearchResult(query=asked, matched=False, results=[])
    allowed = version.allowed(where)
    if isinstance(example, int):
        row = version.row_of(example)
        allowed = np.ones(snapshot.num_segments, dtype=bool) if allowed is None else allowed
        allowed[row] = False
        vector = snapshot.vectors_of(np.array([row]))[0]
    else:
        vector = _encoded(version, example)
    searcher = Searcher(snapshot, version.example_calibration, allowed, diversity)
    return searcher.answer([asked], [ParsedQuery(text="", plain="")], vector[None], k)[0]


def _encoded(version: Version, example: str | Location) -> np.ndarray:
    from indexer.query.single_video import encode_example  # loads FFmpeg

    config = version.snapshot.config
    require_model(config)
    return encode_example(example, config.model, config.sampling)
