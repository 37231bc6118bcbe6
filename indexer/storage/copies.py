"""Local copies of immutable objects, found by their checksum, for libraries that read only files of this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from pathlib import Path

from indexer.storage.location import Location
from indexer.storage.objects import ObjectPath

_DEFAULT_CACHE_BYTES = 20 << 30
# Reading so much takes a noticeable part of a second.
_LARGE_BYTES = 64 << 20


class DamagedCopyError(Exception):
    """The file where it lies does not have the checksum that it should."""


def cache_folder() -> Path:
    """VIDEOBERT_CACHE_DIR, else `videobert` in the user's folder for caches."""
    own = os.environ.get("VIDEOBERT_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own).expanduser() if own else Path(base, "videobert").expanduser()


def verified_copy(where: Location, sha256: str, *, read_all: bool = False) -> Path:
    """A file on this machine with the content of `where`, whose checksum was compared.

    A local file is itself that copy. An object is downloaded once into the cache; a copy that has been damaged there
    is downloaded again.

    Args:
        where: the file.
        sha256: its checksum.
        read_all: compare it now even if the file is large, was compared before on this machine, and has the size,
            inode and times that it had then.

    Raises:
        DamagedCopyError: the content where it lies has another checksum.
        OSError, StorageError: it cannot be read, or the cache cannot be written.
    """
    if not isinstance(where, ObjectPath):
        if not _has_checksum(where, sha256, read_all):
            raise DamagedCopyError(str(where))
        return where
    copy = cache_folder() / sha256
    try:
        if _has_checksum(copy, sha256, read_all):
            os.utime(copy)
            _remember(copy, sha256)
            return copy
    except FileNotFoundError:
        pass
    return _download(where, copy, sha256)


def _download(where: ObjectPath, copy: Path, sha256: str) -> Path:
    copy.parent.mkdir(parents=True, exist_ok=True)
    temporary = copy.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        where.download(temporary)
        if _sha256(temporary) != sha256:
            raise DamagedCopyError(str(where))
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)
    _drop_oldest(copy)
    return copy


def _drop_oldest(newest: Path) -> None:
    """Keeps the cache below VIDEOBERT_CACHE_BYTES (20 GiB), but for the copy just made. Open copies stay readable."""
    limit = os.environ.get("VIDEOBERT_CACHE_BYTES", "")
    room = int(limit) if limit.isdigit() else _DEFAULT_CACHE_BYTES
    copies = []
    with contextlib.suppress(FileNotFoundError):  # another process is tidying up too
        for path in newest.parent.iterdir():
            if len(path.name) == 64 and path != newest:
                copies.append((path.stat().st_mtime, path.stat().st_size, path))
    room -= newest.stat().st_size
    for _, size, path in sorted(copies, reverse=True):
        room -= size
        if room < 0:
            path.unlink(missing_ok=True)


def _has_checksum(path: Path, sha256: str, read_all: bool) -> bool:
    """Whether a file has a checksum. A large one is read once, and again when its size, inode or times have changed."""
    if path.stat().st_size >= _LARGE_BYTES and not read_all and _read_text(_note(sha256)) == _state(path):
        return True
    if _sha256(path) != sha256:
        _note(sha256).unlink(missing_ok=True)
        return False
    _remember(path, sha256)
    return True


def _remember(path: Path, sha256: str) -> None:
    """Notes that a large file has been compared. Without the note, it is read again."""
    if path.stat().st_size >= _LARGE_BYTES:
        with contextlib.suppress(OSError):
            _note(sha256).parent.mkdir(parents=True, exist_ok=True)
            _note(sha256).write_text(_state(path))


def _note(sha256: str) -> Path:
    return cache_folder() / f"{sha256}.compared"


def _state(path: Path) -> str:
    """What changes when somebody writes to the file or puts another in its place."""
    found = path.stat()
    return f"{path.absolute()} {found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
