"""One version of an index as it is asked: its moments, and what questions need besides, loaded at the first of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from indexer.errors import UnknownMomentError, UsageError
from indexer.query.calibration import Calibration
from indexer.query.filters import Filters
from indexer.query.index_model import text_encoder_of
from indexer.store.snapshot import Snapshot

if TYPE_CHECKING:
    from indexer.query.labels import LabelScorer


class Version:
    """A snapshot and what belongs to it.

    Args:
        snapshot: what is asked.
        before: another version, with which the text encoder is shared if both are made with the same settings.

    Attributes:
        snapshot: likewise.
    """

    def __init__(self, snapshot: Snapshot, before: Version | None = None) -> None:
        self.snapshot = snapshot
        self._load_text_encoder: Callable[[], Any] = functools.cache(partial(text_encoder_of, snapshot.config))
        if before is not None and before.snapshot.config == snapshot.config:
            self._load_text_encoder = before._load_text_encoder

    @property
    def text_encoder(self) -> Any:
        """That of the index's model; raises IndexSettingsError if the installed one is another."""
        return self._load_text_encoder()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to vectors of the index's space: float32 [N, dim], length 1."""
        return np.asarray(self.text_encoder.encode(list(texts)), dtype=np.float32)

    @functools.cached_property
    def calibration(self) -> Calibration:
        """Of texts; there must be moments, as for the next one."""
        return Calibration.fit(self.snapshot, self.text_encoder, self.snapshot.config.model_fingerprint)

    @functools.cached_property
    def example_calibration(self) -> Calibration:
        return Calibration.fit_to_examples(self.snapshot)

    def label_scorer(self, labels: Sequence[str]) -> LabelScorer:
        from indexer.query.labels import LabelScorer

        config = self.snapshot.config
        return LabelScorer(labels, self.text_encoder, config.model, config.model_fingerprint)

    def allowed(self, where: Filters | None) -> np.ndarray | None:
        """Which moments are looked at, bool [N]; None: all."""
        return None if where is None or where.is_empty else where.mask(self.snapshot)

    def row_of(self, segment_id: int) -> int:
        """The row of a moment; raises UnknownMomentError, a UsageError, where there is none."""
        row = self.snapshot.row_of(segment_id)
        if row is None:
            raise UnknownMomentError(f"there is no moment with the id {segment_id!r} in this version of the index")
        return row

    def video_facts(self, uri: str) -> dict[str, Any]:
        """The ledger's row of a video; raises UsageError where there is none."""
        row = pc.index(self.snapshot.videos["uri"], uri).as_py()
        if row < 0:
            raise UsageError(f"the video {uri!r} is not in the index")
        return self.snapshot.videos.slice(row, 1).to_pylist()[0]
