"""What each way of sampling frames costs and finds: decoding time, frames decoded, frames encoded, recall.

    python -m benchmarks.sampling                                    # the demo videos
    python -m benchmarks.sampling --videos FOLDER --captions FILE.tsv --repeats 5

Decoding is timed alone, in processor seconds of one thread, the ways taking turns; "linear" decodes every frame and is
what the ratios are to. All of it is read at model size, without thumbnails. Then each mode makes an index of its own
and is asked the captions, "exact" also where frames that look alike are encoded each by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.compute as pc

from benchmarks.report import demo_videos, report
from indexer import VideoIndex
from indexer.config import DEFAULT_MODEL, SAMPLING_MODES, RunConfig, SamplingConfig
from indexer.errors import VideoError
from indexer.evaluate.evaluation import TEXT_TO_VIDEO, evaluate_index
from indexer.evaluate.report import figure_text
from indexer.ingest.container import ffmpeg_errors, open_container
from indexer.ingest.leeway import Leeway, leeway_of
from indexer.ingest.linear import read_linearly
from indexer.ingest.opened import OpenedVideo
from indexer.ingest.pixels import PixelReader
from indexer.ingest.sampled import DecodeEnd, DecodeLimits, SampledFrame
from indexer.ingest.timeline import SamplingGrid
from indexer.ingest.twins import TwinFinder
from indexer.ingest.video import read_video
from indexer.pipeline import index_videos
from indexer.store.index import IndexStore
from model.weights import load_model

_DEMO_CAPTIONS = Path(__file__).parents[1] / "demo" / "captions.tsv"
_SIZE_PX = 224
# Mode, and whether frames that look alike are encoded once.
_INDEXES = (("exact", False), ("exact", True), ("auto", True), ("keyframes", True))
Reader = Callable[[str], Iterator[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of videos; the demo's if not given")
    parser.add_argument("--captions", type=Path, help="TSV with the columns file and caption; none: no recall")
    parser.add_argument("--fps", type=float, default=SamplingConfig.frame_rate_hz)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--decoding-only", action="store_true", help="load no model and make no indexes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos = arguments.videos or demo_videos(Path(scratch) / "videos")
        captions = arguments.captions or (None if arguments.videos else _DEMO_CAPTIONS)
        paths = [str(path) for path in sorted(videos.iterdir()) if path.is_file() and _is_readable(str(path))]
        figures: dict[str, Any] = {"videos": len(paths), "frames wanted a second": arguments.fps}
        figures |= decoding(paths, arguments.fps, arguments.repeats)
        figures |= {} if arguments.decoding_only else likeness(paths, arguments.fps)
        for mode, with_twins in () if arguments.decoding_only else _INDEXES:
            figures |= indexing(paths, mode, arguments.fps, captions, with_twins, Path(scratch))
    report("sampling", figures)


def _is_readable(path: str) -> bool:
    try:
        return any(isinstance(item, SampledFrame) for item in read_video(path, frame_rate_hz=0.01, size_px=32))
    except VideoError:
        return False


def decoding(paths: list[str], rate_hz: float, repeats: int) -> dict[str, Any]:
    """Seconds and frames of each way, medians over the repeats."""
    ways: dict[str, Reader] = {"linear": partial(_linearly, rate_hz)}
    for mode in SAMPLING_MODES:
        ways[mode] = partial(_by_mode, rate_hz, leeway_of(SamplingConfig(frame_rate_hz=rate_hz, mode=mode)))
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    ends: dict[str, list[DecodeEnd]] = {}
    for _ in range(repeats):
        for way, read in ways.items():
            started = time.process_time()
            ends[way] = [item for path in paths for item in read(path) if isinstance(item, DecodeEnd)]
            seconds[way].append(time.process_time() - started)
    num_coded = sum(end.num_coded or 0 for end in ends["linear"])
    figures: dict[str, Any] = {
        "seconds of video": round(sum(end.duration_s for end in ends["linear"]), 1),
        "frames in the files": num_coded,
    }
    for way, runs in seconds.items():
        ratios = [linear / ours for linear, ours in zip(seconds["linear"], runs, strict=True)]
        num_decoded = sum(end.num_decoded for end in ends[way])
        figures[f"{way}, decoding"] = f"{statistics.median(runs):.2f} s ({min(runs):.2f} to {max(runs):.2f})"
        figures[f"{way}, times faster than linear"] = f"{statistics.median(ratios):.2f}"
        figures[f"{way}, frames decoded"] = f"{num_decoded} ({num_decoded / num_coded:.1%})"
    return figures


def _linearly(rate_hz: float, path: str) -> Iterator[Any]:
    with open_container(path) as container, ffmpeg_errors("decode"):
        video = OpenedVideo(container, DecodeLimits(), PixelReader(_SIZE_PX), None)
        yield from read_linearly(video, SamplingGrid(rate_hz))


def _by_mode(rate_hz: float, leeway: Leeway, path: str) -> Iterator[Any]:
    yield from read_video(path, frame_rate_hz=rate_hz, size_px=_SIZE_PX, leeway=leeway)


def likeness(paths: list[str], rate_hz: float) -> dict[str, Any]:
    """How like the features of twins are to those of the frames whose features they take."""
    model = load_model(DEFAULT_MODEL, device="cpu", num_threads=1)
    cosines: list[float] = []
    num_frames = 0
    for path in paths:
        finder, features = TwinFinder(), []
        stream = read_video(path, frame_rate_hz=rate_hz, size_px=model.frame_size_px)
        for number, frame in enumerate(item for item in stream if isinstance(item, SampledFrame)):
            vector = model.encode_frames(frame.pixels[None]).cpu().numpy().ravel().astype(np.float64)
            features.append(vector / np.linalg.norm(vector))
            twin = finder.twin_of(number, frame.pixels)
            if twin != number:
                cosines.append(float(features[twin] @ features[number]))
            num_frames += 1
    if not cosines:
        return {"frames with a twin": "0"}
    low, middle = np.quantile(cosines, [0.01, 0.5])
    return {
        "frames with a twin": f"{len(cosines)} of {num_frames} ({len(cosines) / num_frames:.1%})",
        "cosine to the twin": f"lowest {min(cosines):.4f}, 1st percentile {low:.4f}, median {middle:.4f}",
    }


def no_twins() -> AbstractContextManager[Any]:
    """In the block every frame is encoded, however like another one it is."""
    return mock.patch.object(TwinFinder, "twin_of", lambda self, number, pixels: number)


def indexing(
    paths: list[str], mode: str, rate_hz: float, captions: Path | None, with_twins: bool, scratch: Path
) -> dict[str, Any]:
    """Makes an index; frames encoded and recall."""
    name = f"{mode}, twins encoded once" if with_twins else f"{mode}, all encoded"
    into = scratch / name
    sampling = SamplingConfig(frame_rate_hz=rate_hz, mode=mode)
    with contextlib.nullcontext() if with_twins else no_twins():
        started = time.process_time()
        index_videos(paths, into, model=DEFAULT_MODEL, sampling=sampling, run=RunConfig(), in_process=True)
        seconds = time.process_time() - started
    videos = IndexStore.open(into).ledger.snapshot().videos
    num_frames, num_encoded = pc.sum(videos["num_frames"]).as_py(), pc.sum(videos["num_encoded"]).as_py()
    figures = {
        f"{name}, frames": f"{num_encoded} of {num_frames}",
        f"{name}, all but decoding": f"{seconds:.1f} s",  # decoding is done by a child process
    }
    if captions:
        for what, figure in evaluate_index(VideoIndex.open(into), str(captions)).tasks[TEXT_TO_VIDEO].figures.items():
            if what.startswith(("R@", "MRR")):
                figures[f"{name}, {what}"] = figure_text(what, figure)
    return figures


if __name__ == "__main__":
    main()
