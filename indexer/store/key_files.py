"""Immutable files with the keys of many segment files, so that an index opens without reading these one by one.

    keys/k1-VERSION-SHA256.arrow     one row: each field of `SegmentKeys` as a list; mapped, never read as a whole

What it says of a segment file stays true for ever, for segment files never change: nothing has to be in step. Files
that it does not name are read themselves; what is gone from the table is passed over. One whose checksum is not that
of its name is ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from indexer.errors import IndexFormatError, StorageError
from indexer.storage import Location, write_whole
from indexer.store.file_set import checked_file
from indexer.store.segment_keys import SegmentKeys, joined, read_keys, sorted_by_file

# The number of the format: files of another one are passed over, and are written anew.
_PREFIX, _SUFFIX = "k1-", ".arrow"
# Reading the keys of so many segment files, or of so many moments, is hardly noticed.
_MOST_FILES, _MOST_MOMENTS = 16, 20_000
_KEPT = 2

_SCHEMA = pa.schema(
    {
        "files": pa.large_list(pa.string()),
        "file_starts": pa.large_list(pa.int64()),
        "segment_ids": pa.large_list(pa.int64()),
        "start_s": pa.large_list(pa.float64()),
        "end_s": pa.large_list(pa.float64()),
        "run_starts": pa.large_list(pa.int64()),
        "run_videos": pa.large_list(pa.int64()),
        "run_batches": pa.large_list(pa.int32()),
        "batches": pa.large_list(pa.string()),
    }
)


class KnownKeys:
    """The keys of an index's segment files, each read once: from a key file, or from the segment file itself.

    Args:
        folder: `keys/` of the index.
        segments_folder: `segments/`.
    """

    def __init__(self, folder: Location, segments_folder: Location) -> None:
        self._folder, self._segments_folder = folder, segments_folder
        self._known = joined([])

    def of(self, files: Sequence[str]) -> SegmentKeys:
        """The keys of some segment files, in the order of their names, wherever they were read from.

        Raises:
            IndexFormatError: a segment file is missing or damaged.
            StorageError: a bucket cannot be reached.
        """
        parts = [self._known.only(set(files))]
        missing = set(files).difference(parts[0].files)
        if len(missing) > _MOST_FILES or not len(self._known):
            parts.append(self._from_key_file(missing))
            missing -= set(parts[1].files)
        parts += read_keys(sorted(missing))
        self._known = sorted_by_file(parts)
        return self._known

    def build(self, files: Sequence[str], version: int) -> bool:
        """Writes a key file for the given segment files where reading those without one would be noticed.

        Args:
            files: of the table `segments/`.
            version: of the table; newer files are preferred.

        Returns:
            Whether one was written.

        Raises:
            As `of`; StorageError: it could not be written.
        """
        keys = self.of(files)
        covered = set(self._from_key_file(set(files)).files)
        counts = np.diff(keys.file_starts)[[file not in covered for file in keys.files]]
        if len(counts) <= _MOST_FILES and counts.sum() <= _MOST_MOMENTS:
            return False
        write_key_file(self._folder, keys, version)
        return True

    def forget(self) -> None:
        """Deletes all key files, and what is known: it may come from one of them."""
        for path in list(list_key_files(self._folder)):
            path.unlink(missing_ok=True)
        self._known = joined([])

    def _from_key_file(self, files: set[str]) -> SegmentKeys:
        """What the newest usable key file says of some segment files."""
        for path in list_key_files(self._folder):
            try:
                return open_key_file(path, self._segments_folder).only(files)
            except IndexFormatError:
                continue  # `verify` says so
        return joined([])


def write_key_file(folder: Location, keys: SegmentKeys, version: int) -> Location:
    """Writes a key file, and deletes all but the newest two.

    Raises:
        StorageError: it could not be written.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _SCHEMA) as writer:
        writer.write_table(_table(keys))
    data = sink.getvalue().to_pybytes()
    path = folder / f"{_PREFIX}{version:012d}-{hashlib.sha256(data).hexdigest()}{_SUFFIX}"
    try:
        folder.mkdir(exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise StorageError(f"the keys could not be written to {str(folder)!r}: {error.strerror or error}") from error
    for old in [other for other in list_key_files(folder) if other.name != path.name][_KEPT - 1 :]:
        old.unlink(missing_ok=True)
    return path


def _table(keys: SegmentKeys) -> pa.Table:
    values = {name: getattr(keys, name) for name in _SCHEMA.names}
    values["files"] = [file.rsplit("/", 1)[-1] for file in keys.files]
    columns = []
    for field in _SCHEMA:
        items = pa.array(values[field.name], field.type.value_type)
        columns.append(pa.LargeListArray.from_arrays([0, len(items)], items))
    return pa.table(columns, schema=_SCHEMA)


def list_key_files(folder: Location) -> Iterator[Location]:
    """Key files in the folder, newest first."""
    yield from sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"), key=_name, reverse=True)


def _name(path: Location) -> str:
    return path.name


def open_key_file(path: Location, segments_folder: Location, *, read_all: bool = False) -> SegmentKeys:
    """Maps a key file after checking its checksum; one in a bucket through a copy on this machine.

    Args:
        path: the file.
        segments_folder: where the segment files lie that it names.
        read_all: see `verified_copy`.

    Raises:
        IndexFormatError: it is missing, cut short or changed.
        StorageError: its bucket cannot be reached.
    """
    sha256 = path.name.removesuffix(_SUFFIX).rsplit("-", 1)[-1]
    copy = checked_file("key file", path, sha256, said_in="its name", read_all=read_all)
    with pa.memory_map(str(copy)) as source, pa.ipc.open_file(source) as reader:
        row = reader.get_batch(0)
    columns = {name: row[name].values for name in _SCHEMA.names}
    arrays = {name: column.to_numpy() for name, column in columns.items() if name not in ("files", "batches")}
    files = [str(segments_folder / name) for name in columns["files"].to_pylist()]
    return SegmentKeys(files=files, batches=columns["batches"], **arrays)
