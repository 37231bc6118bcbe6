"""The unit of work: a few videos, or part of a long one, that one worker encodes and writes as one file.

Rows of moments are written whenever there are `_MAX_UNWRITTEN_BYTES` of them, so that no video is too long for a
worker's memory; such a batch has several files.
"""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from indexer import schema
from indexer.config import SamplingConfig
from indexer.errors import StorageError
from indexer.ingest.encode import EncodedVideo, VideoEncoder
from indexer.ingest.files import look_at, version_of
from indexer.ingest.frame_model import FrameModel, LocalModel
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.video_rows import empty_row, failure
from indexer.phases import Stopwatch, WorkerClock
from indexer.renamed import RenamedVideos
from indexer.retold import RetoldVideos
from indexer.storage import Location, location
from indexer.store.segments_table import SegmentFile, write_segment_file
from indexer.stored import StoredMoments
from indexer.work import BatchResult, SeenVersion, WorkItem
from model.weights import load_model

# A batch should take seconds: long enough that its file is worth a commit, short enough that little is lost. Eight
# videos do, or more where they are a second each; every file of moments takes memory of whoever opens the index.
_MAX_VIDEOS, _MAX_BYTES = 8, 32 << 20
_MAX_SMALL_VIDEOS, _MAX_SMALL_BYTES = 64, 2 << 20
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
        decode_timeout_s, decoder: see `RunConfig`.
    """

    index_path: str
    model: str
    sampling: SamplingConfig
    num_threads: int = 1
    decode_timeout_s: float = 60.0
    decoder: str = "cpu"


class BatchEncoder:
    """Encodes batches one after the other, with one model and one guarded decoder.

    Args:
        settings: see `EncoderSettings`.
        model: one that others use too, of this process or of another one; None: it is loaded here.

    Raises:
        ModelError: the model's weights are missing or damaged.
        WorkerError: a GPU is to decode, and cannot.

    Attributes:
        model: the model.
    """

    def __init__(self, settings: EncoderSettings, model: FrameModel | None = None) -> None:
        self._clock = WorkerClock()
        self._folder = location(settings.index_path) / "segments"
        self._decoder = GuardedDecoder(timeout_s=settings.decode_timeout_s, decoder=settings.decoder)
        with self._clock.watch.phase("start"):
            self._decoder.start()  # while the model is loaded
            try:
                self.model = model or LocalModel(load_model(settings.model, num_threads=settings.num_threads))
                self._decoder.require_hardware()
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

        def note(item: WorkItem, encoded: EncodedVideo) -> None:
            if encoded.unchanged:
                names = ("size_bytes", "mtime_ns", *(("subtitles", "language") if item.is_retold else ()))
                unchanged[item.uri] = {name: encoded.video[name] for name in names}
            else:
                videos.append(encoded.video)

        last = _Unfinished()
        for item in items:
            copied = self._renamed.copy(item.file, batch_id) if item.maybe_renamed else None
            if copied is not None:
                last.finish()
                renamed_from.append(copied.old_uri)
                moments.add(copied.encoded.segments)
                note(item, copied.encoded)
            else:
                last = _Unfinished(self._begin(item, batch_id, moments, last), partial(note, item))
        last.finish()
        return BatchResult(
            videos=pa.Table.from_pylist(videos, schema=schema.VIDEOS),
            unchanged=unchanged,
            files=moments.finish(),
            renamed_from=renamed_from,
            part=part,
            version=before and (before if _version(path) == before else replace(before, exact=uuid.uuid4().hex)),
            spent=self._clock.report(),
        )

    def _begin(self, item: WorkItem, batch_id: str, moments: _Moments, last: _Unfinished) -> Callable[[], EncodedVideo]:
        """Decodes a video and, meanwhile or then, finishes the last one; what is returned finishes this one."""
        mark: tuple[int, int] | None = None

        def add(rows: list[dict[str, Any]]) -> None:
            nonlocal mark
            last.finish()
            mark = mark or moments.mark()
            moments.add(rows)

        def finish() -> EncodedVideo:
            encoded = finish_encoding()
            moments.require_written()
            if mark and encoded.video["status"] != schema.INDEXED:
                moments.forget(mark)
            return encoded

        if item.is_retold:
            retold = self._retold.retell(item.file, batch_id, add)
            if retold is not None:
                last.finish()
                return lambda: retold
            if mark:
                moments.forget(mark)
        finish_encoding = self._encoder.begin(
            item.file,
            batch_id,
            attempts=item.attempts,
            known_fingerprint=None if item.is_retold else item.known_fingerprint,
            start_s=item.part.start_s if item.part else 0.0,
            end_s=item.part.end_s if item.part else None,
            on_segments=add,
        )
        last.finish()
        return finish

    def stop(self) -> None:
        """For another thread: ends the batch soon, by letting all that it has still to read fail."""
        self._decoder.stop()

    def close(self) -> None:
        self._decoder.close()


def _version(path: str) -> SeenVersion:
    return SeenVersion(host=platform.node(), listed=repr(look_at(path)), exact=repr(version_of(path)))


class _Unfinished:
    """A video of which only the last features are missing: the next one is decoded while they are computed elsewhere.

    Args:
        wait: for them; gives the video.
        note: takes it.
    """

    def __init__(
        self, wait: Callable[[], EncodedVideo] | None = None, note: Callable[[EncodedVideo], None] | None = None
    ) -> None:
        self._wait, self._note = wait, note

    def finish(self) -> None:
        """Once; nothing where that is done."""
        wait, self._wait = self._wait, None
        if wait is not None and self._note is not None:
            self._note(wait())


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


def failed_video(item: WorkItem, kind: str, message: str) -> BatchResult:
    """The result of a batch of one video, or part of one, that cannot be encoded: it fails in stage "encode"."""
    row = empty_row(item.uri, size_bytes=item.file.size_bytes, mtime_ns=item.file.mtime_ns, attempts=item.attempts)
    row |= failure("encode", kind, message)
    return BatchResult(videos=pa.Table.from_pylist([row], schema=schema.VIDEOS), part=item.part)


def make_batches(items: Collection[WorkItem], num_workers: int) -> Iterator[list[WorkItem]]:
    """Cuts the work so that each batch takes seconds and all workers finish together: the last batches are small.

    A part of a video is a batch of its own.

    Args:
        items: the videos to encode, in `work_order`; read as the batches are taken.
        num_workers: workers that will share them.
    """
    num_shares = max(1, num_workers * _BATCHES_PER_WORKER)
    batch: list[WorkItem] = []
    size = 0
    for number, item in enumerate(items):
        is_alone = item.part is not None or (bool(batch) and batch[-1].part is not None)
        together = size + item.size_bytes
        most = _MAX_SMALL_VIDEOS if together <= _MAX_SMALL_BYTES else _MAX_VIDEOS
        share = -(-(len(items) - number + len(batch)) // num_shares)
        is_full = len(batch) >= min(most, share) or together > _MAX_BYTES
        if batch and (is_alone or is_full):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.size_bytes
    if batch:
        yield batch
