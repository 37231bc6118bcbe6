"""The driver's side of a run: takes results as they come, commits them every few seconds, keeps count."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from indexer import schema
from indexer.config import RunConfig
from indexer.ingest.files import MissingFile, VideoFile
from indexer.ingest.plan import Plan, has_other_subtitles
from indexer.ingest.video_rows import empty_row, failure
from indexer.known import known_videos
from indexer.parts import joined_parts
from indexer.phases import Profile
from indexer.renamed import vanished_videos
from indexer.store.index import IndexStore
from indexer.vectors_meanwhile import VectorsMeanwhile
from indexer.work import BatchResult, WorkItem

# Videos that wait for a commit, which takes some 10 kB of memory for each.
_MOST_PENDING = 1000


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
        profile: where they went, see `indexer.phases.Profile.to_dict`; no part of the contract.
        kept: those of `failed` that the index holds as they were in an earlier run; no part of the contract either.
        spared: see `Plan`, where the run was to prune; likewise.
    """

    indexed: int = 0
    unchanged: int = 0
    failed: int = 0
    removed: int = 0
    segments: int = 0
    video_s: float = 0.0
    wall_s: float = 0.0
    profile: dict[str, Any] | None = None
    kept: int = 0
    spared: dict[str, str] = field(default_factory=dict)

    def to_dict(self, *, profile: bool = False) -> dict[str, Any]:
        """Plain numbers by name; with the profile only if asked for."""
        left_out = ("kept", "spared") if profile else ("kept", "spared", "profile")
        values = {name: value for name, value in asdict(self).items() if name not in left_out}
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is.

    Attributes:
        phase: "starting", "encoding", "encoding in this process", "building vectors" or "done".
        total: videos to encode in this run.
        summary: what has been done so far.
        num_parts: parts of long videos that are done; such a video counts when its last part is.
    """

    phase: str
    total: int
    summary: RunSummary = field(default_factory=RunSummary)
    num_parts: int = 0


class Recorder:
    """Takes results as they come, commits them every few seconds, and keeps count.

    Attributes:
        stopped: set when no more results are taken.
    """

    def __init__(
        self,
        store: IndexStore,
        run: RunConfig,
        started: float,
        on_progress: Callable[[Progress], None],
        profile: Profile | None = None,
    ) -> None:
        self.store = store
        self.run = run
        self.profile = profile or Profile()
        self.summary = RunSummary()
        self._started = started
        self._on_progress = on_progress
        self._total = self._num_parts = 0
        known = known_videos(store)
        self.known = known.videos
        self._meanwhile = VectorsMeanwhile(store.path, known.num_moments, store.config.embedding_dim)
        self._vanished_sizes: set[int] = set()
        self._to_prune: set[str] = set()
        self._pending: list[BatchResult] = []
        self.stopped = threading.Event()
        self._last_commit = time.monotonic()

    def failed(self, stage: str | None) -> Iterator[str]:
        """URIs of the failed videos in the ledger, in order; of one stage, or of all."""
        return (
            video.uri for video in self.known if video.status == schema.FAILED and stage in (None, video.error_stage)
        )

    def expect(self, new: Iterable[VideoFile], plan: Plan) -> None:
        """Prepares for new files that may be renamed videos, and removes the videos that are to be pruned.

        A video whose file may have been renamed stays until the commit that brings the new name, or `prune_rest`.
        """
        vanished = vanished_videos(new, self.known)
        self._vanished_sizes = set(vanished.values())
        if not self.run.prune:
            return
        self.summary.spared = dict(plan.spared)
        self._to_prune = {*plan.vanished, *plan.spared} & vanished.keys()
        self._remove(set(plan.vanished) - vanished.keys())

    def prune_rest(self) -> None:
        """Removes what `expect` left and no new file turned out to be."""
        self._remove(self._to_prune - self.summary.spared.keys())
        self._to_prune = set()

    def _remove(self, uris: set[str]) -> None:
        if uris:
            self.store.ledger.remove(schema.video_id(uri) for uri in uris)
            self.summary.removed += len(uris)

    def work_item(self, file: VideoFile) -> WorkItem:
        known = self.known.get(file.uri)
        if known is None:
            return WorkItem(file=file, maybe_renamed=file.size_bytes in self._vanished_sizes)
        if known.status == schema.INDEXED:
            is_retold = has_other_subtitles(file, known)
            return WorkItem(file=file, known_fingerprint=known.fingerprint, is_retold=is_retold)
        same = (known.size_bytes, known.mtime_ns) == (file.size_bytes, file.mtime_ns)
        return WorkItem(file=file, attempts=known.attempts + 1 if same else 1)

    def record_left_alone(self, plan: Plan) -> None:
        """Counts the videos that are in the index already, and those that failed in an earlier run."""
        self.summary.failed += plan.num_still_failed
        self.summary.unchanged += plan.num_unchanged

    def record_missing(self, missing: Sequence[MissingFile]) -> None:
        """What is named but cannot be read, and folders that cannot be listed, become failed rows.

        A folder may be both: named by a manifest, and not to be listed. It has one row, as everything in the ledger.
        """
        missing = list({file.uri: file for file in missing}.values())
        rows = []
        for file in missing:
            known = self.known.get(file.uri)
            if known and known.status == schema.INDEXED:
                is_pruned = self.run.prune and file.gone and file.uri not in self.summary.spared
                self.summary.kept += not is_pruned
                continue
            attempts = known.attempts + 1 if known else 1
            rows.append(empty_row(file.uri, attempts=attempts) | failure("read", "NotFound", file.reason))
        if rows:
            self.store.ledger.commit(pa.Table.from_pylist(rows, schema=schema.VIDEOS))
        self.summary.failed += len(missing)

    def start(self, total: int) -> None:
        self._total = total
        self.report("starting")

    def report(self, phase: str) -> None:
        self.summary.wall_s = time.monotonic() - self._started
        self._on_progress(Progress(phase=phase, total=self._total, summary=self.summary, num_parts=self._num_parts))

    def consume(self, results: Iterator[BatchResult], phase: str = "encoding") -> None:
        """Commits results as they arrive; what has arrived when the run is interrupted is committed too.

        Args:
            results: of the batches.
            phase: what to report once the first has arrived.
        """
        now = "starting"
        try:
            for result in _with_ticks(joined_parts(self._noted(results))):
                if result is not None:
                    now = phase
                    self._count(result)
                    self._pending.append(result)
                is_time = time.monotonic() - self._last_commit >= self.run.commit_interval_s
                if is_time or sum(result.videos.num_rows for result in self._pending) >= _MOST_PENDING:
                    self._commit()
                self.report(phase if self._num_parts else now)
        finally:
            self.stopped.set()
            self._meanwhile.stop()
            self._commit()

    def _noted(self, results: Iterator[BatchResult]) -> Iterator[BatchResult]:
        """Passes results on; what they say of the worker's time is noted when they arrive."""
        self.profile.begin_work()
        for result in results:
            self.profile.note(result.spent)
            self._num_parts += result.part is not None
            yield result

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
        unchanged = {uri: facts for result in pending for uri, facts in result.unchanged.items()}
        tables = [result.videos for result in pending if result.videos.num_rows]
        if unchanged:
            tables.append(self._relisted(unchanged))
        if tables:
            renamed = self._to_prune.intersection(uri for result in pending for uri in result.renamed_from)
            files = [file for result in pending for file in result.files]
            with self.profile.watch.phase("commit"):
                self.store.commit(pa.concat_tables(tables), files, remove=[schema.video_id(uri) for uri in renamed])
            self._meanwhile.committed(sum(file.num_rows for file in files))
            self._to_prune -= renamed
            for uri in renamed:
                self.summary.spared.pop(uri, None)
            self.summary.removed += len(renamed)

    def _relisted(self, facts: dict[str, dict[str, Any]]) -> pa.Table:
        """The rows that the ledger has for these videos, with what is new of them."""
        uris = pa.array(facts)
        rows = [
            row for part in self.store.ledger.parts() for row in part.filter(pc.is_in(part["uri"], uris)).to_pylist()
        ]
        return pa.Table.from_pylist([row | facts[row["uri"]] for row in rows], schema=schema.VIDEOS)


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
