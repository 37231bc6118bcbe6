"""Times of single searches on one core, recall, and memory; needs NumPy only, for it runs beside other products too."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

_WARM_UP = 50


def in_one_core() -> None:
    """Keeps this process, and all its threads from now on, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def latencies(
    search: Callable[[np.ndarray], np.ndarray], queries: np.ndarray
) -> tuple[list[np.ndarray], dict[str, float]]:
    """What is found for each query, and median and 99th percentile of a search in ms, after some to warm up.

    `p50_ms` and `p99_ms` are as a clock shows it, `cpu_p50_ms` and `cpu_p99_ms` the work of all threads together: what
    the clock shows when nobody else works on the core.
    """
    for query in queries[:_WARM_UP]:
        search(query)
    found, times_s, cpu_s = [], [], []
    for query in queries:
        started, cpu_started = time.perf_counter(), time.process_time()
        found.append(search(query))
        times_s.append(time.perf_counter() - started)
        cpu_s.append(time.process_time() - cpu_started)
    times = {"p50": 0.5, "p99": 0.99}
    clock = {f"{name}_ms": 1e3 * float(np.quantile(times_s, share)) for name, share in times.items()}
    return found, clock | {f"cpu_{name}_ms": 1e3 * float(np.quantile(cpu_s, share)) for name, share in times.items()}


def recall(found: Iterable[np.ndarray], wanted: Iterable[np.ndarray]) -> float:
    """Share of the true neighbours that were found."""
    return float(np.mean([np.isin(right, rows).mean() for rows, right in zip(found, wanted, strict=False)]))


def memory() -> tuple[int, int]:
    """Resident bytes of this process: its own, and those of mapped files, which the system may drop."""
    status = Path("/proc/self/status").read_text()
    own, mapped = (int(status.partition(name)[2].split()[0]) * 1024 for name in ("RssAnon:", "RssFile:"))
    return own, mapped


def settled_memory() -> tuple[int, int]:
    """As `memory`, after allocators have given back what they keep for later."""
    gc.collect()
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return memory()
