"""The open index of a service: which version is asked, by which threads, and how it moves on to the next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

from indexer.bounded_cache import BoundedCache
from indexer.ingest.paths import uri_to_path
from indexer.query.diversity import Diversity
from indexer.query.filters import Filters
from indexer.query.results import Classification, SearchResult
from indexer.query.video_index import VideoIndex
from indexer.serve.clips import cut_clip
from indexer.serve.lanes import BatchQueue, Lane
from indexer.serve.ranges import entity_tag
from indexer.serve.settings import ServeSettings
from indexer.storage import Location, ObjectPath

logger = logging.getLogger(__name__)

# A video by its URI and the batch that it was indexed with, which changes when it does; and a span of it, seconds.
ClipKey = tuple[str, str, float, float]

# A query this long is encoded with others of its kind only: all texts of a batch are padded to the longest.
_LONG_CHARS = 200
_FILE_READERS = 4


class Question(NamedTuple):
    """One search: a query that was checked, or the id of a moment that others should be like."""

    query: str | int
    k: int
    where: Filters
    diversity: Diversity


class Clip(NamedTuple):
    """An MP4, and the tag that says which one it is."""

    data: bytes
    tag: str


class Service:
    """Answers requests from the newest version that it has opened.

    A version is a `VideoIndex` that never changes; a newer one is opened and warmed beside it, and then takes its
    place. Whatever has begun goes on with the version it began with. Use it inside `running`.

    Args:
        path: of the index.
        settings: its limits.

    Raises:
        IndexDirectoryError: there is no index, or its model is not installed.
    """

    def __init__(self, path: str | Location, settings: ServeSettings | None = None) -> None:
        self.settings = settings or ServeSettings()
        self.index = VideoIndex.open(path)
        self._state = self.index.state()
        self.index.warm_up()
        self.refresh_error: str | None = None
        self.on_batch: Callable[[int], None] = lambda size: None
        self._searches = BatchQueue(self._answer, self.settings.max_batch, self.settings.max_waiting)
        self._classifying = Lane("classify", 1, self.settings.max_waiting)
        self._reading = Lane("thumbnail", _FILE_READERS, self.settings.max_waiting)
        self._cutting = Lane("clip", self.settings.max_clips, self.settings.max_waiting_clips)
        self._clips: BoundedCache[ClipKey, Clip] = BoundedCache(self.settings.clip_cache_bytes)
        self._being_cut: dict[ClipKey, asyncio.Task[Clip]] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks for newer versions as long as the block lasts."""
        refreshing = asyncio.create_task(self._keep_fresh())
        try:
            yield
        finally:
            refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await refreshing
            for queue in (self._searches, self._classifying, self._reading, self._cutting):
                queue.close()

    @property
    def version(self) -> int:
        """Of the ledger, as requests see it."""
        return self.index.snapshot.ledger.version

    @property
    def num_waiting(self) -> int:
        """Searches that wait."""
        return self._searches.num_waiting

    async def search(self, question: Question) -> SearchResult:
        """As `VideoIndex.search`, or `search_like` for the id of a moment."""
        return await self._searches.ask(question)

    async def classify(self, labels: Iterable[str], where: Filters, start: int, limit: int) -> Classification:
        """As `VideoIndex.classify`."""
        return await self._classifying.run(self.index.classify, labels, where=where, start=start, limit=limit)

    async def thumbnail(self, segment_id: int) -> bytes | None:
        """As `VideoIndex.thumbnail`."""
        return await self._reading.run(self.index.thumbnail, segment_id)

    async def clip(self, segment_id: int, start_s: float | None, end_s: float | None) -> Clip:
        """A moment as MP4; with other bounds, another span of the same video. Those cut last are kept.

        Raises:
            OverloadedError: too many clips are being cut.
            UnknownMomentError: there is no such moment.
            UsageError: the span is empty or too long.
            VideoError: the video cannot be read, or not in time.
        """
        index = self.index
        uri, from_s, to_s = index.span_of(segment_id)
        span = (from_s if start_s is None else start_s, to_s if end_s is None else end_s)
        key = (uri, index.batch_of(segment_id), *span)
        kept = self._clips.get(key)
        if kept is not None:
            return kept
        if key not in self._being_cut:
            task = asyncio.create_task(self._cut(key))
            self._being_cut[key] = task
            task.add_done_callback(lambda done: self._note_cut(key, done))
        return await asyncio.shield(self._being_cut[key])  # others may wait for it too

    async def _cut(self, key: ClipKey) -> Clip:
        uri, _, start_s, end_s = key
        data = await self._cutting.run(cut_clip, uri_to_path(uri), start_s, end_s, self.settings)
        return Clip(data, entity_tag(data))

    def _note_cut(self, key: ClipKey, done: asyncio.Task[Clip]) -> None:
        del self._being_cut[key]
        if not done.cancelled() and done.exception() is None:
            self._clips.put(key, done.result(), len(done.result().data))

    def refresh(self) -> bool:
        """Opens the newest version, if there is a newer one, and asks that from now on. Returns whether it did."""
        state = self.index.state()
        if state == self._state:
            return False
        newest = self.index.newest()
        newest.warm_up()
        self.index, self._state = newest, state
        return True

    async def _keep_fresh(self) -> None:
        """An index that cannot be read for a while is asked as it was."""
        in_bucket = isinstance(self.index.path, ObjectPath)
        while True:
            await asyncio.sleep(self.settings.bucket_refresh_s if in_bucket else self.settings.refresh_s)
            try:
                if await asyncio.to_thread(self.refresh):
                    logger.info("now at version %d of the index, %d moments", self.version, self.index.num_segments)
                self.refresh_error = None
            except Exception as error:  # whatever it is, the next round may go well
                if self.refresh_error is None:
                    logger.warning("the index cannot be read again, and is asked as it was: %s", error)
                self.refresh_error = " ".join(str(error).split()) or type(error).__name__

    def _answer(self, questions: Sequence[Question]) -> list[SearchResult | Exception]:
        """All questions from one version; those with the same options together."""
        index = self.index
        self.on_batch(len(questions))
        groups: dict[tuple[object, ...], list[int]] = {}
        for number, (query, *options) in enumerate(questions):
            company = number if isinstance(query, int) else "long" if len(query) > _LONG_CHARS else "short"
            groups.setdefault((company, *options), []).append(number)
        answers: dict[int, SearchResult | Exception] = {}
        for numbers in groups.values():
            group = [questions[number] for number in numbers]
            answers.update(zip(numbers, _answer_alike(index, group), strict=True))
        return [answers[number] for number in range(len(questions))]


def _answer_alike(index: VideoIndex, group: Sequence[Question]) -> Sequence[SearchResult | Exception]:
    """Answers questions with the same options; an error is that of all of them."""
    query, k, where, diversity = group[0]
    try:
        if isinstance(query, int):
            return [index.search_like(query, k, where=where, diversity=diversity)]
        return index.search_many([str(one.query) for one in group], k, where=where, diversity=diversity)
    except Exception as error:  # told to those who asked, not to the others of the batch
        return [error] * len(group)
