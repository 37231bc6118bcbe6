"""Opening Delta tables and reading their Parquet files.

Delta keeps the log; the files are read with pyarrow directly, because `DeltaTable.to_pyarrow_dataset` has been seen to
abort the interpreter at exit.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from indexer.errors import IndexFormatError, StorageError


def delta_uri(folder: Path) -> str:
    """The folder as Delta must be given it: a plain path with a percent sign in it would be taken as encoded."""
    return folder.absolute().as_uri()


def open_delta(folder: Path, version: int | None = None) -> DeltaTable:
    """Opens the newest version, or the given one.

    Raises:
        IndexFormatError: there is no such table or version, or its log is damaged.
    """
    try:
        return DeltaTable(delta_uri(folder), version=version)
    except TableNotFoundError as error:
        raise IndexFormatError(
            f"the index has no readable table {str(folder)!r}: restore it from a backup or index again"
        ) from error
    except (DeltaError, OSError) as error:
        detail = " ".join(str(error).split())[:200]
        raise IndexFormatError(f"the log of table {str(folder)!r} cannot be read: {detail}") from error


# Without retries inside Delta, a commit succeeds only on exactly the version that was read.
COMPARE_AND_SWAP = CommitProperties(max_commit_retries=0)
MAX_ATTEMPTS = 30


def compare_and_swap(folder: Path, commit: Callable[[DeltaTable], None], failure: str) -> DeltaTable | None:
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
        try:
            commit(table)
            return table
        except CommitFailedError:
            time.sleep(random.uniform(0, 0.05 * 2 ** min(attempt, 6)))
        except (DeltaError, OSError) as error:
            raise StorageError(f"{failure}: {' '.join(str(error).split())[:300]}") from error
    return None


def data_files(table: DeltaTable, folder: Path) -> list[str]:
    """Paths of a version's files, sorted. The tables have no partitions, so each lies in the folder itself.

    `file_uris()` gives percent-encoded paths, which do not open where the folder's name has a blank or an accent.
    """
    return sorted(str(folder / uri.rsplit("/", 1)[-1]) for uri in table.file_uris())


def read_parquet_files(files: Sequence[str], table_schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Reads whole files in the given order, as one table of the given schema (or of some of its columns).

    Raises:
        IndexFormatError: a file is missing or damaged.
    """
    wanted = table_schema if columns is None else pa.schema([table_schema.field(name) for name in columns])
    tables = [read_parquet_file(file, wanted.names).cast(wanted) for file in files]
    return pa.concat_tables(tables) if tables else wanted.empty_table()


def read_parquet_file(file: str, columns: list[str]) -> pa.Table:
    """Reads some columns of one file, in the order asked for.

    Raises:
        IndexFormatError: the file is missing or damaged.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            return parquet.read(columns=columns, use_threads=False).select(columns)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise IndexFormatError(f"the file {file!r} cannot be read: {' '.join(str(error).split())[:200]}") from error
