"""Does a caption find its clip, and a clip its caption? Recall over a folder of captioned videos.

    python -m benchmarks.caption_to_clip                                    # the demo videos
    python -m benchmarks.caption_to_clip --videos FOLDER --captions FILE.tsv

The captions file has the columns `file` (name of a video in the folder) and `caption`. All videos of the folder are
indexed with the default settings; then it is `videobert evaluate`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.report import demo_videos, report
from indexer import VideoIndex
from indexer.config import DEFAULT_MODEL, RunConfig, SamplingConfig
from indexer.evaluate.evaluation import TEXT_TO_VIDEO, VIDEO_TO_TEXT, evaluate_index
from indexer.evaluate.report import figure_text, notes_of
from indexer.pipeline import index_videos

_DEMO_CAPTIONS = Path(__file__).parents[1] / "demo" / "captions.tsv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of videos; the demo's if not given")
    parser.add_argument("--captions", type=Path, default=_DEMO_CAPTIONS, help="TSV with the columns file and caption")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos, into = arguments.videos or demo_videos(Path(scratch) / "videos"), Path(scratch) / "index"
        index_videos([str(videos)], into, model=arguments.model, sampling=SamplingConfig(), run=RunConfig())
        evaluation = evaluate_index(VideoIndex.open(into), str(arguments.captions))
    figures = {"captions": str(evaluation.tasks[TEXT_TO_VIDEO].questions), "model": arguments.model}
    for task in (TEXT_TO_VIDEO, VIDEO_TO_TEXT):
        for name, figure in evaluation.tasks[task].figures.items():
            figures[f"{task}, {name}"] = figure_text(name, figure)
    report("caption_to_clip", figures | {"left out": "; ".join(notes_of(evaluation)) or "nothing"})


if __name__ == "__main__":
    main()
