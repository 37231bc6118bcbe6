"""An object as a file that can be read at any place: by range requests, each byte fetched at most about once."""

from __future__ import annotations

import io
import os
from collections import OrderedDict

from indexer.errors import StorageError
from indexer.storage.objects import ObjectPath

BLOCK_BYTES = 256 << 10
# Read-ahead doubles with every block that follows on the one before, up to this many: 4 MiB, a second or two on a slow
# line. A container with sound and picture far apart is read in two such streams.
_MAX_BLOCKS_AHEAD = 16
_MAX_STREAMS = 8
_MAX_BLOCKS_KEPT = 256


class RangeReader(io.RawIOBase):
    """Reads an object as it was when it was opened; one that is replaced meanwhile is an error, not a mixture.

    Attributes:
        name: the URI; FFmpeg takes the extension for a hint.
        num_bytes: size of the object.
        error: what went wrong first. Native code that reads through this object may go on as if the file ended.
    """

    def __init__(self, path: ObjectPath) -> None:
        super().__init__()
        self.name = str(path)
        self.error: StorageError | FileNotFoundError | None = None
        self._path = path
        facts = path.stat()
        self.num_bytes, self._etag = facts.st_size, facts.etag
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._ahead: OrderedDict[int, int] = OrderedDict({0: 2})  # a stream's next block → blocks to fetch there

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.num_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek before the start of {self.name!r}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills the buffer, but for the end of the object.

        Raises:
            StorageError: the object could not be read, or has been replaced.
        """
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._position < self.num_bytes:
            number, offset = divmod(self._position, BLOCK_BYTES)
            part = self._block(number)[offset : offset + len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._position += len(part)
        return filled

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            try:
                self._fetch(number)
            except (StorageError, FileNotFoundError) as error:
                self.error = self.error or error
                raise
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, first: int) -> None:
        """Fetches a block and those after it that are likely to be wanted, up to one that is known."""
        wanted = self._ahead.pop(first, 1)
        last_in_file = (self.num_bytes - 1) // BLOCK_BYTES
        end = first + 1
        while end < first + wanted and end <= last_in_file and end not in self._blocks:
            end += 1
        data = self._path.read_range(first * BLOCK_BYTES, min(end * BLOCK_BYTES, self.num_bytes), self._etag)
        if len(data) != min(end * BLOCK_BYTES, self.num_bytes) - first * BLOCK_BYTES:
            raise StorageError(f"cannot reach {self.name!r}: the storage sent fewer bytes than it said; run again")
        for number in range(first, end):
            start = (number - first) * BLOCK_BYTES
            self._blocks[number] = data[start : start + BLOCK_BYTES]
        self._ahead[end] = min(2 * wanted, _MAX_BLOCKS_AHEAD)
        while len(self._ahead) > _MAX_STREAMS:
            self._ahead.popitem(last=False)
        while len(self._blocks) > _MAX_BLOCKS_KEPT:
            self._blocks.popitem(last=False)
