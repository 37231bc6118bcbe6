"""The metrics of several replicas as those of one service."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from indexer.serve import app as app_module
from indexer.serve import siblings
from indexer.serve.app import build_app
from indexer.serve.metrics import as_text
from indexer.serve.service import Service
from indexer.serve.siblings import Board, Report


def values(text):
    families = text_string_to_metric_families(text if isinstance(text, str) else text.decode())
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.fixture
def replicas(one_video, tmp_path):
    """Two services of one index, and the board between them."""
    board = Board()

    async def exchange(report):
        return board.exchange(report)

    services = [Service(tmp_path / "index") for _ in range(2)]
    apps = [build_app(service, name, exchange) for service, name in zip(services, "ab", strict=True)]
    with TestClient(apps[0]) as first, TestClient(apps[1]) as second:
        yield (first, second), services, board


def test_scrape_of_either_replica_is_the_sum_of_both(replicas):
    (first, second), _, board = replicas
    for client, times in ((first, 2), (second, 3)):
        for _ in range(times):
            client.get("/search?query=red")
        client.get("/search?k=0")
        client.get("/metrics")  # it reports
    for client in (first, second):
        counted = values(client.get("/metrics").text)
        search = ("method", "GET"), ("route", "/search")
        assert counted["videobert_requests_total", *search, ("status", "200")] == 5
        assert counted["videobert_requests_total", *search, ("status", "400")] == 2
        assert counted["videobert_request_seconds_count", ("route", "/search")] == 7
        assert counted["videobert_request_seconds_bucket", ("le", "+Inf"), ("route", "/search")] == 7
        assert counted["videobert_search_batch_size_sum",] == 5
        assert counted["videobert_index_moments", ("replica", "a")] == 1
        assert counted["videobert_index_moments", ("replica", "b")] == 1
        assert ("videobert_index_moments",) not in counted
    assert len(board._reports) == 2


def test_sum_of_counters_does_not_fall_when_a_replica_ends_and_its_gauges_vanish(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(siblings.time, "monotonic", lambda: clock[0])
    board = Board()

    def report(replica, count):
        counter, gauge = Metric("asked", "", "counter"), Metric("waiting", "", "gauge")
        counter.add_sample("asked_total", {"route": "/"}, count)
        gauge.add_sample("waiting", {}, count)
        return Report(replica, [counter, gauge], {"version": count})

    board.put(report("a", 3))
    board.put(report("b", 4))
    assert values(as_text(siblings.summed(board.exchange(report("a", 5))))) == {
        ("asked_total", ("route", "/")): 9,
        ("waiting", ("replica", "a")): 5,
        ("waiting", ("replica", "b")): 4,
    }
    clock[0] = 60.0
    known = board.exchange(report("a", 6))
    assert values(as_text(siblings.summed(known))) == {
        ("asked_total", ("route", "/")): 10,
        ("waiting", ("replica", "a")): 6,
    }
    assert siblings.oldest(known) == {"version": 6, "replicas": 1}


def test_board_forgets_the_replica_that_was_silent_longest(monkeypatch):
    monkeypatch.setattr(siblings, "_MOST_REPLICAS", 2)
    board = Board()
    for name in ("a", "b", "a", "c"):
        board.put(Report(name, [], {}))
    assert {known.report.replica for known in board.exchange(Report("c", [], {}))} == {"a", "c"}


def test_health_is_that_of_the_replica_which_is_furthest_behind(replicas, one_video, run_index):
    (first, second), services, _ = replicas
    before = first.get("/health/ready").json()["version"]
    (one_video / "red.mp4").rename(one_video / "again.mp4")
    run_index(one_video)
    services[0].refresh()
    services[1].refresh = lambda: False
    for client in (second, first):
        health = client.get("/health/ready").json()
        assert (health["replicas"], health["version"]) == (2, min(service.version for service in services))
    assert services[0].version > before


def test_replica_speaks_for_itself_when_the_board_is_gone(one_video, tmp_path, monkeypatch):
    async def exchange(report):
        raise ConnectionError("the board has ended")

    monkeypatch.setattr(app_module, "_REPORT_S", 0.01)
    with TestClient(build_app(Service(tmp_path / "index"), "a", exchange)) as client:
        client.get("/search?query=red")
        counted = values(client.get("/metrics").text)
        assert counted["videobert_request_seconds_count", ("route", "/search")] == 1
        assert counted["videobert_index_moments", ("replica", "a")] == 1
        assert client.get("/health/ready").json()["replicas"] == 1
