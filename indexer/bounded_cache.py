"""What was used last, up to a number of bytes: a cache whose memory cannot grow."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Values by key; what was used least recently goes first. Any thread may ask.

    Args:
        max_bytes: of all values together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def get(self, key: Key) -> Value | None:
        """The value, or None if it is not there (any more)."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Key, value: Value, num_bytes: int) -> None:
        """Keeps a value, unless it alone is larger than the cache."""
        with self._lock:
            if num_bytes > self._max_bytes:
                return
            self._num_bytes += num_bytes - self._kept.pop(key, (value, 0))[1]
            self._kept[key] = value, num_bytes
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= self._kept.popitem(last=False)[1][1]
