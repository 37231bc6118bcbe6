"""One video file as it is now: there or not, how large, how old, which content."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass

from indexer.errors import StorageError
from indexer.ingest.paths import path_to_uri, read_error
from indexer.storage import ObjectPath, location, open_binary


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFile:
    """A file that was found.

    Attributes:
        uri: absolute path as text; a file:// URI with percent escapes if the name is not valid UTF-8; or an s3:// URI.
            Always UTF-8.
        path: what to open: a path, or the s3:// URI.
        fingerprint: as `schema.VIDEOS` has it, where the listing tells it: of objects.
        subtitles: likewise, the subtitle file beside it; None where nobody has looked.
    """

    uri: str
    path: str
    size_bytes: int
    mtime_ns: int
    fingerprint: str | None = None
    subtitles: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingFile:
    """Something that is named or was met but cannot be read, and why. `gone` if it certainly does not exist."""

    uri: str
    reason: str
    gone: bool = False


def look_at(path: str) -> VideoFile | MissingFile:
    """The file at a path or s3:// URI, or why it is none."""
    where = location(path)
    if isinstance(where, ObjectPath):
        return look_at_object(where)
    uri = path_to_uri(path)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):  # what it leads to may come back, with the disk that holds it
            return MissingFile(uri=uri, reason="it is a link that leads nowhere")
        return MissingFile(uri=uri, reason="the file does not exist", gone=True)
    except (OSError, ValueError) as error:
        return MissingFile(uri=uri, reason=f"the file cannot be read: {getattr(error, 'strerror', None) or error}")
    if stat.S_ISDIR(status.st_mode):
        return MissingFile(uri=uri, reason="it is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        return MissingFile(uri=uri, reason="it is not a regular file")
    path = uri if uri == path else path  # one string for both: there may be millions
    return VideoFile(uri=uri, path=path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def look_at_object(where: ObjectPath) -> VideoFile | MissingFile:
    """The object, which a listing may have told of already, or why it is none."""
    try:
        if where.key:
            return video_of(where)
        return MissingFile(uri=str(where), reason="it is a bucket, not an object")
    except FileNotFoundError:
        return MissingFile(uri=str(where), reason="the object does not exist", gone=True)
    except StorageError as error:
        return MissingFile(uri=str(where), reason=str(error))


def video_of(where: ObjectPath) -> VideoFile:
    """An object as a video.

    Raises:
        FileNotFoundError, StorageError: see `ObjectPath`.
    """
    facts = where.stat()
    return VideoFile(
        uri=str(where),
        path=str(where),
        size_bytes=facts.st_size,
        mtime_ns=facts.st_mtime_ns,
        fingerprint=f"etag:{facts.etag}:{facts.st_size}" if facts.etag else None,
    )


def is_gone(path: str) -> bool:
    """Whether there is certainly nothing at a path or s3:// URI. An unreachable bucket or folder tells nothing."""
    where = location(path)
    if isinstance(where, ObjectPath):
        found = look_at_object(where)
        return isinstance(found, MissingFile) and found.gone
    try:
        os.lstat(where)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def is_folder(path: str) -> bool:
    """Whether a folder lies at a path or s3:// URI; not where it may not be looked at."""
    where = location(path)
    return where.is_dir() if isinstance(where, ObjectPath) else os.path.isdir(where)


def version_of(path: str) -> tuple[object, ...] | None:
    """What is never the same for two states of a file: also not where size and time were put back. None if it is gone.

    Two calls before and after reading tell whether all of it was read of one state.
    """
    where = location(path)
    if isinstance(where, ObjectPath):
        found = look_at_object(where)
        return (found.fingerprint, found.size_bytes, found.mtime_ns) if isinstance(found, VideoFile) else None
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def fingerprint_file(path: str) -> str:
    """`blake2b:` and 32 hex digits, over all bytes of a file; `etag:ETAG:SIZE` of an object, which is not read.

    Raises:
        VideoError: stage "read".
    """
    try:
        where = location(path)
        if isinstance(where, ObjectPath) and (known := video_of(where).fingerprint):
            return known
        digest = hashlib.blake2b(digest_size=16)
        with open_binary(where) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, StorageError) as error:
        raise read_error(error) from error
    return f"blake2b:{digest.hexdigest()}"
