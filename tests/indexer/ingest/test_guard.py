"""The guard against children that hang, crash, eat memory or talk nonsense; and against the real decoder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import VideoError
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.video import DecodeEnd, DecodeLimits, SampledFrame, VideoInfo, read_video

REGULAR = range(0, 4000, 40)
INFO = {
    "type": "info",
    "container": "x",
    "video_codec": "x",
    "width": 1,
    "height": 1,
    "fps": None,
    "rotation_deg": 0,
    "has_audio": False,
    "title": None,
    "stated_duration_s": None,
}
PREAMBLE = """
import os, signal, sys, time
from indexer.ingest import wire

def say(head, *bodies):
    for part in wire.pack(head, *bodies):
        os.write(1, part)

def request():
    def read_exactly(length):
        data = bytearray(sys.stdin.buffer.read(length))
        if len(data) < length:
            sys.exit(0)
        return data
    return wire.unpack(read_exactly)[0]

def frame(target_s):
    say({"type": "frame", "time_s": target_s, "target_s": target_s}, bytes(3 * 64 * 64))

END = {"type": "end", "duration_s": 1.0, "num_decoded": 1, "warning": None}
"""


@pytest.fixture
def fake_child(tmp_path):
    """A guard whose child runs the given lines; each start of a child adds a line to `starts`."""
    guards = []

    def make(lines, **arguments):
        script = tmp_path / "child.py"
        count = f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\n"
        script.write_text(PREAMBLE + count + f"INFO = {INFO!r}\n" + textwrap.dedent(lines))
        guards.append(GuardedDecoder(command=[sys.executable, str(script)], **arguments))
        return guards[-1]

    make.num_starts = lambda: len((tmp_path / "starts").read_text())
    yield make
    for guard in guards:
        guard.close()


def read(guard, path="/none"):
    return list(guard.read_video(path, frame_rate_hz=1, size_px=64, moment_s=3))


def test_messages_are_those_of_read_video(synthetic):
    path = synthetic.write("a.mp4", REGULAR, title="köche", sound_s=1.0)

    with GuardedDecoder() as guard:
        guarded = read(guard, path)

    direct = list(read_video(path, frame_rate_hz=1, size_px=64, moment_s=3))
    assert [type(message) for message in guarded] == [type(message) for message in direct]
    assert (guarded[0], guarded[-1]) == (direct[0], direct[-1])
    for ours, theirs in zip(guarded[1:-1], direct[1:-1], strict=True):
        assert (ours.time_s, ours.target_s, ours.thumbnail) == (theirs.time_s, theirs.target_s, theirs.thumbnail)
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)


def test_held_frame_is_the_same_object_on_this_side_too(synthetic):
    with GuardedDecoder() as guard:
        _, *frames, _ = read(guard, synthetic.write("a.mkv", [0, 5000, 5040]))

    assert len(frames) == 5
    assert len({id(frame.pixels) for frame in frames}) == 1


def test_errors_arrive_as_they_were_raised(tmp_path):
    (tmp_path / "empty.mp4").touch()

    with GuardedDecoder() as guard, pytest.raises(VideoError) as caught:
        read(guard, str(tmp_path / "empty.mp4"))

    assert (caught.value.stage, caught.value.kind) == ("read", "EmptyFile")
    assert caught.value.message == "the file is empty (0 bytes)"


def test_limits_reach_the_child(synthetic):
    with GuardedDecoder(limits=DecodeLimits(max_pixels=100)) as guard, pytest.raises(VideoError, match="pixels"):
        read(guard, synthetic.write("a.mp4", REGULAR))


def test_child_that_was_started_early_reads_the_first_video(synthetic):
    path = synthetic.write("a.mp4", REGULAR)
    with GuardedDecoder() as guard:
        guard.start()
        child = guard._child
        assert child.is_running()
        assert read(guard, path)
        assert (guard._child, guard.num_children) == (child, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_child_does_not_grow_with_the_number_of_videos(synthetic):
    """PyAV's objects refer to each other: left to themselves, decoders of 7 MB each would pile up."""
    path = synthetic.write("a.mp4", REGULAR[:20], width=1280, height=720)
    with GuardedDecoder() as guard:
        peaks = []
        for _ in range(8):
            read(guard, path)
            status = Path(f"/proc/{guard._child._process.pid}/status").read_text()
            peaks.append(int(status.partition("VmHWM:")[2].split()[0]) >> 10)
    assert peaks[-1] <= peaks[0] + 8


