"""A file that a user asked for, written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.errors import StorageError, UsageError
from indexer.storage import Location, ObjectPath, location, new_file


@contextmanager
def whole_file(out: str | Location, what: str, example: str) -> Iterator[Path]:
    """A path to write to, which takes the place of `out` when the block ends without an error.

    Args:
        out: the file; one that exists is replaced only by a complete one.
        what: what is written, for the error, e.g. "the export".
        example: a file name to suggest where `out` is a folder.

    Raises:
        UsageError: `out` is a folder.
        StorageError: it could not be written.
    """
    out = location(out)
    if isinstance(out, ObjectPath):
        with new_file(out) as path:
            yield path
        return
    if out.is_dir():
        raise UsageError(f"{str(out)!r} is a folder: name a file to write, for example {str(out / example)!r}")
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, out)
    except OSError as error:
        raise StorageError(f"{what} cannot be written to {str(out)!r}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
