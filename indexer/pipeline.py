"""One `index` run: list, compare with the ledger, encode what is new, commit every few seconds, build the vectors."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from indexer import schema
from indexer.batches import BatchEncoder, BatchResult, EncoderSettings, WorkItem, make_batches
from indexer.config import IndexConfig, RunConfig, SamplingConfig
from indexer.errors import IndexNotFoundError
from indexer.ingest.encode import empty_row, failure
from indexer.ingest.sources import KnownVideo, MissingFile, Plan, VideoFile, diff, list_videos
from indexer.store.index import IndexStore
from model.weights import model_facts


@dataclass(kw_only=True)
class RunSummary:
    """What a run did; the contract of `index --json`.

    Attributes:
        indexed: videos that are new or changed and are in the index now.
        unchanged: videos that were in the index already, as they are.
        failed: videos that could not be indexed, in this run or in an earlier one if they have not changed since.
        removed: videos taken out of the index.
        segments: moments written.
        video_s: seconds of video that were looked at.
        wall_s: seconds that the run took.
    """

    indexed: int = 0
    unchanged: int = 0
    failed: int = 0
    removed: int = 0
    segments: int = 0
    video_s: float = 0.0
    wall_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is.

    Attributes:
        phase: "starting", "encoding" or "building vectors".
        total: videos to encode in this run.
        summary: what has been done so far.
    """

    phase: str
    total: int
    summary: RunSummary = field(default_factory=RunSummary)


def plan_run(sources: Sequence[str], index_path: str | Path, run: RunConfig) -> tuple[Plan, list[MissingFile]]:
    """What `index` would do: nothing is written. The second value lists what the sources name but is not there.

    Raises:
        SourceError: a source does not exist or holds no video.
    """
    listing = list_videos(sources)
    try:
        videos = IndexStore.open(index_path).ledger.snapshot().videos
    except IndexNotFoundError:
        videos = schema.VIDEOS.empty_table()
    return diff(listing, _known(videos), retry_failed=run.retry_failed), listing.missing


def files_to_encode(plan: Plan, run: RunConfig) -> list[VideoFile]:
    """New and changed files, up to the limit."""
    return [*plan.new, *plan.changed][: run.limit]


