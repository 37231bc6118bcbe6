"""The GPU shape: how many clips a second, how busy the GPU is, and how near to a loop that does nothing but encode.

    python -m benchmarks.gpu                                          # needs a CUDA device
    python -m benchmarks.gpu --clips 2400 --models mini timm:FOLDER   # a small and a large network
    python -m benchmarks.gpu --videos FOLDER                          # these files, copied until there are enough
    python -m benchmarks.gpu --videos FOLDER --only runs --decoders cpu nvdec --workers 4 15

For each model: a loop over frames that lie on the GPU already, in bfloat16 as `index` runs it (`loops`: also in
float32, compiled, and with the upload); the model that workers share, fed by workers that have nothing to decode
(`fed`); then `videobert index --device cuda`, once on a few clips, which is the start-up, and on all (`runs`). What the
GPU says of itself is asked five times a second while the long run lasts.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch

from benchmarks.accelerator import send
from benchmarks.contestants.clips import make_clips
from benchmarks.contestants.ours import run_index
from benchmarks.report import demo_videos, report
from indexer.batches import EncoderSettings
from indexer.config import SamplingConfig
from indexer.ray_cluster import ray_cluster
from indexer.ray_shared_model import start_shared_models
from indexer.store.index import IndexStore
from model.weights import load_model

_LENGTH_S = 20.0
_LOOP_S = 3.0
_LOOP_FRAMES = 1024
_PARTS = ("loops", "fed", "runs")
_VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="files to index; clips of the demo's videos if not given")
    parser.add_argument("--clips", type=int, default=1200)
    parser.add_argument("--models", nargs="+", default=["mini"])
    parser.add_argument("--workers", type=int, nargs="+", default=[len(os.sched_getaffinity(0)) - 1])
    parser.add_argument("--decoders", nargs="+", default=["cpu"], help="of `index`: cpu, nvdec")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("left out: there is no CUDA device here")  # `make bench` goes on
        return
    figures: dict[str, object] = {"GPU": torch.cuda.get_device_name(), "clips": given.clips}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if "runs" in given.only:
            _lay_out_clips(given.videos, folder, given.clips)
        for model in given.models:
            loops = _loops(model, all_kinds="loops" in given.only)
            figures[f"{model}, encoder alone, frames a second"] = loops
            if "fed" in given.only:
                figures[f"{model}, fed without decoding"] = _fed(model, max(given.workers), loops["bfloat16"])
            print(json.dumps(figures), file=sys.stderr)
            for decoder in given.decoders if "runs" in given.only else []:
                options = ("--model", model, "--device", "cuda", "--decoder", decoder)
                start_s, _ = _index(max(given.workers), folder / "short", options)
                for workers in given.workers:
                    found = _run(workers, folder, options, start_s, loops["bfloat16"])
                    figures[f"{model}, {workers} workers, decoded by {decoder}"] = found
                    print(json.dumps(found), file=sys.stderr)
    report("gpu", figures)


def _loops(name: str, all_kinds: bool) -> dict[str, int]:
    """Frames a second of the encoder, on frames that lie on the GPU but for the one with the upload."""
    half = load_model(name, device="cuda")
    side = half.frame_size_px
    there = torch.randint(0, 256, (_LOOP_FRAMES, side, side, 3), dtype=torch.uint8, device="cuda")
    rates = {"bfloat16": _rate(lambda: half.encode_frames(there))}
    if all_kinds:
        here = there.cpu().numpy()
        rates["bfloat16, uploaded first, features fetched"] = _rate(lambda: half.encode_frames(here).cpu())
        compiled = load_model(name, device="cuda", runtime="compiled")
        rates["compiled"] = _rate(lambda: compiled.encode_frames(there))
        encoder: Any = half.frame_encoder  # type: ignore[attr-defined]
        with torch.inference_mode():
            rates["float32"] = _rate(lambda: [encoder(part) for part in there.split(256)])
    return {kind: round(rate) for kind, rate in rates.items()}


def _rate(encode: Callable[[], Any]) -> float:
    encode()
    torch.cuda.synchronize()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < _LOOP_S:
        encode()
        torch.cuda.synchronize()
        count += 1
    return count * _LOOP_FRAMES / (time.perf_counter() - started)


def _fed(model: str, workers: int, loop_rate: float) -> dict[str, object]:
    """The shared model when frames come as fast as they can be sent: what the way to it costs."""
    settings = EncoderSettings(index_path="", model=model, sampling=SamplingConfig())
    with ray_cluster(num_cpus=workers + 1):
        actors = start_shared_models(settings, "cuda", 1)
        sender: Any = ray.remote(send)
        ray.get([sender.remote(actors, 0.0) for _ in range(workers)])  # processes are there, imports done
        rate = sum(ray.get([sender.remote(actors, 2 * _LOOP_S) for _ in range(workers)]))
        (spent,) = ray.get([actor.account.remote() for actor in actors])
    return {
        "workers": workers,
        "frames per second": round(rate),
        "x the encoder alone": round(rate / loop_rate, 3),
        "model busy, its start included": f"{spent.seconds['encode'] / sum(spent.seconds.values()):.0%}",
    }


def _run(workers: int, folder: Path, options: Sequence[str], start_s: float, loop_rate: float) -> dict[str, object]:
    """`videobert index` on all clips, its start-up told apart."""
    with _gpu_watched(folder / "gpu.csv"):
        whole_s, said = _index(workers, folder / "clips", options)
    profile, seconds = said["profile"], whole_s - start_s
    clips = len(list((folder / "clips").iterdir()))
    frames = said["num_frames"]
    busy = profile["models"]["encode"]
    return {
        "start-up": f"{start_s:.1f} s",
        "steady": f"{seconds:.1f} s",
        "clips per second": round(clips / seconds, 1),
        "video hours per hour": round(said["video_s"] / seconds),
        "videos decoded by the GPU": profile["num_on_gpu"],
        "frames per second": round(frames / seconds),
        "x the encoder alone": round(frames / seconds / loop_rate, 3),
        "frames per second of the model's busy time": round(frames / busy),
        "model busy": f"{busy / profile['model_s']:.0%} of the time since its first frames",
        **_gpu_said(folder / "gpu.csv"),
        "seconds of the workers": profile["workers"],
        "seconds of the driver": profile["driver"],
    }


def _index(workers: int, videos: Path, options: Sequence[str]) -> tuple[float, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as out:
        index = Path(out) / "index"
        started = time.perf_counter()
        said = run_index([videos], index, workers, *options)
        seconds = time.perf_counter() - started
        frames = sum(IndexStore.open(index).ledger.snapshot().videos["num_encoded"].to_pylist())
        return seconds, said | {"num_frames": frames}


def _lay_out_clips(videos: Path | None, folder: Path, num_clips: int) -> None:
    """folder/clips, with as many as asked for, and folder/short, with two short ones."""
    sources = _videos_of(videos or demo_videos(folder / "demo"))
    make_clips(sources, folder / "short", 2, 1.0)
    if videos is None:
        make_clips(sources, folder / "clips", num_clips, _LENGTH_S)
        return
    (folder / "clips").mkdir()
    for number in range(num_clips):
        source = sources[number % len(sources)]
        shutil.copyfile(source, folder / "clips" / f"clip_{number:05d}{source.suffix}")


def _videos_of(folder: Path) -> Sequence[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in _VIDEO_SUFFIXES)


@contextmanager
def _gpu_watched(file: Path) -> Iterator[None]:
    """Writes what nvidia-smi says, five times a second, while the block runs."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-lms", "200"]
    with file.open("w") as lines:
        process = subprocess.Popen(query, stdout=lines)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _gpu_said(file: Path) -> dict[str, object]:
    """Of the time between the first and the last moment at which the GPU had work."""
    with file.open() as lines:
        rows = [(int(row[0]), int(row[1])) for row in list(csv.reader(lines))[:-1]]  # the last may not be whole
    working = [i for i, (used, _) in enumerate(rows) if used]
    if not working:
        return {"GPU utilisation": "never above 0 %"}
    used = [used for used, _ in rows[working[0] : working[-1] + 1]]
    return {
        "GPU utilisation": f"{statistics.mean(used):.0f} % mean, {statistics.median(used):.0f} % median",
        "GPU memory": f"{max(memory for _, memory in rows)} MiB at most",
    }


if __name__ == "__main__":
    main()
