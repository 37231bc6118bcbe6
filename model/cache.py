"""Files in the user's cache folder, each of which can be made again at any time: $XDG_CACHE_HOME/videobert."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_CHECKSUM_BYTES = 16


def cached_path(name: str) -> Path:
    """Where the file of that name is, if it is there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videobert" / name


def read_cached(name: str) -> bytes | None:
    """The bytes that were written under the name, or None where there are none, or others."""
    try:
        data = cached_path(name).read_bytes()
    except OSError:
        return None
    checksum, rest = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
    return rest if checksum == _checksum(rest) else None


def write_cached(name: str, data: bytes) -> None:
    """Writes the file whole or not at all. A cache that cannot be written costs time, not the result."""
    path = cached_path(name)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(_checksum(data) + data)
        temporary.rename(path)
    except OSError:
        return


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES).digest()
