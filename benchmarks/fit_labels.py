"""Fits the constants of zero-shot labels (`indexer.query.labels.CALIBRATIONS`) on captioned photographs.

    python -m benchmarks.fit_labels --photographs flickr8k.parquet [--model mini]

The table has the columns `jpeg` and `captions`, as for `recipes.flickr8k`; only photographs that recipe holds out are
used, because the model has seen the others. The concepts of concepts.tsv are the labels. Prints the constants that fit
best on everything, and figures on photographs and concepts that the fit has not seen: both are split into halves, and
each half is measured with the constants of the other.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional as F

from benchmarks.label_tasks import Lists, concepts_in, draw_lists, figures_of, read_concepts
from benchmarks.report import report
from indexer import schema
from indexer.ingest.fuse import labels_seen
from indexer.query.labels import LabelCalibration, LabelScorer
from model.weights import load_model
from recipes.flickr8k.data import Photographs, read_photographs, view

_NUM_LISTS = 1500  # of each length
_FRAMES_PER_BATCH = 100
_SEED = 0  # of the recipe's split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="Parquet file with jpeg and captions")
    parser.add_argument("--held-out", type=int, default=1000, help="photographs that the model was not trained on")
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    photographs = read_photographs(arguments.photographs, _SEED).part(0, arguments.held_out)
    fits, unfit = concepts_in(photographs.captions)
    evidence = photograph_evidence(photographs, arguments.model)
    rows, concepts = np.arange(fits.shape[0]), np.arange(fits.shape[1])
    calibration = fit(evidence, draw_lists(fits, unfit, rows, concepts, _NUM_LISTS, seed=0))
    figures = cross_validate(evidence, fits, unfit)
    report(
        f"fit_labels_{arguments.model}",
        {name: round(value, 3) for name, value in asdict(calibration).items()}
        | {f"{name}, unseen": round(value, 3) for name, value in figures.items()},
    )


def photograph_evidence(photographs: Photographs, model_name: str) -> np.ndarray:
    """Evidence [N, C, 3] for every concept in every photograph, each taken for a moment of one frame."""
    model = load_model(model_name)
    pixels = [view(jpeg, 0, _SEED) for jpeg in photographs.jpegs]
    starts = range(0, len(pixels), _FRAMES_PER_BATCH)
    features = torch.cat([model.encode_frames(np.stack(pixels[s : s + _FRAMES_PER_BATCH])) for s in starts])
    features, mask = features.half()[:, None], torch.ones(len(pixels), 1, dtype=torch.bool)
    vectors, classes = model.encode_and_classify(features, mask, torch.zeros(len(pixels), 1))
    seen = pa.array([labels_seen(row, model.label_names) for row in classes.cpu().numpy()], type=schema.LABELS_TYPE)
    scorer = LabelScorer(list(read_concepts()), model.text_encoder, model_name, model.fingerprint)
    return scorer.evidence(vectors.cpu().numpy(), seen)


def fit(evidence: np.ndarray, lists: list[Lists]) -> LabelCalibration:
    """Constants of the highest likelihood, each length of list counting the same."""
    inputs = torch.from_numpy(evidence * np.array([1, 1, -1], dtype=np.float32))
    weights = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.stack([_loss(inputs, one, weights) for one in lists]).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    cosine, seen, elsewhere, none = weights.tolist()
    return LabelCalibration(cosine=cosine, seen=seen, elsewhere=elsewhere, none=none)


def _loss(inputs: torch.Tensor, lists: Lists, weights: torch.Tensor) -> torch.Tensor:
    logits = inputs[torch.from_numpy(lists.rows)[:, None], torch.from_numpy(lists.labels)] @ weights[:3]
    none = (weights[3] + np.log(logits.shape[1])).expand(len(logits), 1)
    return F.cross_entropy(torch.cat([logits, none], dim=1), torch.from_numpy(lists.answers))


def cross_validate(evidence: np.ndarray, fits: np.ndarray, unfit: np.ndarray) -> dict[str, float]:
    """Mean figures of two fits, each on half of the photographs and half of the concepts, measured on the others."""
    random = np.random.default_rng(0)
    rows, concepts = random.permutation(fits.shape[0]), random.permutation(fits.shape[1])
    halves = [draw_lists(fits, unfit, rows[part::2], concepts[part::2], _NUM_LISTS, seed=part) for part in (0, 1)]
    results = []
    for train, test in (halves, halves[::-1]):
        calibration = fit(evidence, train)
        scores = [calibration.scores(evidence[one.rows[:, None], one.labels]) for one in test]
        results.append(figures_of(test, scores))
    return {name: float(np.mean([result[name] for result in results])) for name in results[0]}


if __name__ == "__main__":
    main()
