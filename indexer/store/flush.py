"""Commits put on the disk, so that a machine that loses power keeps them: Delta itself leaves that to the kernel."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

from indexer.errors import StorageError
from indexer.storage import Location, ObjectPath

# What file systems answer that cannot flush a file or a folder.
_CANNOT = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF}


def flush_commits(folder: Location, after: int) -> None:
    """Waits until all commits that are newer than a version are on the disk: their files, log entries and folders.

    In a bucket they are as soon as they are there.

    Raises:
        StorageError: the disk fails.
    """
    if isinstance(folder, ObjectPath):
        return
    log = folder / "_delta_log"
    try:
        for number in itertools.count(after + 1):
            entry = log / f"{number:020}.json"
            if not entry.exists():
                break
            for path in [*_added(folder, entry), entry, log / f"{number:020}.checkpoint.parquet"]:
                _flush(path)
        for path in (log / "_last_checkpoint", log, folder, folder.parent):
            _flush(path)
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"the table {str(folder)!r} cannot be flushed to the disk: {reason}") from error


def _added(folder: Path, entry: Path) -> Iterator[Path]:
    """The data files that a log entry adds; their names hold nothing that Delta would encode."""
    for line in entry.read_text(encoding="utf-8").splitlines():
        action = json.loads(line)
        if "add" in action:
            yield folder / action["add"]["path"]


def _flush(path: Path) -> None:
    try:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except FileNotFoundError:
        pass  # there is no checkpoint, or the file was merged into another one meanwhile
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
