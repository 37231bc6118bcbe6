"""One consistent view of an index: the visible moments of one ledger version, searched by vectors or words."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from indexer import schema
from indexer.config import IndexConfig
from indexer.errors import IndexFormatError
from indexer.storage import Location
from indexer.store.delta import read_parquet_rows
from indexer.store.keyword_files import list_keyword_manifests, open_keyword_file
from indexer.store.keywords import KeywordCoverage, Keywords
from indexer.store.ledger import LedgerSnapshot
from indexer.store.moment_texts import MomentText, moment_texts
from indexer.store.moment_vectors import Coverage, MomentVectors
from indexer.store.row_reader import RowReader
from indexer.store.segment_rows import SegmentRows
from indexer.store.segments_table import embeddings_in
from indexer.store.vectors import VectorFile, list_manifests, open_vector_file

# Moments whose words are in memory at once, of those that the keyword file does not cover.
_TEXTS_AT_ONCE = 2_048


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
        numbers, file_rows = self.rows.located(np.asarray(rows, dtype=np.int64))
        parts, order = [], []
        for number in np.unique(numbers):
            positions = np.flatnonzero(numbers == number)
            parts.append(self._reader.read(self.rows.files[number], file_rows[positions], columns, keep=keep))
            order.append(positions)
        if not parts:
            return pa.schema([schema.SEGMENTS.field(name) for name in columns]).empty_table()
        back = np.argsort(np.concatenate(order), kind="stable")
        return pa.concat_tables(parts).take(pa.array(back))

    def read_file_by_file(self, columns: list[str]) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """All visible moments, file after file and some thousand at once: (rows of the snapshot, their columns), in
        rising order."""
        for number, rows, file_rows in self.rows.by_file():
            for part, table in read_parquet_rows(self.rows.files[number], file_rows, columns):
                yield rows[part], table

    def embeddings(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Fused vectors float32 [N, dim] of all visible moments, or of some of them in the given order."""
        wanted = np.arange(len(self.rows)) if rows is None else np.asarray(rows, dtype=np.int64)
        if rows is not None and len(rows) < len(self.rows) // 4:
            return embeddings_in(self.read(wanted, ["embedding"]), self.config.embedding_dim)
        result = np.empty((len(self.rows), self.config.embedding_dim), dtype=np.float32)
        for file_rows, table in self.read_file_by_file(["embedding"]):
            result[file_rows] = embeddings_in(table, self.config.embedding_dim)
        return result[wanted]

    def embeddings_by_file(self) -> Iterator[np.ndarray]:
        """Fused vectors float32 [n, dim] of all visible moments in parts, in their order."""
        for _, table in self.read_file_by_file(["embedding"]):
            yield embeddings_in(table, self.config.embedding_dim)

    def texts(self, rows: np.ndarray) -> list[MomentText]:
        """The words of some visible moments, in the order of `rows`."""
        return self._texts_of(rows, self.read(rows, ["transcript", "labels"]))

    def all_texts(self) -> Iterator[MomentText]:
        """The words of all visible moments, in their order."""
        for rows, table in self.read_file_by_file(["transcript", "labels"]):
            yield from self._texts_of(rows, table)

    def _texts_in_parts(self, rows: np.ndarray) -> Iterator[MomentText]:
        for start in range(0, len(rows), _TEXTS_AT_ONCE):
            yield from self.texts(rows[start : start + _TEXTS_AT_ONCE])

    def _texts_of(self, rows: np.ndarray, table: pa.Table) -> list[MomentText]:
        # Those of moments in one file mostly lie together; `take` would copy all it is given.
        numbers = self.rows.video_rows[rows]
        first, last = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, -1)
        near = self.videos.select(["uri", "title"]).slice(first, last - first + 1)
        videos = near.take(pa.array(numbers - first))
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
        coverage = self.keyword_coverage
        return Keywords(coverage, self._texts_in_parts(coverage.new_rows))

    @functools.cached_property
    def keyword_coverage(self) -> KeywordCoverage:
        """How much of this version the keyword file covers; no text is read."""
        file, damaged = None, list[str]()
        for manifest in list_keyword_manifests(self._keywords_folder):
            try:
                file = open_keyword_file(self._keywords_folder, manifest)
                break
            except IndexFormatError as error:
                damaged.append(str(error))
        file_to_row = np.empty(0, np.int64) if file is None else self.rows.find(file.segment_ids, file.batch_ids)
        is_new = np.ones(len(self.rows), dtype=bool)
        is_new[file_to_row[file_to_row >= 0]] = False
        return KeywordCoverage(file, file_to_row, np.flatnonzero(is_new), tuple(damaged))

    @property
    def coverage(self) -> Coverage:
        """How much of this version the vector file covers, and how well it does."""
        return self._vectors.coverage

    @property
    def vector_file(self) -> VectorFile | None:
        """The one that searches use."""
        return self._vectors.file

    @functools.cached_property
    def _vectors(self) -> MomentVectors:
        file, damaged = self._vector_file()
        file_to_row = np.empty(0, np.int64) if file is None else self.rows.find(file.segment_ids, file.batch_ids)
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
