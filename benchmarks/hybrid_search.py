"""Vectors and words together: does who knows what was said find it, and do captions still find what is shown?

    python -m benchmarks.hybrid_search                                    # the demo videos
    python -m benchmarks.hybrid_search --videos FOLDER --captions FILE.tsv --speech FILE.tsv

Every video gets, as a subtitle file beside a link to it, a sentence that has nothing to do with its picture: the column
`text` of --speech, as far as it goes. Questions are the captions (columns `file`, `caption`), the sentences, and three
telling words of each sentence. Compared are vectors alone, reciprocal-rank fusion, and the sum of cosine and words with
several weights and powers; what `videobert search` does is among them.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.report import demo_videos, report
from indexer import VideoIndex
from indexer.config import DEFAULT_MODEL, RunConfig, SamplingConfig
from indexer.pipeline import index_videos
from indexer.query.calibration import Calibration, background_vectors
from indexer.query.hybrid import WORD_WEIGHT, PlainWords

_DEMO_CAPTIONS = Path(__file__).parents[1] / "demo" / "captions.tsv"
_SENTENCES = Path(__file__).parents[1] / "indexer" / "query" / "background_queries.txt"
_RRF_OFFSET = 60  # Cormack et al. 2009
_TELLING_WORDS = 3

# Cosines and shares of said words of all moments [N], and the spread of background scores, to what is ranked by.
Fusion = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of videos; the demo's if not given")
    parser.add_argument("--captions", type=Path, default=_DEMO_CAPTIONS, help="TSV with the columns file and caption")
    parser.add_argument("--speech", type=Path, help="TSV with the column text; everyday sentences if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos = arguments.videos or demo_videos(Path(scratch) / "videos")
        said = _speaking_videos(videos, _sentences(arguments.speech), Path(scratch) / "speaking")
        into = Path(scratch) / "index"
        index_videos(
            [str(Path(scratch) / "speaking")], into, model=DEFAULT_MODEL, sampling=SamplingConfig(), run=RunConfig()
        )
        index = VideoIndex.open(into)
        report("hybrid_search", _figures(index, _captions(arguments.captions, index), said))


def _sentences(speech: Path | None) -> list[str]:
    if speech is None:
        return _SENTENCES.read_text(encoding="utf-8").splitlines()
    with speech.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file, delimiter="\t")]


def _captions(path: Path, index: VideoIndex) -> dict[str, str]:
    """Name of the link by caption, as far as its video is in the index."""
    links = {Path(uri).resolve().name: Path(uri).name for uri in index.videos}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["caption"], Path(row["file"]).name) for row in csv.DictReader(file, delimiter="\t")]
    of_link = {links[name]: caption for caption, name in reversed(rows) if caption and name in links}  # the first row
    return {caption: link for link, caption in of_link.items()}


def _speaking_videos(videos: Path, sentences: Sequence[str], folder: Path) -> dict[str, str]:
    """Links to the videos, with subtitles that last throughout. Returns the name of the link by sentence.

    Their names say nothing: real ones would answer some of the captions.
    """
    folder.mkdir()
    said = {}
    files = sorted(path for path in videos.iterdir() if path.is_file() and path.suffix not in (".srt", ".vtt"))
    for number, path in enumerate(files):
        link = folder / f"{number:04d}{path.suffix}"
        link.symlink_to(path.resolve())
        if number < len(sentences):
            said[sentences[number]] = link.name
            subtitles = f"1\n00:00:00,000 --> 01:00:00,000\n{sentences[number]}\n"
            link.with_suffix(".srt").write_text(subtitles, encoding="utf-8")
    return said


def _figures(index: VideoIndex, captions: dict[str, str], said: dict[str, str]) -> dict[str, str]:
    config = index.snapshot.config
    background = background_vectors(index.text_encoder, config.model_fingerprint)
    spread = Calibration.fit(index.snapshot, index.text_encoder, config.model_fingerprint).spread
    words = {_telling(sentence, index): name for sentence, name in said.items()}
    fusions: dict[str, Fusion] = {"vectors only": lambda cosines, shares, _: cosines, "reciprocal ranks": _rrf}
    for power in (1, 2, 3):
        for weight in sorted({4.0, 8.0, 24.0, WORD_WEIGHT}):
            fusions[f"cosine + {weight:g} · spread · share^{power}"] = _sum(weight, power)
    figures = {
        "videos": str(index.num_videos),
        "captions, sentences": f"{len(captions)}, {len(said)}",
        "background queries": str(len(background)),
        "weight in use": f"{WORD_WEIGHT:g}",
    }
    for name, fusion in fusions.items():
        found = [_recall(index, questions, fusion, spread) for questions in (captions, said, words)]
        figures[name] = "R@1, MRR: " + "; ".join(
            f"{what} {recall:.1%}, {rank:.3f}"
            for what, (recall, rank) in zip(("caption", "sentence", "three words"), found, strict=True)
        )
    return figures


def _telling(sentence: str, index: VideoIndex) -> str:
    words = PlainWords.of(sentence, index.snapshot.keywords)
    return " ".join(words.tokens[i] for i in np.sort(np.argsort(-words.rarity, kind="stable")[:_TELLING_WORDS]))


def _sum(weight: float, power: int) -> Fusion:
    return lambda cosines, shares, spread: cosines + weight * spread * shares**power


def _rrf(cosines: np.ndarray, shares: np.ndarray, _: float) -> np.ndarray:
    """Cormack, Clarke and Büttcher 2009: each list gives 1 / (60 + rank), words only where there are any."""
    by_words = np.where(shares > 0, 1 / (_RRF_OFFSET + _ranks(shares)), 0.0)
    return 1 / (_RRF_OFFSET + _ranks(cosines)) + by_words


def _ranks(scores: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def _recall(index: VideoIndex, questions: dict[str, str], fusion: Fusion, spread: float) -> tuple[float, float]:
    """Recall@1 and mean reciprocal rank of the right video, a video being as good as its best moment."""
    names = np.array([Path(uri).name for uri in index.snapshot.videos["uri"].to_pylist()])[
        index.snapshot.rows.video_rows
    ]
    moments = index.snapshot.embeddings()
    ranks = []
    for (question, wanted), vector in zip(questions.items(), index.encode_texts(list(questions)), strict=True):
        rows, shares = PlainWords.of(question, index.snapshot.keywords).shares(index.snapshot.keywords)
        of_all = np.zeros(len(moments))
        of_all[rows] = shares
        scores = fusion(moments @ vector, of_all, spread)
        best = {name: scores[names == name].max() for name in set(names)}
        ranks.append(1 + sum(score > best[wanted] for score in best.values()))
    return float(np.mean(np.array(ranks) == 1)), float(np.mean(1 / np.array(ranks)))


if __name__ == "__main__":
    main()
