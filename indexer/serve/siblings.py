"""Replicas as one service: each tells a common board what it has counted, and whoever is asked answers for all.

    replica → Report, every second → Board (one process of the cluster) → the reports of all → /metrics, /health/ready

Counters and histograms are added up, those of replicas that have ended too, so that no sum ever falls. A gauge is that
of one replica, which its label names. Nothing here knows how the board is reached.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import Metric

# A replica that has not reported for so long has ended, or hangs: its gauges say nothing any more.
_SILENT_S = 10.0
# Replicas that are remembered; what the oldest that have ended counted is forgotten.
_MOST_REPLICAS = 1000
_SUMMED = ("counter", "histogram", "summary")


class Report(NamedTuple):
    """What one replica says: its name, its metrics, and its answer to /health/ready."""

    replica: str
    metrics: list[Metric]
    health: dict[str, Any]


class Known(NamedTuple):
    """The last report of a replica, and whether it is there still."""

    report: Report
    is_alive: bool


Exchange = Callable[[Report], Awaitable[Sequence[Known]]]


class Board:
    """Keeps the last report of every replica."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[float, Report]] = {}

    def put(self, report: Report) -> None:
        """Takes the place of what the replica said before."""
        self._reports.pop(report.replica, None)
        self._reports[report.replica] = time.monotonic(), report  # the last to report stands last
        if len(self._reports) > _MOST_REPLICAS:
            del self._reports[next(iter(self._reports))]

    def exchange(self, report: Report) -> list[Known]:
        """Takes one report and gives those of all."""
        self.put(report)
        now = time.monotonic()
        return [Known(one, now - then <= _SILENT_S) for then, one in self._reports.values()]


def summed(known: Iterable[Known]) -> list[Metric]:
    """The metrics of all replicas as those of one service."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for (replica, metrics, _), is_alive in known:
        for one in metrics:
            is_sum = one.type in _SUMMED
            if not (is_sum or is_alive):
                continue
            families.setdefault(one.name, Metric(one.name, one.documentation, one.type))
            of_family = values.setdefault(one.name, {})
            for sample in one.samples:
                own = {} if is_sum else {"replica": replica}
                key = sample.name, tuple({**sample.labels, **own}.items())
                of_family[key] = _combined(sample.name, of_family.get(key), sample.value)
    for name, family in families.items():
        for (sample_name, labels), value in values[name].items():
            family.add_sample(sample_name, dict(labels), value)
    return list(families.values())


def _combined(name: str, before: float | None, value: float) -> float:
    if before is None:
        return value
    return min(before, value) if name.endswith("_created") else before + value  # when counting began


def oldest(known: Iterable[Known]) -> dict[str, Any]:
    """The health of the replica that is furthest behind, of those that are there."""
    healths = [one.report.health for one in known if one.is_alive]
    return {**min(healths, key=lambda health: int(health["version"])), "replicas": len(healths)}
