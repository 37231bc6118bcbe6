"""Deletes files that nothing refers to any more, and keeps two compactions or refreshes of one index apart."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltalake.exceptions import DeltaError

from indexer.errors import IndexDirectoryError, StorageError
from indexer.storage import Location, create_whole
from indexer.store.delta import data_files, detail_of, open_delta
from indexer.store.index import IndexStore
from indexer.store.keyword_files import list_keyword_manifests
from indexer.store.vectors import list_manifests

# Half-written files of processes that died; what is finished has another name.
_LEFTOVERS = (".*.tmp", ".write-test-*", "segments/.part-*.tmp", "vectors/.v*.tmp", "keywords/.k*.tmp", "keys/.k*.tmp")
_LOCK = ".compact.lock"
# Nothing that holds it takes so long. What does is kept from harm by compare and swap.
_LOCK_LIMIT_S = 6 * 3600


def delete_unneeded(store: IndexStore, older_than_hours: int) -> dict[str, int]:
    """Deletes files that no version of the tables has needed for some hours, and leftovers of crashes of that age.

    Returns:
        Path and size in bytes of each file deleted.

    Raises:
        StorageError: a file could not be deleted.
    """
    cutoff_s = time.time() - older_than_hours * 3600
    deleted: dict[str, int] = {}
    try:
        for path in [*_unneeded_data_files(store, older_than_hours), *_leftovers(store, cutoff_s)]:
            if path.exists():
                deleted[str(path)] = path.stat().st_size
                path.unlink(missing_ok=True)
    except (DeltaError, OSError) as error:
        raise StorageError(f"old files could not be deleted: {detail_of(error, store.path)}") from error
    return deleted


def _unneeded_data_files(store: IndexStore, older_than_hours: int) -> Iterator[Location]:
    """Files taken out of a table, or written but never part of it, so many hours ago."""
    for folder in (store.path / "videos", store.segments.folder):
        table = open_delta(folder)
        needed = set(data_files(table, folder))
        # A dry run names the files; a real one would add two commits to the log.
        names = table.vacuum(older_than_hours, dry_run=True, enforce_retention_duration=False, full=True)
        yield from (folder / name for name in names if str(folder / name) not in needed)


def _leftovers(store: IndexStore, cutoff_s: float) -> Iterator[Location]:
    named = {manifest.name for manifest in list_manifests(store.vectors_folder)}
    named |= {manifest.name for manifest in list_keyword_manifests(store.keywords_folder)}
    files = [*store.vectors_folder.glob("v*"), *store.keywords_folder.glob("k*")]
    without_manifest = [path for path in files if path.name.split(".")[0] not in named]
    half_written = [path for pattern in _LEFTOVERS for path in store.path.glob(pattern)]
    yield from (path for path in without_manifest + half_written if path.stat().st_mtime <= cutoff_s)


@contextmanager
def maintenance_lock(index_path: Location) -> Iterator[None]:
    """Holds the lock file of compaction and refresh within the block. One left by a process that died is taken over.

    Raises:
        IndexDirectoryError: another process holds it.
        StorageError: it cannot be written.
    """
    lock = index_path / _LOCK
    pid = os.getpid()
    owner = {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "id": uuid.uuid4().hex}
    try:
        if _is_stale(lock):
            lock.unlink(missing_ok=True)
        create_whole(lock, json.dumps(owner).encode())
    except FileExistsError:
        raise IndexDirectoryError(
            f"the index {str(index_path)!r} is being compacted or refreshed by another process: "
            f"wait for it, or delete {str(lock)!r} if there is none"
        ) from None
    except OSError as error:
        raise StorageError(f"the index at {str(index_path)!r} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _is_stale(lock: Location) -> bool:
    """Whether its process has certainly ended, or the lock is older than any such work."""
    try:
        if time.time() - lock.stat().st_mtime > _LOCK_LIMIT_S:
            return True
        owner = json.loads(lock.read_bytes())
        if owner["host"] == socket.gethostname():
            if owner.get("started") not in (None, _started(owner["pid"])):
                return True
            os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (FileNotFoundError, PermissionError, ValueError, KeyError, TypeError):
        pass  # not there, alive under another user, or not written to its end yet
    return False


def _started(pid: int) -> str | None:
    """When a process began, as Linux counts it; None elsewhere, or if there is none.

    Numbers of processes come again: in a container, where the first always has the same, after every crash.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
