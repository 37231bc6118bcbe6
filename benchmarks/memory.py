"""Is memory independent of how long the videos are, and of how many there are?

    python -m benchmarks.memory                              # 1 and 4 hours of video, 100 and 10,000 files
    python -m benchmarks.memory --hours 0.25 1 --files 100 1000 --model tiny_test

Each run is what `videobert index` does with two workers, as a process of its own. The peaks are the kernel's (VmHWM),
the largest of each kind of process: the driver in each phase, a worker (which encodes), a decoder (a worker's child).
Growth is what each gets more from the first to the last of the lengths and of the numbers.
The long video is made of one minute, copied again and again without encoding it anew; each of the many files has bytes
of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import report
from indexer.config import RunConfig, SamplingConfig
from indexer.pipeline import Progress, index_videos

_LOOK_EVERY_S = 0.2
_KINDS = {"decode_worker": "decoder", "EncodingWorker": "worker"}
_MINUTE_S, _FRAMES_PER_S = 60, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="*", default=[1, 4], help="lengths of one video")
    parser.add_argument("--files", type=int, nargs="*", default=[100, 10_000], help="numbers of files of one second")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--drive", nargs=2, metavar=("VIDEOS", "INDEX"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        videos, index = arguments.drive
        drive(videos, index, arguments.model)
        return
    figures: dict[str, object] = {"model": arguments.model}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        long = [(f"{hours:g} h in one file", write_long(folder / f"{hours:g}h", hours)) for hours in arguments.hours]
        many = [(f"{number} files", write_many(folder / f"{number}", number)) for number in arguments.files]
        for made in (long, many):
            figures |= _compare(made, folder, arguments.model)
    report("memory", figures)


def drive(videos: str, index: str, model: str) -> None:
    """Indexes, and prints what was done and the peak of each phase in bytes as JSON."""
    peaks: dict[str, int] = {}
    now = "listing"

    def note(progress: Progress) -> None:
        nonlocal now
        peaks[now] = max(peaks.get(now, 0), _peak_bytes(os.getpid()))
        if progress.phase != now:
            now = progress.phase
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew

    run = RunConfig(num_workers=2)
    summary = index_videos([videos], index, model=model, sampling=SamplingConfig(), run=run, on_progress=note)
    print(json.dumps(summary.to_dict() | {"peaks": peaks}))


def _compare(made: Sequence[tuple[str, Path]], folder: Path, model: str) -> dict[str, object]:
    figures: dict[str, object] = {}
    peaks: list[dict[str, int]] = []
    for name, videos in made:
        done, found = _measure(name, videos, folder / f"index of {name}", model)
        print(f"{name} is done", file=sys.stderr)
        peaks.append(found)
        figures |= {f"{name}, moments": done["segments"], f"{name}, wall": f"{done['wall_s']:.0f} s"}
        figures |= {f"{name}, {kind}": f"{peak / 1e6:.0f} MB" for kind, peak in found.items()}
    if len(made) > 1:
        growth = {kind: peaks[-1][kind] - peak for kind, peak in peaks[0].items() if kind in peaks[-1]}
        figures |= {
            f"{made[0][0]} to {made[-1][0]}, {kind}": f"{grown / 1e6:+.0f} MB" for kind, grown in growth.items()
        }
    return figures


def _measure(name: str, videos: Path, index: Path, model: str) -> tuple[dict[str, Any], dict[str, int]]:
    command = [sys.executable, "-m", "benchmarks.memory", "--model", model, "--drive", str(videos), str(index)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peaks: dict[str, int] = {}
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peaks, over))
    watcher.start()
    out, _ = process.communicate()
    over.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"indexing {name} failed with exit code {process.returncode}")
    done = json.loads(out.splitlines()[-1])
    of_driver = {f"driver, {phase}": peak for phase, peak in done["peaks"].items()}
    return done, {"driver": max(of_driver.values()), **of_driver, **dict(sorted(peaks.items(), reverse=True))}


def _watch(pid: int, peaks: dict[str, int], over: threading.Event) -> None:
    while not over.wait(_LOOK_EVERY_S):
        for member in _tree(pid):
            try:
                command = Path(f"/proc/{member}/cmdline").read_text(errors="replace")
                kind = next((kind for word, kind in _KINDS.items() if word in command), None)
                if kind:
                    peaks[kind] = max(peaks.get(kind, 0), _peak_bytes(member))
            except OSError:
                continue  # it has ended meanwhile


def _peak_bytes(pid: int) -> int:
    """Of a process that has not ended yet; 0 of one that nobody has waited for."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _tree(pid: int) -> Iterator[int]:
    """The process and all its descendants that run now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    waiting = [pid]
    while waiting:
        member = waiting.pop()
        yield member
        waiting += children.get(member, [])


def write_long(folder: Path, hours: float) -> Path:
    """One video of so many hours, 320 x 240, 10 frames and one key frame a second."""
    import av  # not by the process that is measured: `index` does not load it

    folder.mkdir(parents=True)
    minute = folder / "minute.mkv"
    _write_noise(minute, num_frames=_MINUTE_S * _FRAMES_PER_S, width=320, height=240)
    with av.open(str(minute)) as source, av.open(str(folder / "long.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        time_base = packets[0].time_base
        step = round(_MINUTE_S / time_base)
        contents = [(bytes(packet), packet.pts or 0, packet.dts or 0, packet.is_keyframe) for packet in packets]
        for number in range(round(hours * 60)):
            for data, pts, dts, is_keyframe in contents:
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.time_base = pts + number * step, dts + number * step, time_base
                packet.stream, packet.is_keyframe = stream, is_keyframe
                target.mux(packet)
    minute.unlink()
    return folder


def write_many(folder: Path, number: int) -> Path:
    """So many videos of one second, each with bytes of its own: an empty box of MP4 at the end holds its number."""
    folder.mkdir(parents=True)
    first = folder / "first.mp4"
    _write_noise(first, num_frames=_FRAMES_PER_S, width=64, height=64)
    data = first.read_bytes()
    first.unlink()
    for i in range(number):
        (folder / f"{i:06}.mp4").write_bytes(data + (16).to_bytes(4, "big") + b"free" + i.to_bytes(8, "big"))
    return folder


def _write_noise(path: Path, *, num_frames: int, width: int, height: int) -> None:
    """Blocks of random colours that change with every frame, so that no two moments are alike."""
    import av

    drawn = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=_FRAMES_PER_S, options={"g": str(_FRAMES_PER_S), "bf": "0", "crf": "40"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _FRAMES_PER_S)
        for number in range(num_frames):
            blocks = drawn.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(blocks.repeat(16, axis=0).repeat(16, axis=1), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
