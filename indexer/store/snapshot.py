"""One consistent view of an index: the visible moments of one ledger version, searched by vectors or words."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer import schema
from indexer.config import IndexConfig
from indexer.errors import IndexFormatError
from indexer.storage import Location
from indexer.store.delta import read_parquet_file
from indexer.store.keywords import (
    KeywordFile,
    Keywords,
    MomentText,
    list_keyword_manifests,
    moment_texts,
    open_keyword_file,
)
from indexer.store.ledger import LedgerSnapshot
from indexer.store.moment_vectors import Coverage, MomentVectors
from indexer.store.row_reader import RowReader
from indexer.store.vectors import VectorFile, list_manifests, open_vector_file

_KEY_COLUMNS = ["segment_id", "video_id", "batch_id", "start_s", "end_s"]


class SegmentRows:
    """Which moments are visible, and where each one is stored.

    Attributes:
        segment_ids, start_s, end_s: numpy arrays [N], one entry a visible moment.
        video_rows: int64 [N], the row of `videos` that the moment belongs to.
        file_numbers, file_rows: int64 [N], the file (index into `files`) and the row in it.
        batch_ids: string [N].
    """

    def __init__(self, files: Sequence[str], keys: Sequence[pa.Table], videos: pa.Table) -> None:
        self.files = list(files)
        table = pa.concat_tables(keys) if keys else schema.SEGMENTS.empty_table().select(_KEY_COLUMNS)
        file_numbers = np.repeat(np.arange(len(keys)), [key.num_rows for key in keys])
        file_rows = np.concatenate([np.arange(key.num_rows) for key in keys]) if keys else np.empty(0, np.int64)
        video_rows = _find(videos["video_id"].to_numpy(), table["video_id"].to_numpy())
        ledger_batches = videos["batch_id"].combine_chunks().dictionary_encode()
        batch_of_row = pc.index_in(table["batch_id"], value_set=ledger_batches.dictionary).fill_null(-1).to_numpy()
        batch_of_video = ledger_batches.indices.to_numpy() if len(videos) else np.empty(0, np.int32)
        visible = video_rows >= 0
        visible[visible] = batch_of_row[visible] == batch_of_video[video_rows[visible]]
        chosen = np.flatnonzero(visible)
        self.segment_ids = table["segment_id"].to_numpy()[chosen]
        self.start_s = table["start_s"].to_numpy()[chosen]
        self.end_s = table["end_s"].to_numpy()[chosen]
        self.batch_ids = table["batch_id"].combine_chunks().take(pa.array(chosen))
        self.video_rows = video_rows[chosen]
        self.file_numbers = file_numbers[chosen]
        self.file_rows = file_rows[chosen]

    def __len__(self) -> int:
        return len(self.segment_ids)

    @functools.cached_property
    def in_order(self) -> np.ndarray:
        """Rows int64 [N] by video, and within each by time."""
        return np.lexsort((self.start_s, self.video_rows))

    @functools.cached_property
    def places(self) -> np.ndarray:
        """Where each row stands in `in_order`, int64 [N]."""
        places = np.empty(len(self), dtype=np.int64)
        places[self.in_order] = np.arange(len(self))
        return places


class Snapshot:
    """The visible moments and videos of one ledger version. Immutable; open a new one to see later commits."""

    def __init__(
        self,
        config: IndexConfig,
        ledger: LedgerSnapshot,
        rows: SegmentRows,
        vectors_folder: Location,
        keywords_folder: Location,
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.videos = ledger.indexed
        self.rows = rows
        self._vectors_folder = vectors_folder
        self._keywords_folder = keywords_folder
        self._reader = RowReader()

    @property
    def num_segments(self) -> int:
        return len(self.rows)

    def row_of(self, segment_id: int) -> int | None:
        """Row of a moment by its id, or None if it is not visible."""
        found = np.flatnonzero(self.rows.segment_ids == segment_id)
        return int(found[0]) if len(found) else None

    def read(self, rows: Sequence[int] | np.ndarray, columns: list[str], *, keep: bool = False) -> pa.Table:
        """Columns of `schema.SEGMENTS` for some visible moments, in the order of `rows`.

        Reads only the row groups that hold them; `keep` as in `RowReader.read`.
        """
        rows = np.asarray(rows, dtype=np.int64)
        parts, order = [], []
        for number in np.unique(self.rows.file_numbers[rows]):
            positions = np.flatnonzero(self.rows.file_numbers[rows] == number)
            file, file_rows = self.rows.files[number], self.rows.file_rows[rows[positions]]
            parts.append(self._reader.read(file, file_rows, columns, keep=keep))
            order.append(positions)
        if not parts:
            return pa.schema([schema.SEGMENTS.field(name) for name in columns]).empty_table()
        back = np.argsort(np.concatenate(order), kind="stable")
        return pa.concat_tables(parts).take(pa.array(back))

    def read_file_by_file(self, columns: list[str]) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """All visible moments, one stored file at a time: (rows of the snapshot, their columns)."""
        by_file = self.file_order
        starts = np.flatnonzero(np.diff(self.rows.file_numbers[by_file], prepend=-1))
        for rows in np.split(by_file, starts)[1:]:
            table = read_parquet_file(self.rows.files[self.rows.file_numbers[rows[0]]], columns)
            yield rows, table.take(pa.array(self.rows.file_rows[rows]))

    def embeddings(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Fused vectors float32 [N, dim] of all visible moments, or of some of them in the given order."""
        wanted = np.arange(len(self.rows)) if rows is None else np.asarray(rows, dtype=np.int64)
        if rows is not None and len(rows) < len(self.rows) // 4:
            return _vectors(self.read(wanted, ["embedding"]), self.config.embedding_dim)
        result = np.empty((len(self.rows), self.config.embedding_dim), dtype=np.float32)
        for file_rows, table in self.read_file_by_file(["embedding"]):
            result[file_rows] = _vectors(table, self.config.embedding_dim)
        return result[wanted]

    def embeddings_by_file(self) -> Iterator[np.ndarray]:
        """Fused vectors float32 [n, dim] of all visible moments in parts, in the order of `file_order`."""
        for _, table in self.read_file_by_file(["embedding"]):
            yield _vectors(table, self.config.embedding_dim)

    @functools.cached_property
    def file_order(self) -> np.ndarray:
        """All rows int64 [N] in the order of `read_file_by_file`."""
        return np.argsort(self.rows.file_numbers, kind="stable")

    def texts(self, rows: np.ndarray) -> list[MomentText]:
        """The words of some visible moments, in the order of `rows`."""
        return self._texts_of(rows, self.read(rows, ["transcript", "labels"]))

    def all_texts(self) -> Iterator[tuple[np.ndarray, list[MomentText]]]:
        """The words of all visible moments, one stored file at a time: (rows, texts)."""
        for rows, table in self.read_file_by_file(["transcript", "labels"]):
            yield rows, self._texts_of(rows, table)

    def _texts_of(self, rows: np.ndarray, table: pa.Table) -> list[MomentText]:
        videos = self.videos.select(["uri", "title"]).take(pa.array(self.rows.video_rows[rows]))
        return list(moment_texts(table, videos["uri"].to_pylist(), videos["title"].to_pylist()))

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest visible moments: the vector file, plus an exact scan of what it does not cover.

        Args:
            queries: float32 [Q, dim], length 1.
            k: moments wanted a query.
            allowed: bool [N]; only these moments are looked at, None allows all.

        Returns:
            Scores float32 [Q, K] and rows int64 [Q, K], best first, with K = min(k, moments allowed). Scores are exact;
            where the file is approximate, a moment may be missing, but never without another in its place.
        """
        return self._vectors.search(queries, k, allowed)

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """Fused vectors float32 [R, dim] of some moments: from the vector file in memory, else from the tables."""
        return self._vectors.vectors_of(rows)

    @functools.cached_property
    def keywords(self) -> Keywords:
        """Full text over the visible moments: the newest usable keyword file, completed by what it does not cover."""
        file, damaged = self._keyword_file()
        file_to_row = np.empty(0, np.int64) if file is None else self._visible_rows(file)
        covered = np.zeros(len(self.rows), dtype=bool)
        covered[file_to_row[file_to_row >= 0]] = True
        rows = np.flatnonzero(~covered)
        return Keywords(file, file_to_row, rows, self.texts(rows), damaged)

    def _keyword_file(self) -> tuple[KeywordFile | None, list[str]]:
        damaged: list[str] = []
        for manifest in list_keyword_manifests(self._keywords_folder):
            try:
                return open_keyword_file(self._keywords_folder, manifest), damaged
            except IndexFormatError as error:
                damaged.append(str(error))
        return None, damaged

    @property
    def coverage(self) -> Coverage:
        """How much of this version the vector file covers, and how well it does."""
        return self._vectors.coverage

    @functools.cached_property
    def _vectors(self) -> MomentVectors:
        file, damaged = self._vector_file()
        file_to_row = np.empty(0, np.int64) if file is None else self._visible_rows(file)
        return MomentVectors(file, file_to_row, len(self.rows), self.embeddings, damaged)

    def _vector_file(self) -> tuple[VectorFile | None, list[str]]:
        """The newest usable vector file, and what was damaged."""
        damaged: list[str] = []
        for manifest in list_manifests(self._vectors_folder):
            if manifest.dim != self.config.embedding_dim:
                continue
            try:
                return open_vector_file(self._vectors_folder, manifest), damaged
            except IndexFormatError as error:
                damaged.append(str(error))
        return None, damaged

    def _visible_rows(self, file: VectorFile | KeywordFile) -> np.ndarray:
        rows = _find(self.rows.segment_ids, file.segment_ids)
        same_batch = np.zeros(len(rows), dtype=bool)
        found = rows >= 0
        ours = self.rows.batch_ids.take(pa.array(rows[found]))
        theirs = file.batch_ids.filter(pa.array(found))
        same_batch[found] = pc.equal(ours, theirs.cast(ours.type)).to_numpy(zero_copy_only=False)
        return np.where(same_batch, rows, -1)


def read_keys(file: str) -> pa.Table:
    """The columns of a segment file that decide visibility."""
    return read_parquet_file(file, _KEY_COLUMNS).cast(pa.schema([schema.SEGMENTS.field(name) for name in _KEY_COLUMNS]))


def _find(haystack: np.ndarray, needles: np.ndarray) -> np.ndarray:
    """Position of each needle in the haystack of unique numbers, -1 where it is not there."""
    if len(haystack) == 0:
        return np.full(len(needles), -1, dtype=np.int64)
    order = np.argsort(haystack)
    positions = np.searchsorted(haystack, needles, sorter=order)
    candidates = order[np.minimum(positions, len(haystack) - 1)]
    return np.where(haystack[candidates] == needles, candidates, -1)


def _vectors(table: pa.Table, dim: int) -> np.ndarray:
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, dim)
