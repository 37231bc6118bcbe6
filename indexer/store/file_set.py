"""Files of one name, each written whole, and their checksums: what vector and keyword files have in common.

They lie beside each other as NAME.SUFFIX; one of them, NAME.rows.parquet, says which moment each row of the others is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.errors import IndexFormatError
from indexer.storage import DamagedCopyError, Location, new_file, verified_copy
from indexer.store.unused_memory import give_back_unused_memory

ROWS = ".rows.parquet"
# Written at once, in a few MB.
_ROWS_PER_GROUP = 1 << 16


class FileSet:
    """Writes the files of one name and remembers their checksums.

    Attributes:
        name: stem of the files.
        sha256: checksum of each file that was written, by suffix.
    """

    def __init__(self, folder: Location, name: str) -> None:
        self._folder, self.name = folder, name
        self.sha256: dict[str, str] = {}

    @contextmanager
    def file(self, suffix: str) -> Iterator[Path]:
        """A path to write to; what was written gets its name when the block ends well.

        Raises:
            OSError, StorageError: it could not be written.
        """
        with new_file(self._folder / f"{self.name}{suffix}") as path:
            yield path
            self.sha256[suffix] = _checksum(path)

    def write_rows(self, segment_ids: np.ndarray, batch_ids: pa.Array) -> None:
        """Writes int64 [N] and string [N], the moments that the rows are."""
        give_back_unused_memory()  # what the other files took
        rows = pa.table({"segment_id": segment_ids, "batch_id": batch_ids})
        with self.file(ROWS) as path:
            pq.write_table(rows, path, compression="zstd", use_dictionary=["batch_id"], row_group_size=_ROWS_PER_GROUP)


def checked_file(what: str, path: Location, sha256: str, *, said_in: str, read_all: bool = False) -> Path:
    """A copy on this machine, its checksum compared: see `verified_copy`.

    Args:
        what: the kind of file, for the error.
        said_in: what the checksum is from, likewise.

    Raises:
        IndexFormatError: the file is missing, cut short or changed.
        StorageError: its bucket cannot be reached.
    """
    try:
        return verified_copy(path, sha256, read_all=read_all)
    except OSError as error:
        raise IndexFormatError(f"the {what} {path.name!r} cannot be read: {error.strerror or error}") from error
    except DamagedCopyError as error:
        raise IndexFormatError(
            f"the {what} {path.name!r} is damaged: its checksum differs from the one in {said_in}"
        ) from error


def checked_files(
    what: str, folder: Location, name: str, sha256: dict[str, str], *, read_all: bool = False
) -> dict[str, Path]:
    """The files of one name, by suffix, checked against the checksums of their manifest as `checked_file` does."""
    return {
        suffix: checked_file(what, folder / f"{name}{suffix}", wanted, said_in="its manifest", read_all=read_all)
        for suffix, wanted in sha256.items()
    }


def read_rows(path: Path) -> tuple[np.ndarray, pa.DictionaryArray]:
    """What `FileSet.write_rows` wrote."""
    with pq.ParquetFile(path, read_dictionary=["batch_id"]) as parquet:
        rows = parquet.read(use_threads=False).unify_dictionaries()
    return rows["segment_id"].to_numpy(), rows["batch_id"].combine_chunks()


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
