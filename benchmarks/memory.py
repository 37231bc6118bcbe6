"""Is memory independent of how long the videos are, and of how many there are?

    python -m benchmarks.memory                              # 1 and 4 hours of video, 100 and 10,000 files
    python -m benchmarks.memory --hours 0.25 1 --files 100 1000

Each run is `videobert index` with two workers, as a process of its own. The peaks are the kernel's (VmHWM), the largest
of each kind of process: the driver, a worker (which encodes), a decoder (a worker's child).
The long video is made of one minute, copied again and again without encoding it anew; each of the many files has bytes
of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.report import report

_LOOK_EVERY_S = 0.2
_KINDS = {"decode_worker": "decoder", "EncodingWorker": "worker"}
_MINUTE_S, _FRAMES_PER_S = 60, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="*", default=[1, 4], help="lengths of one video")
    parser.add_argument("--files", type=int, nargs="*", default=[100, 10_000], help="numbers of files of one second")
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    figures: dict[str, object] = {"model": arguments.model}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = [(f"{hours:g} h in one file", write_long(folder / f"{hours:g}h", hours)) for hours in arguments.hours]
        made += [(f"{number} files", write_many(folder / f"{number}", number)) for number in arguments.files]
        for name, videos in made:
            figures |= _measure(name, videos, folder / f"index of {name}", arguments.model)
            print(f"{name} is done", file=sys.stderr)
    report("memory", figures)


def _measure(name: str, videos: Path, index: Path, model: str) -> dict[str, object]:
    command = [sys.executable, "-m", "indexer", "index", videos, "--into", index, "--workers", 2, "--model", model]
    process = subprocess.Popen([*map(str, command), "--json"], stdout=subprocess.PIPE, text=True)
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
    return {
        f"{name}, moments": done["segments"],
        f"{name}, wall": f"{done['wall_s']:.0f} s",
        **{f"{name}, {kind}": f"{peak / 1e6:.0f} MB" for kind, peak in sorted(peaks.items())},
    }


def _watch(pid: int, peaks: dict[str, int], over: threading.Event) -> None:
    while not over.wait(_LOOK_EVERY_S):
        for member in _tree(pid):
            try:
                command = Path(f"/proc/{member}/cmdline").read_text(errors="replace")
                status = Path(f"/proc/{member}/status").read_text()
            except OSError:
                continue  # it has ended meanwhile
            kind = "driver" if member == pid else next((k for word, k in _KINDS.items() if word in command), None)
            peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), None)
            if kind and peak:
                peaks[kind] = max(peaks.get(kind, 0), int(peak) * 1024)


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
