"""The real process: `videobert serve` is asked, sees a commit, and finishes what has begun when it is told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.indexer.query.conftest import write_colours

ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def running(*arguments: str, wait_s: float = 90) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`videobert serve`, and its port; killed at the end if it is still there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "indexer", "serve", *arguments, "--port", "0"],
        cwd=ROOT,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r" at http://127\.0\.0\.1:(\d+), see /docs", line):
                yield process, int(found[1])
                return
        raise AssertionError("".join(lines))
    finally:
        process.kill()
        process.communicate()


def get(port: int, address: str) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{address}", timeout=30) as answer:
        return json.load(answer)


def begin_request(port: int) -> tuple[socket.socket, bytes]:
    """A search whose body the service waits for, and that body."""
    body = json.dumps({"query": "red", "k": 1}).encode()
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection.sendall(f"{head}\r\nExpect: 100-continue\r\n\r\n".encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 100")  # it has begun
    return connection, body


def finish_request(connection: socket.socket, body: bytes) -> bytes:
    connection.sendall(body)
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def endless_address(port: int) -> int:
    """Bytes of one request line that the service takes before it hangs up."""
    taken = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, contextlib.suppress(OSError):
        connection.sendall(b"GET /search?query=")
        while taken < 64 * 2**20:
            taken += connection.send(b"a" * 65536)
    return taken


def counted_searches(port: int) -> set[float]:
    """What some scrapes say, each of which may meet another replica."""
    name, numbers = 'videobert_request_seconds_count{route="/search"} ', set()
    for _ in range(4):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        numbers |= {float(line.removeprefix(name)) for line in lines if line.startswith(name)}
    return numbers


def test_process_sees_a_commit_and_finishes_what_has_begun_when_it_is_stopped(one_video, run_index, tmp_path):
    with running(str(tmp_path / "index")) as (process, port):
        assert get(port, "/search?query=blue&k=1")["results"][0]["video"].endswith("red.mp4")
        write_colours(one_video / "blue.mp4", "blue", seconds_each=2)
        run_index(one_video)
        deadline_s = time.monotonic() + 30
        while get(port, "/health/ready")["videos"] == 1:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert get(port, "/search?query=blue&k=1")["results"][0]["video"].endswith("blue.mp4")

        assert endless_address(port) < 64 * 2**20
        assert get(port, "/health/live") == {"alive": True}

        begun = begin_request(port)
        process.send_signal(signal.SIGTERM)
        _wait_until_refused(port)
        answer = finish_request(*begun)
        assert answer.startswith(b"HTTP/1.1 200")
        assert json.loads(answer.split(b"\r\n\r\n")[1])["query"] == "red"
        assert process.wait(30) == 0
        assert process.stderr is not None
        said = process.stderr.read().splitlines()
        assert said[-1] == "stopped"
        assert "Traceback" not in "".join(said)


def _wait_until_refused(port: int) -> None:
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError("it still takes connections")


def test_stranger_who_points_a_name_at_this_machine_is_refused():
    from indexer.cli.serve import _allowed_hosts

    assert _allowed_hosts("127.0.0.1", []) == ("localhost", "127.0.0.1", "[::1]")
    assert _allowed_hosts("::1", ["Media.example"]) == ("localhost", "127.0.0.1", "[::1]", "media.example")
    assert _allowed_hosts("0.0.0.0", []) is None
    assert _allowed_hosts("0.0.0.0", ["media.example"]) == ("media.example",)


def test_port_that_is_taken_is_one_line(served_folder, videobert):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = videobert("serve", served_folder / "index", "--port", port)
    assert (code, out) == (2, "")
    assert err == (
        f"error: port {port} of '127.0.0.1' cannot be listened on: Address already in use; choose another with --port\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["nowhere"], 1, "there is no index at"),
        (["index", "--host", "no.such.host.invalid"], 2, "'no.such.host.invalid' is no address to listen on"),
        (["index", "--metadata", "no.csv"], 2, "there is no metadata table 'no.csv'"),
        (["index", "--replicas", "0"], 2, "--replicas"),
    ],
)
def test_wrong_arguments_are_one_line(served_folder, monkeypatch, videobert, arguments, code, error):
    monkeypatch.chdir(served_folder)
    found, out, err = videobert("serve", *arguments)
    assert (found, out) == (code, "")
    assert error in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_replicas_answer_alike_see_a_commit_and_finish_what_has_begun(one_video, run_index, tmp_path):
    with running(str(tmp_path / "index"), "--replicas", "2") as (process, port):
        answers = [get(port, "/search?query=red&k=1") for _ in range(8)]
        assert all(answer == answers[0] for answer in answers)
        deadline_s = time.monotonic() + 60
        while counted_searches(port) != {8.0} or get(port, "/health/ready")["replicas"] != 2:
            assert time.monotonic() < deadline_s
            time.sleep(0.5)
        write_colours(one_video / "blue.mp4", "blue", seconds_each=2)
        run_index(one_video)
        deadline_s = time.monotonic() + 60
        while {get(port, "/health/ready")["videos"] for _ in range(8)} != {2}:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == "stopped"


@pytest.mark.slow
def test_more_replicas_than_cores_is_one_line(one_video, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "indexer", "serve", str(tmp_path / "index"), "--port", "0", "--replicas", "1000"],
        cwd=ROOT,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: 1000 replicas need as many cores, Ray has")
