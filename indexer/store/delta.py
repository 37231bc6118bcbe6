"""Opening Delta tables and reading their Parquet files, on this machine or in a bucket.

Delta keeps the log; the files are read with pyarrow directly, because `DeltaTable.to_pyarrow_dataset` has been seen to
abort the interpreter at exit.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from indexer.errors import IndexFormatError, StorageError
from indexer.storage import Location, ObjectPath, is_object_uri, location, open_binary
from indexer.storage.s3 import broke_off, delta_options, explain, is_unreachable, persistently
from indexer.store.flush import flush_commits

Read = TypeVar("Read")
# In a bucket each reader waits for its answers. On this machine each costs memory that allocators keep for its thread.
_BUCKET_READERS, _MANY_FILES = 16, 32
# Moments that are read at once: with all their columns some 30 MB.
_ROWS_AT_ONCE = 2_048


# Whoever opens a table reads the log since the last checkpoint, and has some 80 kB in memory of each entry.
_PROPERTIES = {"delta.checkpointInterval": "20"}


def delta_uri(folder: Location) -> str:
    """The folder as Delta must be given it: a plain path with a percent sign in it would be taken as encoded."""
    if isinstance(folder, ObjectPath):
        return f"s3://{folder.bucket}/{quote(folder.key)}"
    return folder.absolute().as_uri()


def delta_storage(folder: Location) -> dict[str, str] | None:
    """Delta's `storage_options` for a folder."""
    return delta_options() if isinstance(folder, ObjectPath) else None


def create_delta(folder: Location, schema: pa.Schema, name: str) -> None:
    """Creates the empty table; does nothing where there is one already.

    Raises:
        OSError, StorageError: it cannot be written.
    """
    try:
        persistently(
            lambda: DeltaTable.create(
                delta_uri(folder),
                schema=schema,
                mode="ignore",
                name=name,
                configuration=_PROPERTIES,
                storage_options=delta_storage(folder),
            )
        )
    except (DeltaError, OSError) as error:
        if isinstance(folder, ObjectPath):
            raise StorageError(f"the table {str(folder)!r} cannot be created: {detail_of(error, folder)}") from None
        raise
    flush_commits(folder, after=-1)


def open_delta(folder: Location, version: int | None = None) -> DeltaTable:
    """Opens the newest version, or the given one.

    Raises:
        IndexFormatError: there is no such table or version, or its log is damaged.
        StorageError: the bucket cannot be reached.
    """
    try:
        table = persistently(
            lambda: DeltaTable(delta_uri(folder), version=version, storage_options=delta_storage(folder))
        )
    except TableNotFoundError as error:
        raise IndexFormatError(
            f"the index has no readable table {str(folder)!r}: restore it from a backup or index again"
        ) from error
    except (DeltaError, OSError) as error:
        detail = detail_of(error, folder, limit=200)
        if isinstance(folder, ObjectPath) and is_unreachable(str(error)):
            raise StorageError(f"the log of table {str(folder)!r} cannot be read: {detail}") from None
        raise IndexFormatError(
            f"the log of table {str(folder)!r} cannot be read: {detail}; restore it from a backup, or index again "
            "into a new folder"
        ) from error
    _require_written(table, folder)
    return table


# Commits of some minutes: what a machine that lost power may not have had on its disk yet.
_NEWEST_ENTRIES = 50


def _require_written(table: DeltaTable, folder: Location) -> None:
    """Delta takes an empty entry of its log for a commit of nothing, and would silently show an index without it."""
    if isinstance(folder, ObjectPath):  # objects appear whole
        return
    version = table.version()
    for number in range(version, max(-1, version - _NEWEST_ENTRIES), -1):
        entry = folder / "_delta_log" / f"{number:020}.json"
        with contextlib.suppress(OSError):  # gone: older than the newest checkpoint
            if entry.stat().st_size == 0:
                last = "delete it and all of a higher number there" if number < version else "delete it"
                raise IndexFormatError(
                    f"the log entry {str(entry)!r} is empty, as a machine that lost power leaves it: {last}, then run "
                    "`videobert verify --repair`, and `videobert index` for what is missing"
                )


# Delta draws a tree of causes, in colours, and adds where in its own code it happened.
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|↳|\s+0: <unknown>.*", re.DOTALL)


def detail_of(error: Exception, folder: Location, limit: int = 300) -> str:
    """What went wrong, in one line; of a bucket, never what a server said word for word."""
    if isinstance(folder, ObjectPath) and is_unreachable(str(error)):
        return explain(str(error), str(folder))
    return " ".join(_DECORATION.sub("", str(error)).split())[:limit]


# Without retries inside Delta, a commit succeeds only on exactly the version that was read.
COMPARE_AND_SWAP = CommitProperties(max_commit_retries=0)
MAX_ATTEMPTS = 30
_MAX_LOST_ANSWERS = 8


def compare_and_swap(folder: Location, commit: Callable[[DeltaTable], None], failure: str) -> DeltaTable | None:
    """Opens the newest version and commits to it; where somebody else was first, waits a little and does both again.

    Args:
        folder: of the table.
        commit: makes its commit with `COMPARE_AND_SWAP`, from what the version it is given holds; or makes none.
        failure: what to say if the storage refuses, e.g. "the ledger could not be written".

    Returns:
        The table after the commit, or None where others won every one of `MAX_ATTEMPTS` races.

    Raises:
        StorageError: the storage refused.
    """
    for attempt in range(MAX_ATTEMPTS):
        table = open_delta(folder)
        version = table.version()
        try:
            commit(table)
            flush_commits(folder, after=version)
            return table
        except CommitFailedError:
            pass
        except (DeltaError, OSError) as error:
            if not _answer_was_lost(error, folder) or attempt >= _MAX_LOST_ANSWERS:
                raise StorageError(f"{failure}: {detail_of(error, folder)}") from error
        time.sleep(random.uniform(0, 0.05 * 2 ** min(attempt, 6)))
    return None


