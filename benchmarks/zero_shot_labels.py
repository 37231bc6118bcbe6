"""Are zero-shot labels right, and are their scores honest? Before and after calibration, on clips labelled by hand.

    python -m benchmarks.zero_shot_labels                                    # the demo videos
    python -m benchmarks.zero_shot_labels --clips FOLDER --labels FILE.tsv

The labels file has the columns `file`, `fits` and `unclear`: names from concepts.tsv, separated by semicolons. What is
in neither column does not fit. Lists of 1 to 20 labels are drawn, half of them without one that fits. "Before" is the
softmax of cosine / 0.1 over the list, as first released. No constant was fitted on these clips.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.label_tasks import Lists, draw_lists, figures_of, read_concepts
from benchmarks.report import demo_videos, report
from indexer import VideoIndex
from indexer.config import DEFAULT_MODEL, RunConfig, SamplingConfig
from indexer.pipeline import index_videos
from indexer.query.labels import CALIBRATIONS, LabelScorer
from model.weights import load_text_encoder, model_config

_DEMO_LABELS, _CLIP_LABELS = Path(__file__).with_name("demo_labels.tsv"), Path(__file__).with_name("clip_labels.tsv")
_NUM_LISTS = 1500  # of each length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of clips; the demo's if not given")
    parser.add_argument("--labels", type=Path, help="TSV with file, fits, unclear; clip_labels.tsv if not given")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        clips, into = arguments.clips or demo_videos(Path(scratch) / "videos"), Path(scratch) / "index"
        index_videos([str(clips)], into, model=arguments.model, sampling=SamplingConfig(), run=RunConfig())
        labels = arguments.labels or (_CLIP_LABELS if arguments.clips else _DEMO_LABELS)
        figures = measure(VideoIndex.open(into), labels)
    report(f"zero_shot_labels_{clips.name if arguments.clips else 'demo'}", figures)


def measure(index: VideoIndex, labels: Path) -> dict[str, str | int]:
    """Figures before and after, side by side, over the moments of the labelled clips."""
    fits, unfit, moments = _truth(index, labels)
    lists = draw_lists(fits, unfit, moments, np.arange(fits.shape[1]), _NUM_LISTS, seed=0)
    before, after = figures_of(lists, _uncalibrated(index, lists)), figures_of(lists, _calibrated(index, lists))
    facts: dict[str, str | int] = {"moments": len(moments), "model": index.model, "labels": int(fits.any(axis=0).sum())}
    return facts | {name: f"{value:.3f} → {after[name]:.3f}" for name, value in before.items()}


def _truth(index: VideoIndex, labels: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which concepts fit each moment of the index, which do not (bool [N, C]), and the moments of labelled clips."""
    concepts = list(read_concepts())
    with labels.open(encoding="utf-8", newline="") as stream:
        rows = {row["file"]: row for row in csv.DictReader(stream, delimiter="\t")}
    uris = index.snapshot.videos["uri"].to_pylist()
    names = [Path(uris[row]).name for row in index.snapshot.rows.video_rows]
    fits, unclear = (
        np.array([[concept in _cell(rows, name, column) for concept in concepts] for name in names])
        for column in ("fits", "unclear")
    )
    return fits, ~fits & ~unclear, np.array([i for i, name in enumerate(names) if name in rows])


def _cell(rows: dict[str, dict[str, str]], name: str, column: str) -> set[str]:
    return set(rows[name][column].split(";")) if name in rows else set()


def _uncalibrated(index: VideoIndex, lists: list[Lists]) -> list[np.ndarray]:
    settings = model_config(index.model)
    prompts = [settings.zero_shot_prompt.format(label=label) for label in read_concepts()]
    cosines = index.snapshot.embeddings() @ index.encode_texts(prompts).T / settings.zero_shot_temperature
    scores = []
    for one in lists:
        powers = np.exp(cosines[one.rows[:, None], one.labels])
        none = np.zeros((len(powers), 1))
        scores.append(np.hstack([powers / powers.sum(axis=1, keepdims=True), none]))
    return scores


def _calibrated(index: VideoIndex, lists: list[Lists]) -> list[np.ndarray]:
    snapshot = index.snapshot
    scorer = LabelScorer(
        list(read_concepts()), load_text_encoder(index.model), index.model, snapshot.config.model_fingerprint
    )
    seen = snapshot.read(np.arange(snapshot.num_segments), ["labels"])["labels"]
    evidence = scorer.evidence(snapshot.embeddings(), seen)
    calibration = CALIBRATIONS.get(index.model, CALIBRATIONS[DEFAULT_MODEL])
    return [calibration.scores(evidence[one.rows[:, None], one.labels]) for one in lists]


if __name__ == "__main__":
    main()
