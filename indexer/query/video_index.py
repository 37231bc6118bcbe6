"""`VideoIndex`: an index opened for questions. Loads no Ray; loads the text encoder at the first query."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from indexer.ingest.paths import uri_to_path
from indexer.query.diversity import Diversity
from indexer.query.filters import Filters
from indexer.query.inputs import check_k, check_labels, check_query
from indexer.query.like import search_like
from indexer.query.results import Classification, SearchResult
from indexer.query.search import Searcher
from indexer.query.syntax import ParsedQuery, parse_query
from indexer.query.version import Version
from indexer.storage import Location
from indexer.store.index import IndexStore
from indexer.store.moment_vectors import Coverage
from indexer.store.snapshot import Snapshot

if TYPE_CHECKING:
    from indexer.query.sql import SqlResult

# What only some questions need is imported where they are answered: a search on the command line should not wait for
# FFmpeg, DuckDB and the classes of ImageNet.


class VideoIndex:
    """An index, opened for search and classification.

    It sees the version that was newest when it was opened; `reload` moves on to the newest.

        index = VideoIndex.open("demo-data/index")
        for moment in index.search("a dog on a skateboard", k=5).results:
            print(moment.video, moment.start_s, moment.end_s, moment.score)
    """

    def __init__(self, store: IndexStore) -> None:
        self._store = store
        self._version = Version(store.snapshot())

    @classmethod
    def open(cls, path: str | Location) -> VideoIndex:
        """Opens an index.

        Raises:
            IndexNotFoundError: there is none at the path.
            IndexFormatError: it is of another format, or damaged.
        """
        return cls(IndexStore.open(path))

    def __repr__(self) -> str:
        return f"VideoIndex({str(self.path)!r}: {self.num_videos:,} videos, {self.num_segments:,} moments)"

    def reload(self) -> bool:
        """Moves on to the newest version. Returns whether there was a newer one."""
        if self._store.ledger.version() == self.snapshot.ledger.version:
            return False
        self._version = Version(self._store.snapshot(), before=self._version)
        return True

    def newest(self) -> VideoIndex:
        """The newest version as an object of its own, which shares the text encoder; this one stays as it is.

        One thread at a time: both read through the same store. Questions need no store, so that others may go on asking
        the one that they have.
        """
        newest = copy.copy(self)
        newest._version = Version(self._store.snapshot(), before=self._version)
        return newest

    def state(self) -> tuple[object, ...]:
        """What lies on storage now, cheap to ask: it changes with every commit, compaction and rebuilt file."""
        return self._store.state()

    def warm_up(self) -> None:
        """Loads what the first search would have to wait for."""
        self.encode_texts(["warm up"])
        if self.num_segments:
            self.search("warm up", 1)

    @property
    def path(self) -> Location:
        return self._store.path

    @property
    def num_segments(self) -> int:
        """Visible moments."""
        return self.snapshot.num_segments

    @property
    def num_videos(self) -> int:
        """Videos that are indexed; failed ones do not count."""
        return self.snapshot.videos.num_rows

    @property
    def videos(self) -> list[str]:
        """URIs of the indexed videos, sorted."""
        return sorted(self.snapshot.videos["uri"].to_pylist())

    @property
    def video_s(self) -> float:
        """Length of all indexed videos together, seconds."""
        return float(pc.sum(self.snapshot.videos["duration_s"]).as_py() or 0.0)

    @property
    def coverage(self) -> Coverage:
        """How much of this version the vector file covers."""
        return self.snapshot.coverage

    @property
    def snapshot(self) -> Snapshot:
        """The version that is open, for those who measure it."""
        return self._version.snapshot

    @property
    def model(self) -> str:
        """Preset or checkpoint that the index was made with."""
        return self.snapshot.config.model

    def search(
        self, query: str, k: int = 10, *, where: Filters | None = None, diversity: Diversity | None = None
    ) -> SearchResult:
        """Finds the k moments that fit a text best.

        Args:
            query: what the moment shows, in English, or what is said in it. "Quoted words" must have been said, or be
                in title, file name or labels, `begin*` likewise; `-word` excludes.
            k: moments wanted, 1 to 1000.
            where: which moments are looked at; all if None.
            diversity: how varied the moments have to be; None: near-duplicates are one, and a video has at most three
                moments as long as there are others.

        Raises:
            UsageError: k is out of range, the query is empty, too long or malformed, or a filter fits nothing here.
            IndexSettingsError: the installed model is not the one that the index was made with.
        """
        return self.search_many([query], k, where=where, diversity=diversity)[0]

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        where: Filters | None = None,
        syntax: bool = True,
        diversity: Diversity | None = None,
    ) -> list[SearchResult]:
        """As `search`, for many queries at once: one result a query, in their order.

        Args:
            where: which moments are looked at, for all queries.
            syntax: whether quotes, minus signs and stars mean something; no, for captions and the like.
            diversity: as in `search`.
        """
        check_k(k)
        cleaned = [check_query(query) for query in queries]
        parsed = [parse_query(query) if syntax else ParsedQuery(text=query, plain=query) for query in cleaned]
        if not self.num_segments:
            return [SearchResult(query=query, matched=False, results=[]) for query in cleaned]
        version = self._version
        searcher = Searcher(version.snapshot, version.calibration, version.allowed(where), diversity)
        return searcher.answer(cleaned, parsed, version.encode_texts([query.text for query in parsed]), k)

    def search_like(
        self,
        example: int | str | Location,
        k: int = 10,
        *,
        where: Filters | None = None,
        diversity: Diversity | None = None,
    ) -> SearchResult:
        """Finds the k moments that are most like an example.

        Args:
            example: `segment_id` of a moment, which is left out itself; or an image or video file, taken as a whole.
            k: moments wanted, 1 to 1000.
            where: which moments are looked at; all if None.
            diversity: as in `search`.

        Returns:
            `confidence` is the share of moments of this index whose nearest moment in another video is less like them.

        Raises:
            UsageError: k is out of range, there is no such moment or file, or a filter fits nothing here.
            IndexSettingsError: the installed model is not the one that the index was made with.
            VideoError: the file holds no picture that can be read.
        """
        check_k(k)
        return search_like(self._version, example, k, where, diversity)

    def classify(
        self, labels: Iterable[str], *, where: Filters | None = None, start: int = 0, limit: int | None = None
    ) -> Classification:
        """Scores every moment against any list of labels, by video and time.

        "None of these" is a possible answer: see `ClassifiedMoment.answer`.

        Args:
            labels: free text, for example "cooking"; blanks and duplicates are dropped.
            where: which moments are looked at; all if None.
            start, limit: the part of them that is scored: `limit` moments from number `start` on; all if None.

        Raises:
            UsageError: no label is left, there are too many, or a filter fits nothing here.
            IndexSettingsError: the installed model is not the one that the index was made with.
        """
        from indexer.query.zero_shot import classify_moments, moments_in_order

        names = check_labels(labels)
        version, snapshot = self._version, self._version.snapshot
        order = moments_in_order(snapshot, version.allowed(where) if snapshot.num_segments else None)
        chosen = order[start : None if limit is None else start + limit]
        scorer = version.label_scorer(names) if len(chosen) else None
        return classify_moments(snapshot, names, scorer, chosen, num_moments=len(order))

    def label_scores(self, labels: Sequence[str]) -> np.ndarray:
        """As `classify`, as numbers: float32 [N, L + 1], one row a moment of `snapshot`; the last column is for none.

        Args:
            labels: L labels, checked.
        """
        from indexer.query.zero_shot import score_moments

        return score_moments(self.snapshot, self._version.label_scorer(labels))

    def thumbnail(self, segment_id: int) -> bytes | None:
        """JPEG of a moment, or None if it has none.

        Raises:
            UsageError: there is no such moment.
        """
        return self.snapshot.read([self._version.row_of(segment_id)], ["thumbnail"])["thumbnail"][0].as_py()

    def clip(self, uri: str, start_s: float, end_s: float) -> bytes:
        """A short MP4 that starts at `start_s`, for a player. Only videos of the index are read.

        Raises:
            UsageError: the video is not in the index, or the span is empty.
            VideoError: its file cannot be read any more.
        """
        from indexer.query.clips import make_clip

        self.video_facts(uri)
        return make_clip(uri_to_path(uri), start_s, end_s)

    def span_of(self, segment_id: int) -> tuple[str, float, float]:
        """URI of the video of a moment, and the half-open span [start_s, end_s) of the moment.

        Raises:
            UsageError: there is no such moment.
        """
        row, rows = self._version.row_of(segment_id), self.snapshot.rows
        uri = self.snapshot.videos["uri"][int(rows.video_rows[row])].as_py()
        return uri, float(rows.start_s[row]), float(rows.end_s[row])

    def batch_of(self, segment_id: int) -> str:
        """The batch that a moment was written with: another one once its video has been indexed again.

        Raises:
            UsageError: there is no such moment.
        """
        return self.snapshot.rows.batch_of(self._version.row_of(segment_id))

    def sql(self, query: str) -> SqlResult:
        """Answers one SELECT of DuckDB's SQL over the tables `moments` and `videos`: see `indexer.query.sql`.

        Raises:
            UsageError: the SQL is wrong, is no single SELECT, or asks for files.
        """
        from indexer.query.sql import run_sql

        return run_sql(query, self.snapshot)

    def video_facts(self, uri: str) -> dict[str, Any]:
        """The ledger's row of an indexed video.

        Raises:
            UsageError: the video is not in the index.
        """
        return self._version.video_facts(uri)

    @property
    def text_encoder(self) -> Any:
        """For those who measure it, as `snapshot`."""
        return self._version.text_encoder

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to vectors of the index's space: float32 [N, dim], length 1."""
        return self._version.encode_texts(texts)