def test_child_is_kept_between_videos_and_after_errors(synthetic, tmp_path):
    path = synthetic.write("a.mp4", REGULAR)
    with GuardedDecoder() as guard:
        read(guard, path)
        first = guard._child
        with pytest.raises(VideoError):
            read(guard, str(tmp_path / "none.mp4"))
        read(guard, path)

        assert guard._child is first


def test_hang_before_the_first_frame_is_tried_twice_and_raises_timed_out(fake_child):
    guard = fake_child("request(); time.sleep(100)", timeout_s=0.5)

    started = time.monotonic()
    with pytest.raises(VideoError, match=r"no progress for 0\.5 s") as caught:
        read(guard)

    assert caught.value.kind == "TimedOut"
    assert time.monotonic() - started < 10
    assert fake_child.num_starts() == 2


def test_hang_after_a_frame_is_tried_again_too(fake_child):
    guard = fake_child("request(); say(INFO); frame(0.5); time.sleep(100)", timeout_s=0.5)

    stream = guard.read_video("/none", frame_rate_hz=1, size_px=64)
    assert [type(next(stream)), type(next(stream))] == [VideoInfo, SampledFrame]
    with pytest.raises(VideoError) as caught:
        next(stream)

    assert caught.value.kind == "TimedOut"
    assert fake_child.num_starts() == guard.num_children == guard.num_timeouts == 2


@pytest.mark.parametrize("fault", ["os.kill(os.getpid(), signal.SIGSEGV)", "time.sleep(100)", "say(OUT_OF_MEMORY)"])
def test_second_try_goes_on_where_the_first_stopped(fake_child, tmp_path, fault):
    lines = f"""
    OUT_OF_MEMORY = {{"type": "error", "stage": "decode", "kind": "OutOfMemory", "message": "no memory"}}
    request(); say(INFO); frame(0.5); frame(1.5)
    if len(open({str(tmp_path / "starts")!r}).read()) == 1:
        {fault}
    frame(2.5); say(END)
    """
    messages = read(fake_child(lines, timeout_s=2))

    assert [type(message) for message in messages] == [VideoInfo, *[SampledFrame] * 3, DecodeEnd]
    assert [frame.target_s for frame in messages[1:-1]] == [0.5, 1.5, 2.5]
    assert fake_child.num_starts() == 2


def test_child_without_memory_is_replaced_since_earlier_videos_may_have_eaten_it(fake_child):
    lines = """
    read_before = []
    while True:
        read_before.append(request()["path"])
        if len(read_before) > 2 or read_before[-1] == "/huge":
            say({"type": "error", "stage": "decode", "kind": "OutOfMemory", "message": "no memory"})
        else:
            say(INFO); frame(0.5); say(END)
    """
    guard = fake_child(lines)

    assert [len(read(guard)) for _ in range(5)] == [3] * 5
    assert fake_child.num_starts() == 3
    with pytest.raises(VideoError, match="no memory"):
        read(guard, "/huge")
    assert len(read(guard)) == 3


def test_slow_child_that_says_it_is_alive_is_not_killed(fake_child):
    lines = """
    request()
    for _ in range(8):
        time.sleep(0.2)
        say({"type": "alive"})
    say(INFO); frame(0.5); say(END)
    """
    assert len(read(fake_child(lines, timeout_s=1.0))) == 3


def test_slow_consumer_does_not_time_out(fake_child):
    guard = fake_child("while True: request(); say(INFO); frame(0.5); frame(1.5); say(END)", timeout_s=0.5)

    received = []
    for message in guard.read_video("/none", frame_rate_hz=1, size_px=64):
        received.append(message)
        time.sleep(0.6)

    assert len(received) == 4
    assert isinstance(received[-1], DecodeEnd)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_crash_names_the_signal(fake_child, name):
    guard = fake_child(f"request(); os.kill(os.getpid(), signal.{name})")

    with pytest.raises(VideoError, match=f"the decoder crashed \\({name}\\)") as caught:
        read(guard)

    assert (caught.value.stage, caught.value.kind) == ("decode", "DecoderCrashed")
    assert fake_child.num_starts() == 2


