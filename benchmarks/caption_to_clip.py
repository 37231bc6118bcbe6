"""Does a caption find its clip? Recall at 1, 5 and 10 over a folder of captioned videos.

    python -m benchmarks.caption_to_clip                                    # the demo videos
    python -m benchmarks.caption_to_clip --videos FOLDER --captions FILE.tsv

The captions file has the columns `file` (name of a video in the folder) and `caption`. All videos of the folder are
indexed with the default settings; each caption is searched for, and the rank of its video counts.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.report import demo_videos, report
from indexer import VideoIndex
from indexer.config import DEFAULT_MODEL, RunConfig, SamplingConfig
from indexer.pipeline import index_videos

_DEMO_CAPTIONS = Path(__file__).parents[1] / "demo" / "captions.tsv"
_BOOTSTRAP_ROUNDS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of videos; the demo's if not given")
    parser.add_argument("--captions", type=Path, default=_DEMO_CAPTIONS, help="TSV with the columns file and caption")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos = arguments.videos or demo_videos(Path(scratch) / "videos")
        index_videos(
            [str(videos)], Path(scratch) / "index", model=arguments.model, sampling=SamplingConfig(), run=RunConfig()
        )
        ranks = caption_ranks(VideoIndex.open(Path(scratch) / "index"), read_captions(arguments.captions, videos))
    figures = {"captions": len(ranks), "model": arguments.model, "median rank": float(np.median(ranks))}
    for k in (1, 5, 10):
        low, high = _interval(ranks <= k)
        figures[f"R@{k}"] = f"{100 * np.mean(ranks <= k):.1f} % (95 % interval {low:.1f}–{high:.1f})"
    report("caption_to_clip", figures)


def read_captions(path: Path, videos: Path) -> list[tuple[str, str]]:
    """(file name, caption) of the videos that are in the folder."""
    present = {file.name for file in videos.rglob("*")}
    with open(path, encoding="utf-8", newline="") as stream:
        rows = [(Path(row["file"]), row["caption"]) for row in csv.DictReader(stream, delimiter="\t")]
    # Where the file column names a folder too, it must agree: the same name may stand in several.
    return [
        (file.name, caption)
        for file, caption in rows
        if caption and file.name in present and file.parent.name in ("", videos.name)
    ]


def caption_ranks(index: VideoIndex, captions: list[tuple[str, str]]) -> np.ndarray:
    """Rank of each caption's video by its best moment: int [N], 1 is first, one more than the videos if not found."""
    ranks = []
    results = index.search_many([caption for _, caption in captions], k=min(1000, index.num_segments))
    for (name, _), result in zip(captions, results, strict=True):
        order = list(dict.fromkeys(Path(moment.video).name for moment in result.results))
        ranks.append(order.index(name) + 1 if name in order else index.num_videos + 1)
    return np.array(ranks)


def _interval(hits: np.ndarray) -> tuple[float, float]:
    """Bootstrap 95 % interval of a share, in per cent."""
    random = np.random.default_rng(0)
    shares = [random.choice(hits, len(hits)).mean() for _ in range(_BOOTSTRAP_ROUNDS)]
    return 100 * float(np.quantile(shares, 0.025)), 100 * float(np.quantile(shares, 0.975))


if __name__ == "__main__":
    main()
