"""`videobert serve` under load on this machine: requests a second, latencies, errors, memory.

    python -m benchmarks.serving [--index INDEX] [--seconds 20] [--soak 300]

Clients and service share the cores. Every client asks one search after another, no text twice in a row. In turns the
same is asked of a service that answers one search at a time (`max_batch` of 1): what batching queries is worth.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from benchmarks.report import demo_videos, report
from indexer.config import DEFAULT_MODEL

_CLIENTS = (1, 8, 32)
_SOAK_CLIENTS, _SOAK_PARTS = 16, 6
_WORDS = ("a", "cat", "dog", "man", "woman", "people", "car", "road", "beach", "sea", "kitchen", "coffee", "music")
_MORE_WORDS = ("guitar", "dancing", "snow", "forest", "bird", "city", "night", "crowd", "hands", "old", "red", "water")
_ONE_BY_ONE = """
import sys
from indexer.serve.here import bind, serve_here
from indexer.serve.service import Service
from indexer.serve.settings import ServeSettings
listener = bind("127.0.0.1", 0)
url = f"http://127.0.0.1:{listener.getsockname()[1]}"
service = Service(sys.argv[1], ServeSettings(max_batch=1))
serve_here(service, listener, lambda: print(f"at {url}, see", file=sys.stderr, flush=True))
"""


class Running(NamedTuple):
    """A service that answers: its process, its port, and the seconds until it did."""

    process: subprocess.Popen[str]
    port: int
    start_up_s: float


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", help="an index; one of the demo's videos is made if not given")
    parser.add_argument("--seconds", type=float, default=20, help="length of each measurement")
    parser.add_argument("--soak", type=float, default=0, help="seconds of 16 clients at the end, for memory alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        index = arguments.index or _demo_index(Path(scratch))
        report("serving", measure(index, arguments.seconds, arguments.soak))


def measure(index: str, seconds: float, soak_s: float = 0) -> dict[str, object]:
    """All figures: searches batched and one by one in turns, thumbnails, memory of the service in MiB."""
    figures: dict[str, object] = {}
    command = [sys.executable, "-m", "indexer", "serve", index, "--port", "0"]
    with _serving(command) as service, _serving([sys.executable, "-c", _ONE_BY_ONE, index]) as one_by_one:
        figures["start_up_s"] = round(service.start_up_s, 1)
        for one in (service, one_by_one):
            _load(one, _searches, 8, min(seconds, 10))  # memory settles
        before = _memory_mib(service.process.pid)
        for clients in _CLIENTS:
            figures[f"search_{clients}_clients"] = _load(service, _searches, clients, seconds)
            figures[f"search_{clients}_clients_one_by_one"] = _load(one_by_one, _searches, clients, seconds)
        after = _memory_mib(service.process.pid)
        figures["search_32_clients_again"] = _load(service, _searches, 32, seconds)
        figures["memory_mib"] = {"before": before, "after": after, "after_again": _memory_mib(service.process.pid)}
        figures["thumbnail_8_clients"] = _load(service, _thumbnails, 8, seconds)
        if soak_s:
            figures["memory_mib_in_soak"] = [_memory_after(service, soak_s / _SOAK_PARTS) for _ in range(_SOAK_PARTS)]
    return figures


def _memory_after(service: Running, seconds: float) -> float:
    _load(service, _searches, _SOAK_CLIENTS, seconds)
    return _memory_mib(service.process.pid)


def _demo_index(folder: Path) -> str:
    index = str(folder / "index")
    videos = str(demo_videos(folder / "videos"))
    command = [sys.executable, "-m", "indexer", "index", videos, "--into", index, "--model", DEFAULT_MODEL]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return index


@contextlib.contextmanager
def _serving(command: list[str]) -> Iterator[Running]:
    """The service is told to stop at the end, and must."""
    started_s = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = next((found for line in process.stderr if (found := re.search(r"127\.0\.0\.1:(\d+), see", line))), None)
    if found is None:
        raise RuntimeError("the service did not start")
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        yield Running(process, int(found[1]), time.monotonic() - started_s)
    finally:
        process.terminate()
        process.wait(90)


def _searches(seed: int, connection: http.client.HTTPConnection) -> Iterator[str]:
    """Addresses of searches for a few words each."""
    chosen = random.Random(seed)
    while True:
        yield f"/search?query={quote(' '.join(chosen.sample(_WORDS + _MORE_WORDS, 5)))}"


def _thumbnails(seed: int, connection: http.client.HTTPConnection) -> Iterator[str]:
    connection.request("GET", "/search?query=a&k=100&links=true")
    text = connection.getresponse().read().decode()
    return itertools.cycle(re.findall(r'"(/moments/\d+/thumbnail\.jpg)"', text))


def _load(
    service: Running,
    addresses: Callable[[int, http.client.HTTPConnection], Iterator[str]],
    num_clients: int,
    seconds: float,
) -> dict[str, float]:
    """What some clients meet, each on a connection of its own, for some seconds."""
    latencies: list[list[float]] = [[] for _ in range(num_clients)]
    errors = [0] * num_clients
    begin = threading.Barrier(num_clients + 1)

    def ask(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        wanted = addresses(number, connection)
        begin.wait()
        end_s = time.monotonic() + seconds
        while (started_s := time.monotonic()) < end_s:
            try:
                connection.request("GET", next(wanted))
                answer = connection.getresponse()
                answer.read()
                errors[number] += answer.status != 200
            except (OSError, http.client.HTTPException):
                errors[number] += 1
                connection.close()
            latencies[number].append(time.monotonic() - started_s)
        connection.close()

    clients = [threading.Thread(target=ask, args=[number]) for number in range(num_clients)]
    for client in clients:
        client.start()
    begin.wait()
    started_s, cpu_s = time.monotonic(), _cpu_s(service.process.pid)
    for client in clients:
        client.join()
    milliseconds = 1000 * np.array([one for some in latencies for one in some])
    p50, p95, p99 = (round(float(value), 1) for value in np.percentile(milliseconds, [50, 95, 99]))
    return {
        "requests_per_s": round(len(milliseconds) / (time.monotonic() - started_s), 1),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "errors": sum(errors),
        "cpu_ms_per_request": round(1000 * (_cpu_s(service.process.pid) - cpu_s) / len(milliseconds), 1),
    }


def _cpu_s(pid: int) -> float:
    """Processor time that the process has used: other work on the machine hardly changes it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mib(pid: int) -> float:
    """What the process holds in memory, as Linux counts it."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return round(int(found[1]) / 1024, 1) if found else float("nan")


if __name__ == "__main__":
    main()
