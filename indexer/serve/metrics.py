"""What Prometheus may ask a service: requests, latencies, the version of the index."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from indexer.serve.service import Service

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts requests, and reads the rest from the service when asked."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "videobert_requests", "Requests answered.", ["route", "method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "videobert_request_seconds",
            "From the first byte of a request to the last of its answer, seconds.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        batches = Histogram(
            "videobert_search_batch_size", "Searches answered together.", buckets=_SIZES, registry=self._registry
        )
        service.on_batch = batches.observe
        for name, meaning, value in (
            ("index_version", "Version of the ledger that requests see.", lambda: service.version),
            ("index_moments", "Moments that can be found.", lambda: service.index.num_segments),
            ("index_videos", "Videos that are indexed.", lambda: service.index.num_videos),
            ("searches_waiting", "Searches that wait for their turn.", lambda: service.num_waiting),
            ("refresh_failing", "1 while no newer version can be read.", lambda: service.refresh_error is not None),
        ):
            Gauge(f"videobert_{name}", meaning, registry=self._registry).set_function(value)
        ProcessCollector(registry=self._registry)

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request answered."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def collect(self) -> list[Metric]:
        """All of it, as plain data."""
        return list(self._registry.collect())


class _Collected(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def as_text(metrics: Iterable[Metric]) -> bytes:
    """Metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collected(list(metrics)))
    return generate_latest(registry)