def test_crash_that_does_not_come_again_is_not_seen(fake_child, tmp_path):
    lines = f"""
    request()
    if len(open({str(tmp_path / "starts")!r}).read()) == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    say(INFO); frame(0.5); say(END)
    """
    assert len(read(fake_child(lines))) == 3


@pytest.mark.parametrize(
    "nonsense",
    [
        "os.write(1, b'\\xff' * 100)",
        "os.write(1, b'\\0\\0\\0\\4nope')",
        "say({'no': 'type'})",
        "say({**INFO, 'surprise': 1})",
        "say({'type': 'frame', 'time_s': 0, 'target_s': 0}, b'short')",
        "say({'type': 'frame', 'time_s': 0, 'target_s': 0})",
    ],
)
def test_nonsense_from_the_child_raises_decoder_crashed(fake_child, nonsense):
    with pytest.raises(VideoError) as caught:
        read(fake_child(f"request(); {nonsense}; time.sleep(100)"))

    assert caught.value.kind == "DecoderCrashed"


def test_guard_works_again_after_a_crash(fake_child):
    lines = """
    while True:
        if request()["path"] == "/bad":
            os.kill(os.getpid(), signal.SIGSEGV)
        say(INFO); frame(0.5); say(END)
    """
    guard = fake_child(lines)

    with pytest.raises(VideoError):
        read(guard, "/bad")

    assert len(read(guard)) == 3
    assert len(read(guard)) == 3


def test_consumer_that_stops_early_leaves_the_guard_usable(synthetic):
    path = synthetic.write("a.mp4", REGULAR)
    with GuardedDecoder() as guard:
        with closing(guard.read_video(path, frame_rate_hz=25, size_px=224)) as stream:
            next(stream)
            next(stream)

        assert len(read(guard, path)) == 6


def test_second_read_ends_the_first(synthetic):
    path = synthetic.write("a.mp4", REGULAR)
    with GuardedDecoder() as guard:
        first = guard.read_video(path, frame_rate_hz=25, size_px=224)
        next(first)

        assert len(read(guard, path)) == 6
        with pytest.raises(VideoError):
            list(first)
        assert len(read(guard, path)) == 6


def test_child_killed_between_videos_is_replaced(synthetic):
    path = synthetic.write("a.mp4", REGULAR)
    with GuardedDecoder() as guard:
        read(guard, path)
        os.kill(guard._child._process.pid, signal.SIGKILL)
        guard._child._process.wait()

        assert len(read(guard, path)) == 6


def test_memory_limit_makes_the_video_fail_not_the_machine(synthetic):
    path = synthetic.write("a.mkv", [0, 40], codec="mpeg4", width=4096, height=4096)

    with GuardedDecoder(memory_bytes=64 << 20) as guard, pytest.raises(VideoError) as caught:
        read(guard, path)

    assert caught.value.kind in ("OutOfMemory", "NoFrames")  # decoders do not always say why


def test_close_ends_the_child(synthetic):
    guard = GuardedDecoder()
    read(guard, synthetic.write("a.mp4", REGULAR))
    process = guard._child._process

    guard.close()

    assert process.returncode is not None


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_child_dies_with_its_parent(synthetic):
    lines = """
    import os, sys, time
    from indexer.ingest.guard import GuardedDecoder
    guard = GuardedDecoder()
    list(guard.read_video(sys.argv[1], frame_rate_hz=1, size_px=64))
    print(guard._child._process.pid, flush=True)
    time.sleep(100)
    """
    path = synthetic.write("a.mp4", REGULAR)
    arguments = [sys.executable, "-c", textwrap.dedent(lines), path]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        child_pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while _is_running(child_pid) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not _is_running(child_pid)


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_child_loads_nothing_heavy():
    lines = "import sys, indexer.ingest.decode_worker; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout.split()

    assert {"av", "numpy", "PIL"} <= set(loaded)
    assert not {"torch", "ray", "pyarrow", "faiss", "pandas"} & set(loaded)
