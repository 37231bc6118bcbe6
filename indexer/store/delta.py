"""Opening Delta tables and reading their Parquet files.

Delta keeps the log; the files are read with pyarrow directly, because `DeltaTable.to_pyarrow_dataset` has been seen to
abort the interpreter at exit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from indexer.errors import IndexFormatError


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
