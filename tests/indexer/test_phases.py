"""The account of a run's time adds up."""

from __future__ import annotations

import json
import time

import pytest

from indexer import phases
from indexer.cli.run_report import _print_profile
from indexer.phases import Profile, Spent, Stopwatch, WorkerClock


class Clock:
    """`time.perf_counter` that only moves when told."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(phases.time, "perf_counter", lambda: self.now)

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_stopwatch_counts_what_each_item_was_waited_for_and_not_what_was_done_with_it(clock):
    def source():
        for seconds in (5, 1, 2):
            clock.sleep(seconds)
            yield seconds
        clock.sleep(4)

    watch = Stopwatch()
    for _ in watch.waits(source(), first="open", rest="decode"):
        clock.sleep(100)
    assert watch.seconds == {"open": 5, "decode": 7}


def test_stopwatch_counts_a_block_that_raises(clock):
    watch = Stopwatch()

    def breaks():
        with watch.phase("encode"):
            clock.sleep(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    assert watch.seconds == {"encode": 3}


@pytest.mark.parametrize(("said", "moved"), [(2.0, 2.0), (9.0, 5.0), (-1.0, 0.0)])
def test_stopwatch_moves_at_most_what_there_is(clock, said, moved):
    watch = Stopwatch()
    with watch.phase("decode"):
        clock.sleep(5)
    watch.move(said, source="decode", target="resize")
    assert (watch.seconds["decode"], watch.seconds["resize"]) == (5 - moved, moved)


def test_worker_reports_what_it_did_not_count_as_idle(clock):
    worker = WorkerClock()
    clock.sleep(1)
    with worker.watch.phase("encode"):
        clock.sleep(2)
    assert worker.report().seconds == {"encode": 2, "idle": 1}
    clock.sleep(7)
    assert worker.report().seconds == {"idle": 7}


def test_phases_of_workers_add_up_to_the_time_of_all_workers(clock):
    """Two workers: one starts after 4 s and works until 10 s, the other from 5 s to 8 s; the last result is at 10 s."""
    profile = Profile()
    clock.sleep(50)
    profile.begin_work()
    clock.sleep(8)
    profile.note(Spent(worker="b", seconds={"start": 1, "decode": 2}))
    clock.sleep(2)
    profile.note(Spent(worker="a", seconds={"start": 1, "encode": 3, "idle": 2}))
    clock.sleep(6)
    told = profile.to_dict()
    assert (told["num_workers"], told["worker_s"]) == (2, 20)
    assert told["workers"] == {
        "start": 1 + 5 + 1 + 4, "open": 0, "decode": 2, "resize": 0, "encode": 3, "fuse": 0, "write": 0, "idle": 2 + 2
    }  # fmt: skip
    assert sum(told["workers"].values()) == told["worker_s"]


def test_phases_of_the_driver_add_up_to_the_run(clock):
    profile = Profile()
    with profile.watch.phase("list"):
        clock.sleep(3)
    clock.sleep(10)
    with profile.watch.phase("commit"):
        clock.sleep(2)
    told = profile.to_dict()
    assert told["driver"] == {"list": 3, "commit": 2, "vectors": 0, "wait": 10}
    assert (told["wall_s"], told["num_workers"], told["worker_s"]) == (15, 0, 0)


def test_a_real_run_accounts_for_its_time(videos, run_index, monkeypatch):
    """What the encoder is made to take longer is found in its phase, and the phases add up to the clock on the wall."""
    from model.videobert import VideoBert

    real, calls = VideoBert.encode_frames, []

    def slow(self, frames):
        calls.append(len(frames))
        time.sleep(0.1)
        return real(self, frames)

    monkeypatch.setattr(VideoBert, "encode_frames", slow)
    started = time.perf_counter()
    told = run_index(videos).profile
    wall_s = time.perf_counter() - started
    assert told["num_workers"] == 1
    assert told["workers"]["encode"] >= 0.1 * len(calls)
    assert all(told["workers"][phase] > 0 for phase in ("start", "open", "decode", "resize", "fuse", "write"))
    assert sum(told["workers"].values()) == pytest.approx(told["worker_s"], abs=0.01)
    assert sum(told["driver"].values()) == pytest.approx(told["wall_s"], abs=0.01)
    assert 0.8 * wall_s < told["wall_s"] < wall_s + 0.001
    assert told["worker_s"] <= told["driver"]["wait"] + told["driver"]["commit"] + 0.1


def test_profile_is_printed_as_two_accounts(capsys):
    told = {"num_workers": 2, "worker_s": 20.0, "workers": {"decode": 15.0, "idle": 5.0}}
    _print_profile({**told, "wall_s": 12.0, "driver": {"list": 3.0, "wait": 9.0}})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["2", "workers", "decode", "15.0", "75.0%"] in lines
    assert ["driver", "list", "3.0", "25.0%"] in lines
    assert ["driver", "in", "all", "12.0", "100.0%"] in lines


def test_index_says_where_the_time_went_only_if_asked(videobert, videos, tmp_path):
    command = ["index", videos, "--model", "tiny_test"]
    code, out, _ = videobert(*command, "--into", tmp_path / "a", "--profile", "--json")
    told = json.loads(out.splitlines()[-1])
    assert (code, told["indexed"]) == (0, 3)
    assert sum(told["profile"]["workers"].values()) == pytest.approx(told["profile"]["worker_s"], abs=0.01)
    code, out, _ = videobert(*command, "--into", tmp_path / "a", "--profile")
    assert (code, len(out.splitlines()) > 3, "driver" in out) == (0, True, True)
    code, out, _ = videobert(*command, "--into", tmp_path / "b", "--json")
    assert "profile" not in json.loads(out.splitlines()[-1])
