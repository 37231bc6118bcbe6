"""The same run as a Ray job, on a cluster started on this machine: `ray start --head`, `ray job submit`."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture
def ray_head(tmp_path_factory) -> Iterator[tuple[str, dict[str, str]]]:
    """A head node of its own (home, temporary folder, ports): the job server's address and the environment."""
    folder = tmp_path_factory.mktemp("ray")
    environment = os.environ | {
        "HOME": str(folder),
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",
        "RAY_TMPDIR": str(folder)[:40],
        "RAY_AUTH_MODE": "disabled",
        "RAY_raylet_start_wait_time_s": "120",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # the only node has nobody to hand its work to, and waits 30 s
    }
    port, dashboard = free_port(), free_port()
    command = [RAY, "start", "--head", "--num-cpus=2", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
    command += ["--include-dashboard=true", f"--temp-dir={folder / 't'}"]
    # Another Ray on this machine may have the usual ones; an agent without its port starts no job, and says nothing.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    with open(folder / "log", "w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    yield f"http://127.0.0.1:{dashboard}", environment
    head.terminate()
    head.wait(60)


NOT_YET = ("ConnectionError", "Failed to connect", "No available agent")


def submit(head: tuple[str, dict[str, str]], working_dir: Path, *command: str) -> subprocess.CompletedProcess[str]:
    address, environment = head
    submit = [str(RAY), "job", "submit", "--address", address, "--working-dir", str(working_dir), "--", *command]
    wait_until_it_listens(address)
    for _ in range(30):
        done = subprocess.run(submit, env=environment, capture_output=True, text=True, timeout=240)
        if done.returncode == 0 or not any(said in done.stdout + done.stderr for said in NOT_YET):
            return done
        time.sleep(0.5)
    return done


def wait_until_it_listens(address: str) -> None:
    """Asking by `ray job submit` takes seconds each time."""
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}/api/version", timeout=30).close()
            return
        time.sleep(0.2)
    raise AssertionError(f"nothing answers at {address}")


@pytest.mark.timeout(400)
def test_index_runs_as_a_ray_job(ray_head, videos, run_index, rows_of, tmp_path):
    package = tmp_path / "checkout"
    for name in ("indexer", "model"):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = ["python", "-m", "indexer", "index", str(videos), "--into", str(tmp_path / "job"), "--model", "tiny_test"]
    done = submit(ray_head, package, *command, "--address", "auto", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (summary,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"indexed"')]
    assert (summary["indexed"], summary["failed"], summary["segments"]) == (3, 0, 4)
    run_index(videos, into="plain")
    assert rows_of("job") == rows_of("plain")