def _answer_was_lost(error: Exception, folder: Location) -> bool:
    """Whether the commit may have been made all the same; the newest version, read again, tells."""
    return isinstance(folder, ObjectPath) and broke_off(str(error))


def data_files(table: DeltaTable, folder: Location) -> list[str]:
    """Paths of a version's files, sorted. The tables have no partitions, so each lies in the folder itself.

    `file_uris()` gives percent-encoded paths, which do not open where the folder's name has a blank or an accent.
    """
    return sorted(str(folder / uri.rsplit("/", 1)[-1]) for uri in table.file_uris())


def read_parquet_files(files: Sequence[str], table_schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Reads whole files in the given order, as one table of the given schema (or of some of its columns).

    A nullable column that a file does not have, because it is older than the column, is null.

    Raises:
        IndexFormatError: a file is missing or damaged.
    """
    wanted = table_schema if columns is None else pa.schema([table_schema.field(name) for name in columns])
    tables = in_parallel(lambda file: _read_as(file, wanted), files)
    return pa.concat_tables(tables) if tables else wanted.empty_table()


def parquet_parts(files: Sequence[str], table_schema: pa.Schema, columns: Sequence[str]) -> Iterator[pa.Table]:
    """What `read_parquet_files` would read, some thousand rows at a time; of a bucket, a few files at a time.

    Raises:
        IndexFormatError: a file is missing or damaged.
    """
    wanted = pa.schema([table_schema.field(name) for name in columns])
    for start in range(0, len(files), _BUCKET_READERS):
        some = files[start : start + _BUCKET_READERS]
        if is_object_uri(some[0]):
            yield from in_parallel(lambda file: _read_as(file, wanted), some)
        else:
            yield from (part for file in some for part in _parts_as(file, wanted))


def _parts_as(file: str, wanted: pa.Schema) -> Iterator[pa.Table]:
    with opened_parquet(file) as parquet:
        names = _names_in(parquet, wanted)
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=names, use_threads=False):
            yield _as(pa.Table.from_batches([batch]), wanted)


def in_parallel(read: Callable[[str], Read], files: Sequence[str]) -> list[Read]:
    """What a function reads of each file, in their order; of many files, and in a bucket, several at once."""
    if len(files) < 2 or (len(files) < _MANY_FILES and not is_object_uri(files[0])):
        return [read(file) for file in files]
    num_readers = _BUCKET_READERS if is_object_uri(files[0]) else os.cpu_count() or 1
    with ThreadPoolExecutor(min(num_readers, len(files))) as readers:
        return list(readers.map(read, files))


def _read_as(file: str, wanted: pa.Schema) -> pa.Table:
    with opened_parquet(file) as parquet:
        return _as(parquet.read(columns=_names_in(parquet, wanted), use_threads=False), wanted)


def _names_in(parquet: pq.ParquetFile, wanted: pa.Schema) -> list[str]:
    there = set(parquet.schema_arrow.names)
    return [field.name for field in wanted if field.name in there or not field.nullable]


def _as(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    there = set(table.column_names)
    arrays = [table[field.name] if field.name in there else pa.nulls(table.num_rows, field.type) for field in wanted]
    return pa.table(arrays, names=wanted.names).cast(wanted)


def read_parquet_rows(file: str, rows: np.ndarray, columns: list[str]) -> Iterator[tuple[slice, pa.Table]]:
    """Reads some rows of one file, a part at a time, so that memory does not depend on the size of the file.

    Args:
        file: path or URI.
        rows: int64 [R], numbers of rows in rising order.
        columns: names.

    Yields:
        Which of the `rows`, and their columns in the order asked for.

    Raises:
        IndexFormatError: the file is missing or damaged.
    """
    with opened_parquet(file) as parquet:
        for groups, start, end in _runs(parquet.metadata):
            first, beyond = np.searchsorted(rows, [start, end]).tolist()
            if first == beyond:
                continue
            table = parquet.read_row_groups(groups, columns=columns, use_threads=False).select(columns)
            is_whole = beyond - first == table.num_rows
            yield slice(first, beyond), table if is_whole else table.take(pa.array(rows[first:beyond] - start))


def _runs(footer: pq.FileMetaData) -> Iterator[tuple[list[int], int, int]]:
    """Row groups that are read together, with the numbers of their first row and of the one after the last."""
    groups: list[int] = []
    start = end = 0
    for number in range(footer.num_row_groups):
        groups.append(number)
        end += footer.row_group(number).num_rows
        if end - start >= _ROWS_AT_ONCE or number == footer.num_row_groups - 1:
            yield groups, start, end
            groups, start = [], end


@contextlib.contextmanager
def opened_parquet(file: str, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file for as long as the block lasts.

    Args:
        file: path or URI.
        footer: its metadata, if it was read before.

    Raises:
        IndexFormatError: the file is missing or damaged.
    """
    where = location(file)
    try:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(open_binary(where)) if isinstance(where, ObjectPath) else file
            yield stack.enter_context(pq.ParquetFile(source, metadata=footer, page_checksum_verification=True))
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        detail = " ".join(str(error).split())[:200].rstrip(".")
        raise IndexFormatError(f"the file {file!r} cannot be read: {detail}; {remedy(where)}") from error


def remedy(file: Location) -> str:
    """What to do about a file of a table that is missing or damaged."""
    if file.parent.name == "segments":
        return "restore it from a backup, or take it out of the index with `videobert verify --repair`"
    return "restore it from a backup, or index again into a new folder"
