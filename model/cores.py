"""How many cores there are for this process. Loads nothing."""

from __future__ import annotations

import os


def num_usable_cores() -> int:
    """Cores that this process may run on; a container or a job scheduler often allows it only some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
