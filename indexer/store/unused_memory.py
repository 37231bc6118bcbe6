"""Memory that was freed, given back to the system: the allocators of Arrow and of C keep it for later."""

from __future__ import annotations

import ctypes
import sys

import pyarrow as pa


def give_back_unused_memory() -> None:
    """Takes some milliseconds. Only glibc can be asked for it; elsewhere Arrow's alone is given back."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
