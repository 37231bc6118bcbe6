"""Another model for an index, from the frame features that it stores: no video is decoded again.

New moments are written beside the old ones, under batches of their own, and one commit of the ledger switches from all
old to all new. Searches see one model or the other. What other runs commit before the switch is refreshed too.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer import schema
from indexer.config import IndexConfig
from indexer.errors import IndexSettingsError, StorageError
from indexer.ingest.fuse import STORED, labels_seen, pad_frames
from indexer.storage import Location
from indexer.store.index import IndexStore
from indexer.store.segments_table import SegmentFile, write_segment_file
from indexer.store.snapshot import Snapshot
from indexer.store.sweep import maintenance_lock
from model.weights import canonical_name, frames_alike, frames_fingerprint, load_model, model_facts, require_weights

if TYPE_CHECKING:
    from model.video_text_model import VideoTextModel

_MOMENTS_AT_ONCE = 512
_MAX_ROUNDS = 30


@dataclass(frozen=True, kw_only=True)
class RefreshSummary:
    """What a refresh did; the contract of `refresh --json`.

    Attributes:
        model: the model that the index has now.
        videos, segments: videos and moments of the index, all of them encoded with it.
        video_s: their length, seconds.
        wall_s: seconds that it took.
    """

    model: str
    videos: int
    segments: int
    video_s: float
    wall_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"video_s": round(self.video_s, 3), "wall_s": round(self.wall_s, 3)}


def refresh_index(
    path: str | Location,
    *,
    model: str,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> RefreshSummary:
    """Encodes every moment of an index with another model, from its stored frame features and transcripts.

    Args:
        path: the index. It may be searched meanwhile; what other runs add is taken along.
        model: preset or checkpoint with the same frame encoder as that of the index, or one that `frames_alike` takes
            for it.
        device: see `load_model`.
        on_progress: called with the moments done and the moments there are.

    Raises:
        IndexNotFoundError, IndexFormatError: there is no such index, or it is damaged.
        ModelError: the model's weights are missing or damaged.
        IndexSettingsError: the model has another frame encoder, whose features are not those that are stored.
        IndexDirectoryError: the index is being compacted or refreshed by another process.
        StorageError: it could not be written; the index is as it was.
    """
    started_s = time.monotonic()
    store = IndexStore.open(path)
    config = _settings(store.config, model)
    with maintenance_lock(store.path):
        snapshot = store.snapshot()
        if snapshot.config.model_fingerprint != config.model_fingerprint:
            snapshot = _Refresh(store, config, load_model(model, device, runtime="torch"), on_progress).run()
        store.build_vectors()
        store.build_keywords()
        store.build_keys()
    return RefreshSummary(
        model=config.model,
        videos=snapshot.videos.num_rows,
        segments=snapshot.num_segments,
        video_s=float(pc.sum(snapshot.videos["duration_s"]).as_py() or 0.0),
        wall_s=time.monotonic() - started_s,
    )


def _settings(found: IndexConfig, model: str) -> IndexConfig:
    """What the index is to have, with the rest of its settings as they are."""
    require_weights(model)
    frames = frames_fingerprint(model)
    if not frames_alike(found.frames_fingerprint, frames):
        raise IndexSettingsError(
            f"the model must have the frame encoder of the index ({found.model!r}), whose features are stored; that of "
            f"{model!r} is another one: index into a new folder with --model {model}"
        )
    facts = model_facts(model)
    return replace(
        found,
        model=canonical_name(model),
        model_fingerprint=facts.fingerprint,
        embedding_dim=facts.embedding_dim,
        feature_shape=facts.feature_shape,
    )


class _Refresh:
    """One refresh under way: rounds of encoding what is new since the last one, until a switch succeeds."""

    def __init__(
        self, store: IndexStore, config: IndexConfig, model: VideoTextModel, on_progress: Callable[[int, int], None]
    ) -> None:
        self._store = store
        self._config = config
        self._model = model
        self._on_progress = on_progress
        self._new_batches: dict[str, str] = {}  # the batch as it was -> the batch that took its place
        self._num_done = 0

    def run(self) -> Snapshot:
        """Returns the view that was switched from: the same videos and moments, as the old model made them."""
        generation = self._store.add_settings(self._config)
        for _ in range(_MAX_ROUNDS):
            snapshot = self._store.snapshot()
            self._store.segments.add(list(self._encode_what_is_new(snapshot)))
            rows = self._switched(snapshot.ledger.videos)
            if self._store.ledger.switch(rows, version=snapshot.ledger.version, generation=generation):
                return snapshot
        raise StorageError(
            f"the refresh could not be committed in {_MAX_ROUNDS} attempts: "
            "other runs keep writing to this index; run again later"
        )

    def _encode_what_is_new(self, snapshot: Snapshot) -> Iterator[SegmentFile]:
        known = pa.array(list(self._new_batches), pa.string())
        for batch in pc.unique(snapshot.videos["batch_id"]).to_pylist():
            self._new_batches.setdefault(batch, uuid.uuid4().hex)
        waiting: list[pa.Table] = []
        for _, table in snapshot.read_file_by_file(schema.SEGMENTS.names):
            waiting.append(table.filter(pc.invert(pc.is_in(table["batch_id"], value_set=known))))
            if sum(part.num_rows for part in waiting) >= _MOMENTS_AT_ONCE:
                yield self._write(pa.concat_tables(waiting), snapshot)
                waiting = []
        if any(part.num_rows for part in waiting):
            yield self._write(pa.concat_tables(waiting), snapshot)

    def _write(self, moments: pa.Table, snapshot: Snapshot) -> SegmentFile:
        """One file of the moments of many small ones: a file costs more than its moments."""
        starts = range(0, moments.num_rows, _MOMENTS_AT_ONCE)
        parts = [self._encode(moments.slice(start, _MOMENTS_AT_ONCE), snapshot) for start in starts]
        return write_segment_file(self._store.segments.folder, pa.concat_tables(parts))

    def _encode(self, moments: pa.Table, snapshot: Snapshot) -> pa.Table:
        """The same moments, with the new model's vectors and labels."""
        shape = (-1, *self._config.feature_shape)
        times_s = [np.array(t) for t in moments["frame_times_s"].to_pylist()]
        features, mask, times = pad_frames(
            [np.frombuffer(data.as_py(), STORED).reshape(shape) for data in moments["frame_features"]],
            [t - start_s for t, start_s in zip(times_s, moments["start_s"].to_pylist(), strict=True)],
        )
        transcripts = moments["transcript"].to_pylist()
        vectors, probabilities = self._model.encode_and_classify(features, mask, times, transcripts)
        names = self._model.label_names
        labels = [labels_seen(seen, names) for seen in probabilities.cpu().numpy()]
        batches = [self._new_batches[batch] for batch in moments["batch_id"].to_pylist()]
        self._num_done += moments.num_rows
        self._on_progress(self._num_done, snapshot.num_segments)
        new = {"embedding": list(vectors.cpu().numpy()), "labels": labels, "batch_id": batches}
        return pa.table(
            [pa.array(new[f.name], f.type) if f.name in new else moments[f.name] for f in schema.SEGMENTS],
            schema=schema.SEGMENTS,
        )

    def _switched(self, videos: pa.Table) -> pa.Table:
        """The ledger's rows with the new batches; failed videos have none."""
        batches = [self._new_batches.get(batch, batch) for batch in videos["batch_id"].to_pylist()]
        number = videos.schema.get_field_index("batch_id")
        return videos.set_column(number, videos.schema.field(number), pa.array(batches, pa.string()))
