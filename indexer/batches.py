"""The unit of work: a few videos, or part of a long one, that one worker encodes and writes as one file.

Rows of moments are written whenever there are `_MAX_UNWRITTEN_BYTES` of them, so that no video is too long for a
worker's memory; such a batch has several files.
"""

from __future__ import annotations

import platform
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from indexer import schema
from indexer.config import SamplingConfig
from indexer.errors import StorageError
from indexer.ingest.encode import EncodedVideo, VideoEncoder, empty_row, failure
from indexer.ingest.files import look_at, version_of
from indexer.ingest.frame_model import FrameModel, LocalModel
from indexer.ingest.guard import GuardedDecoder
from indexer.phases import Stopwatch, WorkerClock
from indexer.renamed import RenamedVideos
from indexer.retold import RetoldVideos
from indexer.storage import Location, location
from indexer.store.segments_table import SegmentFile, write_segment_file
from indexer.stored import StoredMoments
from indexer.work import BatchResult, SeenVersion, WorkItem
from model.weights import load_model

# A batch should take seconds: long enough that its file is worth a commit, short enough that little is lost.
_MAX_VIDEOS = 8
_MAX_BYTES = 32 << 20
_BATCHES_PER_WORKER = 3
_MAX_UNWRITTEN_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """All that a worker needs to start.

    Attributes:
        index_path: the index, which exists.
        model: preset or checkpoint.
        sampling: see `SamplingConfig`.
        num_threads: threads of the encoder.
        decode_timeout_s: see `RunConfig`.
    """

    index_path: str
    model: str
    sampling: SamplingConfig
    num_threads: int = 1
    decode_timeout_s: float = 60.0


class BatchEncoder:
    """Encodes batches one after the other, with one model and one guarded decoder.

    Args:
        settings: see `EncoderSettings`.
        model: one that others use too, of this process or of another one; None: it is loaded here.

    Attributes:
        model: the model.
    """

    def __init__(self, settings: EncoderSettings, model: FrameModel | None = None) -> None:
        self._clock = WorkerClock()
        self._folder = location(settings.index_path) / "segments"
        self._decoder = GuardedDecoder(timeout_s=settings.decode_timeout_s)
        with self._clock.watch.phase("start"):
            self._decoder.start()  # while the model is loaded
            try:
                self.model = model or LocalModel(load_model(settings.model, num_threads=settings.num_threads))
            except BaseException:
                self._decoder.close()
                raise
        self._encoder = VideoEncoder(self.model, self._decoder, settings.sampling, self._clock.watch)
        stored = StoredMoments(settings.index_path)
        self._renamed, self._retold = RenamedVideos(stored), RetoldVideos(stored, self.model)

    def encode(self, items: Sequence[WorkItem]) -> BatchResult:
        """Encodes the videos and writes their moments as one file, or several where they are long.

        Args:
            items: videos; or one part of a video, alone.

        Raises:
            StorageError: a file could not be written.
        """
        part, path = items[0].part, items[0].file.path
        before = _version(path) if part else None
        batch_id = part.batch_id if part else uuid.uuid4().hex
        videos: list[dict[str, Any]] = []
        unchanged: dict[str, dict[str, Any]] = {}
        renamed_from: list[str] = []
        moments = _Moments(self._folder, self._clock.watch)
        for item in items:
            copied = self._renamed.copy(item.file, batch_id) if item.maybe_renamed else None
            if copied is not None:
                renamed_from.append(copied.old_uri)
                moments.add(copied.encoded.segments)
            encoded = copied.encoded if copied else self._encode(item, batch_id, moments)
            if encoded.unchanged:
                names = ("size_bytes", "mtime_ns", *(("subtitles", "language") if item.is_retold else ()))
                unchanged[item.file.uri] = {name: encoded.video[name] for name in names}
            else:
                videos.append(encoded.video)
        return BatchResult(
            videos=pa.Table.from_pylist(videos, schema=schema.VIDEOS),
            unchanged=unchanged,
            files=moments.finish(),
            renamed_from=renamed_from,
            part=part,
            version=before and (before if _version(path) == before else replace(before, exact=uuid.uuid4().hex)),
            spent=self._clock.report(),
        )

    def _encode(self, item: WorkItem, batch_id: str, moments: _Moments) -> EncodedVideo:
        mark = moments.mark()
        if item.is_retold:
            retold = self._retold.retell(item.file, batch_id, moments.add)
            if retold is not None:
                return retold
            moments.forget(mark)
        encoded = self._encoder.encode(
            item.file,
            batch_id,
            attempts=item.attempts,
            known_fingerprint=None if item.is_retold else item.known_fingerprint,
            start_s=item.part.start_s if item.part else 0.0,
            end_s=item.part.end_s if item.part else None,
            on_segments=moments.add,
        )
        moments.require_written()
        if encoded.video["status"] != schema.INDEXED:
            moments.forget(mark)
        return encoded

    def close(self) -> None:
        self._decoder.close()


