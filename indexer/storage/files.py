"""Reading and writing files wherever they lie."""

from __future__ import annotations

import io
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from indexer.storage.location import Location, location
from indexer.storage.objects import ObjectPath
from indexer.storage.ranges import RangeReader


def open_binary(where: str | Location) -> BinaryIO:
    """Opens for reading and seeking; an object is read by ranges, as far as it is asked for."""
    where = location(where)
    if isinstance(where, ObjectPath):
        return io.BufferedReader(RangeReader(where))
    return open(where, "rb")


def total_bytes(folder: Location) -> int:
    """Size of all files below, bytes."""
    if isinstance(folder, ObjectPath):
        return sum(path.stat().st_size for path in folder.below())
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextmanager
def new_file(where: Location) -> Iterator[Path]:
    """A path on this machine to write to. When the block ends well, `where` holds what was written; else nothing.

    Raises:
        OSError, StorageError: it could not be written.
    """
    if isinstance(where, ObjectPath):
        with tempfile.TemporaryDirectory(prefix="videobert-") as folder:
            yield Path(folder, where.name)
            where.upload(Path(folder, where.name))
        return
    temporary = where.with_name(f".{where.name}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.rename(where)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(where: Location, data: bytes) -> None:
    """Writes a file, whole or not at all; one of the same name is replaced.

    Raises:
        OSError, StorageError: it could not be written.
    """
    if isinstance(where, ObjectPath):
        where.write_bytes(data)
    else:
        with new_file(where) as path:
            path.write_bytes(data)


def create_whole(where: Location, data: bytes) -> None:
    """Writes a file that does not exist yet, whole or not at all. Of two that try at once, one succeeds.

    Raises:
        FileExistsError: there is one, and it is left as it is.
        OSError, StorageError: it could not be written.
    """
    if isinstance(where, ObjectPath):
        _create_object(where, data)
        return
    temporary = where.with_name(f".{where.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, where)
    finally:
        temporary.unlink(missing_ok=True)


def _create_object(where: ObjectPath, data: bytes) -> None:
    try:
        where.write_bytes(data, unless_exists=True)
    except FileExistsError:
        # A put whose answer was lost is sent again, and then finds the object that it has made itself.
        if where.read_bytes() != data:
            raise
