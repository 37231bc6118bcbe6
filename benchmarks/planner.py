"""What finding out that nothing has changed costs: listing a folder, and comparing with a ledger of a million videos.

Every other video has a subtitle file beside it.

    python -m benchmarks.planner
    python -m benchmarks.planner --videos 1000000 --files 20000

The ledger is made up but real: a Delta table written by commits of 10,000 rows, read from disk by the code of a run.
Each measurement is a process of its own, so that the peak of its memory is its own. A plan with fewer than 5,000
unchanged videos a second, or one that finds a change, makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.report import report
from indexer import schema
from indexer.config import IndexConfig, RunConfig, SamplingConfig
from indexer.ingest.files import VideoFile
from indexer.ingest.on_disk import OnDisk
from indexer.ingest.plan import diff
from indexer.ingest.sources import Listing, list_videos
from indexer.recorder import Recorder
from indexer.store.index import IndexStore
from model.weights import model_facts

_MIN_VIDEOS_PER_S = 5_000
_ROWS_PER_COMMIT = 10_000
_FILES_PER_FOLDER = 100
_MODEL = "tiny_test"
_ROOT = "/archive"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1_000_000, help="rows of the ledger")
    parser.add_argument("--files", type=int, default=20_000, help="files of the folder that is listed")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, folder = arguments.measure
        print(json.dumps({"plan": measure_plan, "list": measure_listing}[what](Path(folder), arguments.videos)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        make_ledger(Path(scratch) / "index", arguments.videos)
        make_files(Path(scratch) / "files", arguments.files)
        plan = _in_a_process("plan", Path(scratch) / "index", arguments.videos)
        listing = _in_a_process("list", Path(scratch) / "files", arguments.files)
    rate = plan["videos"] / (plan["read_s"] + plan["diff_s"])
    report(
        "planner",
        {
            "videos in the ledger": plan["videos"],
            "read the ledger": f"{plan['read_s']:.2f} s",
            "compare with the listing": f"{plan['diff_s']:.2f} s",
            "unchanged videos planned per second": f"{rate:,.0f}",
            "new, changed or vanished": plan["changes"],
            "peak memory": f"{plan['peak_bytes'] / 1e9:.2f} GB",
            "of it the listing itself": f"{plan['listing_bytes'] / 1e9:.2f} GB",
            "files listed": listing["files"],
            "files listed per second": f"{listing['files'] / listing['list_s']:,.0f}",
        },
    )
    if rate < _MIN_VIDEOS_PER_S or plan["changes"]:
        sys.exit(1)


def make_ledger(path: Path, num_videos: int) -> None:
    """An index of indexed videos without moments, committed in many steps, as runs would."""
    facts = model_facts(_MODEL)
    config = IndexConfig(
        model=_MODEL,
        model_fingerprint=facts.fingerprint,
        embedding_dim=facts.embedding_dim,
        feature_shape=facts.feature_shape,
        sampling=SamplingConfig(),
    )
    ledger = IndexStore.open_or_create(path, config).ledger
    for start in range(0, num_videos, _ROWS_PER_COMMIT):
        ledger.commit(_rows(range(start, min(start + _ROWS_PER_COMMIT, num_videos))))


def _rows(numbers: range) -> pa.Table:
    count = len(numbers)
    columns = {field.name: pa.nulls(count, field.type) for field in schema.VIDEOS}
    uris = [_uri(number) for number in numbers]
    given = {
        "video_id": [schema.video_id(uri) for uri in uris],
        "uri": uris,
        "status": [schema.INDEXED] * count,
        "batch_id": [f"{numbers.start:032x}"] * count,
        "fingerprint": [f"blake2b:{number:032x}" for number in numbers],
        "size_bytes": [_size(number) for number in numbers],
        "mtime_ns": [_mtime(number) for number in numbers],
        "duration_s": np.full(count, 60.0, np.float32),
        "num_segments": [0] * count,
        "num_frames": [60] * count,
        "partial": [False] * count,
        "attempts": [1] * count,
        "indexed_at": [0] * count,
        "subtitles": [_subtitles(number) for number in numbers],
    }
    columns |= {name: pa.array(values).cast(schema.VIDEOS.field(name).type) for name, values in given.items()}
    return pa.table(columns, schema=schema.VIDEOS)


def _uri(number: int) -> str:
    return f"{_ROOT}/camera-{number // 10_000:05d}/2026-{number // 1000 % 10:02d}/recording-{number:09d}.mp4"


def _size(number: int) -> int:
    return 1_000_000 + number % 977


def _mtime(number: int) -> int:
    return 1_700_000_000_000_000_000 + number * 1_000_000_007


def _subtitles(number: int) -> str:
    return f".en.srt mtime_ns:{_mtime(number)} bytes:{_size(number)}" if number % 2 else ""


def make_files(folder: Path, num_files: int) -> None:
    """Files of 5 bytes in folders of a hundred, and the subtitle files beside them."""
    for number in range(num_files):
        parent = folder / f"{number // _FILES_PER_FOLDER:05d}"
        if number % _FILES_PER_FOLDER == 0:
            parent.mkdir(parents=True)
        (parent / f"{number:07d}.mp4").write_bytes(b"video")
        if number % 2:
            (parent / f"{number:07d}.en.srt").write_bytes(b"words")


def measure_plan(index: Path, num_videos: int) -> dict[str, float]:
    """Reads the ledger and compares, as a run does, with a listing in which every video is as it was."""
    before = _peak_bytes()
    uris = ((number, _uri(number)) for number in range(num_videos))
    files = OnDisk(VideoFile)
    files.add_all(
        VideoFile(uri=uri, path=uri, size_bytes=_size(n), mtime_ns=_mtime(n), subtitles=_subtitles(n))
        for n, uri in uris
    )
    listing = Listing(files=files, roots=(f"{_ROOT}/",))
    listing_bytes = _peak_bytes() - before
    started = time.perf_counter()
    recorder = Recorder(IndexStore.open(index), RunConfig(), time.monotonic(), lambda progress: None)
    read_s = time.perf_counter() - started
    plan = diff(listing, recorder.known)
    recorder.expect(plan.new, plan)
    recorder.record_left_alone(plan)
    return {
        "videos": recorder.summary.unchanged,
        "changes": len(plan.new) + len(plan.changed) + len(plan.vanished),
        "read_s": read_s,
        "diff_s": time.perf_counter() - started - read_s,
        "peak_bytes": _peak_bytes(),
        "listing_bytes": listing_bytes,
    }


def measure_listing(folder: Path, num_files: int) -> dict[str, float]:
    started = time.perf_counter()
    files = list_videos([os.fspath(folder)]).files
    return {"files": len(files), "list_s": time.perf_counter() - started}


def _peak_bytes() -> int:
    """Peak of this process. On Linux `getrusage` counts what the parent had before the child replaced it."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _in_a_process(what: str, folder: Path, num_videos: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.planner", "--measure", what, str(folder), "--videos", str(num_videos)]
    figures: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return figures


if __name__ == "__main__":
    main()
