"""The ledger: a Delta table with one row a video. What it says exists, exists; nothing else does.

Every change is one atomic commit, made only if nobody committed in between (compare and swap on the table version);
the loser of such a race reads the new version and tries again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from indexer import schema
from indexer.errors import IndexSettingsError, StorageError
from indexer.storage import Location
from indexer.store.delta import (
    COMPARE_AND_SWAP,
    MAX_ATTEMPTS,
    compare_and_swap,
    create_delta,
    data_files,
    detail_of,
    open_delta,
    parquet_parts,
    read_parquet_files,
)
from indexer.store.flush import flush_commits

# The ledger alone says "removed"; such a row is deleted by the commit that carries it.
_REMOVED = "removed"

# The name under which Delta keeps, from version to version, which settings the ledger's moments were made with.
_SETTINGS = "videobert-settings"
# Likewise, whether a null in the column of subtitle files means that there was none: see `indexer.store.older_rows`.
_SETTLED = "videobert-subtitles"

_WRITTEN = schema.without_meanings(schema.VIDEOS)

# A row that says "removed" says nothing else.
_NULLABLE = pa.schema([field.with_nullable(True) for field in schema.VIDEOS])


@dataclass(frozen=True, kw_only=True)
class LedgerSnapshot:
    """The ledger as of one version.

    Attributes:
        version: Delta version of `videos/`.
        generation: which settings its moments were made with: 0 for those of index.json, one more after each refresh.
        videos: one row a video, columns of `schema.VIDEOS`.
        is_settled: whether `Ledger.settle` was called.
    """

    version: int
    generation: int
    videos: pa.Table
    is_settled: bool = False

    @functools.cached_property
    def indexed(self) -> pa.Table:
        """Its rows with status "indexed"; all of them as they are, where none has failed."""
        are_indexed = pc.equal(self.videos["status"], schema.INDEXED)
        return self.videos if pc.all(are_indexed).as_py() else self.videos.filter(are_indexed)

    @property
    def failed(self) -> pa.Table:
        return self.videos.filter(pc.equal(self.videos["status"], schema.FAILED))


class Ledger:
    """Reads and commits `videos/`. One object may be used by one thread at a time.

    Attributes:
        generation: see `LedgerSnapshot`; as of when the object was made. It commits to no other.
    """

    def __init__(self, folder: Location) -> None:
        self._folder = folder
        self.generation = _generation(open_delta(folder))
        self._known_version = -1
        self._known_ids = np.empty(0, dtype=np.int64)

    @staticmethod
    def create(folder: Location) -> None:
        """Creates the empty table; does nothing where there is one already."""
        create_delta(folder, schema.VIDEOS, "videos")

    def version(self) -> int:
        return open_delta(self._folder).version()

    def snapshot(self, version: int | None = None, columns: list[str] | None = None) -> LedgerSnapshot:
        """Reads the newest version, or an older one that has not been vacuumed; all columns, or some.

        Raises:
            IndexFormatError: the table is missing or damaged.
        """
        table = open_delta(self._folder, version)
        videos = read_parquet_files(data_files(table, self._folder), schema.VIDEOS, columns)
        is_settled = table.transaction_version(_SETTLED) is not None
        return LedgerSnapshot(
            version=table.version(), generation=_generation(table), videos=videos, is_settled=is_settled
        )

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The newest version, some thousand videos at a time; all columns, or some.

        Raises:
            IndexFormatError: the table is missing or damaged.
        """
        files = data_files(open_delta(self._folder), self._folder)
        return parquet_parts(files, schema.VIDEOS, columns or schema.VIDEOS.names)

    def is_settled(self) -> bool:
        """Whether `settle` was called."""
        return open_delta(self._folder).transaction_version(_SETTLED) is not None

    def commit(self, rows: pa.Table, remove: Iterable[int] = ()) -> int:
        """Inserts or replaces the given videos, and removes others, in one atomic commit.

        Args:
            rows: columns of `schema.VIDEOS`, each `video_id` at most once.
            remove: ids of videos that are not in `rows`; unknown ones are ignored.

        Returns:
            The new version of the ledger.

        Raises:
            StorageError: the storage refused, or other writers won every race for too long.
        """
        return self._commit(pa.concat_tables([rows.cast(_NULLABLE), _removals(remove)]))

    def remove(self, video_ids: Iterable[int]) -> int:
        """Removes videos in one atomic commit; unknown ids are ignored. Returns the new version."""
        return self._commit(_removals(video_ids))

    def settle(self) -> None:
        """Notes that rows which say nothing of a subtitle file are of videos without a transcript.

        Raises:
            StorageError: the storage refused.
        """
        settled = CommitProperties(max_commit_retries=0, app_transactions=[Transaction(_SETTLED, 1)])

        def commit(table: DeltaTable) -> None:
            _add_missing_columns(table)
            write_deltalake(table, _WRITTEN.empty_table(), mode="append", commit_properties=settled)

        compare_and_swap(self._folder, commit, "the ledger could not be written")

    def switch(self, rows: pa.Table, *, version: int, generation: int) -> bool:
        """Puts other rows in the place of all, made with other settings, in one atomic commit.

        Args:
            rows: columns of `schema.VIDEOS`.
            version: the commit is made on exactly this one.
            generation: of the other settings.

        Returns:
            Whether it was made; if not, somebody else has committed since `version`.

        Raises:
            StorageError: the storage refused.
        """
        settings = CommitProperties(max_commit_retries=0, app_transactions=[Transaction(_SETTINGS, generation)])
        try:
            table = open_delta(self._folder)
            if table.version() != version:
                return False
            _add_missing_columns(table)
            write_deltalake(table, rows.cast(_WRITTEN), mode="overwrite", commit_properties=settings)
        except CommitFailedError:
            return False
        except (DeltaError, OSError) as error:
            if _generation(open_delta(self._folder)) != generation:  # else only the answer was lost
                raise StorageError(f"the ledger could not be written: {detail_of(error, self._folder)}") from error
        flush_commits(self._folder, after=version)
        self.generation = generation
        return True

    def _commit(self, rows: pa.Table) -> int:
        failure = "the ledger could not be written"
        table = compare_and_swap(self._folder, lambda table: self._commit_once(table, rows), failure)
        if table is None:
            raise StorageError(
                f"the ledger could not be committed in {MAX_ATTEMPTS} attempts: "
                "other runs keep writing to this index; run again later"
            )
        return table.version()

    def _commit_once(self, table: DeltaTable, rows: pa.Table) -> None:
        if _generation(table) != self.generation:
            raise IndexSettingsError(
                "the index has been refreshed with another model meanwhile: what this run made with the old one cannot "
                "be added; run again with the new model"
            )
        _add_missing_columns(table)
        ids = rows["video_id"].to_numpy()
        known = self._ids(table)
        if np.isin(ids, known).any():
            merge = table.merge(
                rows,
                predicate="known.video_id = new.video_id",
                source_alias="new",
                target_alias="known",
                commit_properties=COMPARE_AND_SWAP,
            )
            merge = merge.when_matched_delete(predicate=f"new.status = '{_REMOVED}'").when_matched_update_all()
            merge.when_not_matched_insert_all(predicate=f"new.status <> '{_REMOVED}'").execute()
        else:
            added = rows.filter(pc.not_equal(rows["status"], _REMOVED)).cast(_WRITTEN)
            if added.num_rows == 0:
                return
            write_deltalake(table, added, mode="append", commit_properties=COMPARE_AND_SWAP)
            self._known_ids = np.concatenate([known, added["video_id"].to_numpy()])
            self._known_version = table.version()

    def _ids(self, table: DeltaTable) -> np.ndarray:
        """Ids in this version; read again only when somebody else has committed."""
        if table.version() != self._known_version:
            ids = read_parquet_files(data_files(table, self._folder), schema.VIDEOS, columns=["video_id"])
            self._known_ids = ids["video_id"].to_numpy()
            self._known_version = table.version()
        return self._known_ids


def _add_missing_columns(table: DeltaTable) -> None:
    """Gives a ledger that an older version of this project made the columns that have been added since."""
    known = {field.name for field in table.schema().fields}
    missing = [field for field in Schema.from_arrow(_WRITTEN).fields if field.name not in known]
    if missing:
        table.alter.add_columns(missing, commit_properties=COMPARE_AND_SWAP)


def _generation(table: DeltaTable) -> int:
    return table.transaction_version(_SETTINGS) or 0


def _removals(video_ids: Iterable[int]) -> pa.Table:
    ids = list(video_ids)
    columns = {field.name: pa.nulls(len(ids), field.type) for field in schema.VIDEOS}
    columns["video_id"] = pa.array(ids, pa.int64())
    columns["status"] = pa.array([_REMOVED] * len(ids), pa.string())
    return pa.table(columns, schema=_NULLABLE)
