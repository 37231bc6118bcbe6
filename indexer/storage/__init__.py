"""Where things lie: in folders of this machine or in buckets of S3-compatible storage. Nobody else asks which.

A `Location` is a `pathlib.Path` or an `ObjectPath`, which has the methods of a path that this project uses. The
functions do for both what a path has no method for: write whole or not at all, create unless it exists, read by seeks.
Errors are those of a disk (FileNotFoundError, FileExistsError); what only a network has is a StorageError.
"""

from indexer.storage.copies import DamagedCopyError, verified_copy
from indexer.storage.files import (
    create_whole,
    new_file,
    open_binary,
    total_bytes,
    write_whole,
)
from indexer.storage.location import Location, is_object_uri, location
from indexer.storage.objects import ObjectPath
from indexer.storage.ranges import RangeReader

__all__ = [
    "DamagedCopyError",
    "Location",
    "ObjectPath",
    "RangeReader",
    "create_whole",
    "is_object_uri",
    "location",
    "new_file",
    "open_binary",
    "total_bytes",
    "verified_copy",
    "write_whole",
]