def index_videos(
    sources: Sequence[str],
    index_path: str | Path,
    *,
    model: str,
    sampling: SamplingConfig,
    run: RunConfig,
    in_process: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> RunSummary:
    """Brings an index up to date with its sources.

    Args:
        sources: files, folders, globs and manifests.
        index_path: the index; created if it does not exist.
        model: preset or checkpoint; an existing index must have been made with the same.
        sampling: frames and moments; likewise.
        run: how to carry it out.
        in_process: encode one video after the other in this process, without Ray. The rows are the same.
        on_progress: called about once a second, from this thread.

    Raises:
        SourceError: a source does not exist or holds no video; nothing was created.
        IndexSettingsError, IndexFormatError: the index was made with other settings, or is damaged.
        ModelError: the model's weights are missing or damaged.
        StorageError, WorkerError: the run stopped; what was committed is kept.
        KeyboardInterrupt: the run was stopped by hand; what had arrived was committed.
    """
    started = time.monotonic()
    listing = list_videos(sources)
    facts = model_facts(model)
    store = IndexStore.open_or_create(
        index_path,
        IndexConfig(
            model=model,
            model_fingerprint=facts.fingerprint,
            embedding_dim=facts.embedding_dim,
            feature_shape=facts.feature_shape,
            sampling=sampling,
        ),
    )
    recorder = _Recorder(store, run, started, on_progress)
    plan = diff(listing, recorder.known, retry_failed=run.retry_failed)
    if run.prune and plan.vanished:
        store.ledger.remove(schema.video_id(uri) for uri in plan.vanished)
        recorder.summary.removed = len(plan.vanished)
    recorder.record_missing([*listing.missing, *listing.unlisted])
    todo = [recorder.work_item(file) for file in files_to_encode(plan, run)]
    still_failed = sum(recorder.known[file.uri].status == schema.FAILED for file in plan.unchanged)
    recorder.summary.failed += still_failed
    recorder.summary.unchanged = len(plan.unchanged) - still_failed
    if todo:
        settings = EncoderSettings(
            segments_folder=str(store.segments.folder),
            model=model,
            sampling=sampling,
            decode_timeout_s=run.decode_timeout_s,
        )
        recorder.start(len(todo))
        recorder.consume(_encode_here(todo, settings) if in_process else _encode_on_ray(todo, settings, run))
    recorder.report("building vectors")
    store.build_vectors()
    recorder.report("done")
    return recorder.summary


def _known(videos: pa.Table) -> dict[str, KnownVideo]:
    columns = [videos[name].to_pylist() for name in ("uri", "size_bytes", "mtime_ns", "status")]
    return {
        uri: KnownVideo(uri=uri, size_bytes=size, mtime_ns=mtime, status=status)
        for uri, size, mtime, status in zip(*columns, strict=True)
    }


def _encode_here(items: Sequence[WorkItem], settings: EncoderSettings) -> Iterator[BatchResult]:
    with closing(BatchEncoder(settings)) as encoder:
        for batch in make_batches(items, 1):
            yield encoder.encode(batch)


def _encode_on_ray(items: Sequence[WorkItem], settings: EncoderSettings, run: RunConfig) -> Iterator[BatchResult]:
    from indexer.ray_encoding import encode_on_ray, ray_cluster  # loading Ray takes a second: only when there is work

    with ray_cluster(run.address) as cluster:
        yield from encode_on_ray(items, settings, cluster, num_workers=run.num_workers, device=run.device)


class _Recorder:
    """Takes results as they come, commits them every few seconds, and keeps count."""

    def __init__(
        self, store: IndexStore, run: RunConfig, started: float, on_progress: Callable[[Progress], None]
    ) -> None:
        self.summary = RunSummary()
        self._store = store
        self._run = run
        self._started = started
        self._on_progress = on_progress
        self._total = 0
        videos = store.ledger.snapshot().videos
        self._rows = {row["uri"]: row for row in videos.select(_REMEMBERED).to_pylist()}
        self.known = _known(videos)
        self._pending: list[BatchResult] = []
        self._last_commit = time.monotonic()

    def work_item(self, file: VideoFile) -> WorkItem:
        row = self._rows.get(file.uri)
        if row is None:
            return WorkItem(file=file)
        if row["status"] == schema.INDEXED:
            return WorkItem(file=file, known_fingerprint=row["fingerprint"])
        same = (row["size_bytes"], row["mtime_ns"]) == (file.size_bytes, file.mtime_ns)
        return WorkItem(file=file, attempts=row["attempts"] + 1 if same else 1)

    def record_missing(self, missing: Sequence[MissingFile]) -> None:
        """What is named but cannot be read, and folders that cannot be listed, become failed rows."""
        rows = []
        for file in missing:
            known = self._rows.get(file.uri)
            if known and known["status"] == schema.INDEXED:
                continue  # what is in the index stays until --prune
            attempts = known["attempts"] + 1 if known else 1
            rows.append(empty_row(file.uri, attempts=attempts) | failure("read", "NotFound", file.reason))
        if rows:
            self._store.ledger.commit(pa.Table.from_pylist(rows, schema=schema.VIDEOS))
        self.summary.failed += len(missing)

    def start(self, total: int) -> None:
        self._total = total
        self.report("starting")

    def report(self, phase: str) -> None:
        self.summary.wall_s = time.monotonic() - self._started
        self._on_progress(Progress(phase=phase, total=self._total, summary=self.summary))

    def consume(self, results: Iterator[BatchResult]) -> None:
        """Commits results as they arrive; what has arrived when the run is interrupted is committed too."""
        phase = "starting"
        try:
            for result in _with_ticks(results):
                if result is not None:
                    phase = "encoding"
                    self._count(result)
                    self._pending.append(result)
                if time.monotonic() - self._last_commit >= self._run.commit_interval_s:
                    self._commit()
                self.report(phase)
        finally:
            self._commit()

    def _count(self, result: BatchResult) -> None:
        for row in result.videos.select(["status", "num_segments", "duration_s"]).to_pylist():
            self.summary.indexed += row["status"] == schema.INDEXED
            self.summary.failed += row["status"] == schema.FAILED
            self.summary.segments += row["num_segments"]
            self.summary.video_s += row["duration_s"] or 0.0
        self.summary.unchanged += len(result.unchanged)

    def _commit(self) -> None:
        self._last_commit = time.monotonic()
        pending, self._pending = self._pending, []
        unchanged = [file for result in pending for file in result.unchanged]
        tables = [result.videos for result in pending if result.videos.num_rows]
        if unchanged:
            tables.append(self._relisted(unchanged))
        if tables:
            self._store.commit(pa.concat_tables(tables), [result.file for result in pending if result.file])

    def _relisted(self, files: Sequence[VideoFile]) -> pa.Table:
        """The rows that the ledger has for these videos, with size and time as listed now."""
        listed = {file.uri: {"size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns} for file in files}
        rows = self._store.ledger.snapshot().videos.to_pylist()
        return pa.Table.from_pylist(
            [row | listed[row["uri"]] for row in rows if row["uri"] in listed], schema=schema.VIDEOS
        )


_REMEMBERED = ["uri", "status", "size_bytes", "mtime_ns", "fingerprint", "attempts"]


def _with_ticks(results: Iterator[BatchResult], interval_s: float = 1.0) -> Iterator[BatchResult | None]:
    """Yields the results, and None whenever none came for a while, so that the caller can commit and report."""
    arrived: queue.Queue[BatchResult | BaseException | None] = queue.Queue()

    def pump() -> None:
        try:
            for result in results:
                arrived.put(result)
            arrived.put(None)
        except BaseException as error:  # handed to the other thread, which raises it
            arrived.put(error)

    threading.Thread(target=pump, daemon=True).start()
    while True:
        try:
            item = arrived.get(timeout=interval_s)
        except queue.Empty:
            yield None
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item