def _version(path: str) -> SeenVersion:
    return SeenVersion(host=platform.node(), listed=repr(look_at(path)), exact=repr(version_of(path)))


class _Moments:
    """The moments of a batch on their way into files."""

    def __init__(self, folder: Location, watch: Stopwatch) -> None:
        self._folder = folder
        self._watch = watch
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = 0
        self._files: list[SegmentFile] = []
        self._error: StorageError | None = None

    def add(self, rows: list[dict[str, Any]]) -> None:
        self._rows += rows
        self._num_bytes += sum(len(row["frame_features"]) + len(row["thumbnail"] or b"") for row in rows)
        if self._num_bytes > _MAX_UNWRITTEN_BYTES:
            self._write()

    def finish(self) -> list[SegmentFile]:
        if self._rows:
            self._write()
        return self._files

    def mark(self) -> tuple[int, int]:
        """What there is before the moments of the next video."""
        return len(self._files), len(self._rows)

    def forget(self, mark: tuple[int, int]) -> None:
        """Drops what came since. What is in one file with other videos stays there: no row of the ledger names it."""
        num_files, num_rows = mark
        if len(self._files) == num_files:
            del self._rows[num_rows:]
        else:
            self._rows.clear()
            del self._files[num_files + bool(num_rows) :]

    def require_written(self) -> None:
        """Raises the StorageError of a file that could not be written, which the encoder took for the video's fault."""
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        with self._watch.phase("write"):
            rows, self._rows, self._num_bytes = self._rows, [], 0
            try:
                table = pa.Table.from_pylist(rows, schema=schema.SEGMENTS)
                self._files.append(write_segment_file(self._folder, table))
            except StorageError as error:
                self._error = error
                raise


def failed_batch(items: Sequence[WorkItem], kind: str, message: str) -> BatchResult:
    """The result of a batch that cannot be encoded: every video of it fails in stage "encode" with the same words."""
    rows = [
        empty_row(item.file.uri, size_bytes=item.file.size_bytes, mtime_ns=item.file.mtime_ns, attempts=item.attempts)
        | failure("encode", kind, message)
        for item in items
    ]
    return BatchResult(videos=pa.Table.from_pylist(rows, schema=schema.VIDEOS), part=items[0].part)


def work_order(item: WorkItem) -> tuple[int, str, int]:
    """Sorts items as `make_batches` takes them: the largest first."""
    return -item.size_bytes, item.file.uri, item.part.number if item.part else 0


def make_batches(items: Collection[WorkItem], num_workers: int) -> Iterator[list[WorkItem]]:
    """Cuts the work so that each batch takes seconds and all workers finish together.

    A part of a video is a batch of its own.

    Args:
        items: the videos to encode, in `work_order`; read as the batches are taken.
        num_workers: workers that will share them.
    """
    share = -(-len(items) // max(1, num_workers * _BATCHES_PER_WORKER))
    max_videos = min(_MAX_VIDEOS, max(1, share))
    batch: list[WorkItem] = []
    size = 0
    for item in items:
        is_alone = item.part is not None or (bool(batch) and batch[-1].part is not None)
        if batch and (is_alone or len(batch) == max_videos or size + item.size_bytes > _MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.size_bytes
    if batch:
        yield batch
