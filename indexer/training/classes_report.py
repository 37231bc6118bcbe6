"""What is written about a classification: figures, a table with one row a class, a picture of what is mixed up.

Shapes: N items, C classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from PIL import Image, ImageDraw

from indexer.training.metrics import class_table, confusion_matrix
from indexer.training.monitor import write_json

CONFUSION_PICTURE = "confusion.png"
_CELL_PX, _TEXT_PX, _MARGIN_PX = 28, 7, 10  # side of a cell, width of a letter, space around
_MOST_LETTERS = 24
_PAPER, _INK, _FULL = (255, 255, 255), (20, 20, 20), np.array([31, 78, 156])


def write_report(
    folder: Path,
    scores: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    labels: list[str],
    metrics: dict[str, float],
    multi_label: bool,
) -> None:
    """Writes metrics.json, classes.csv and .parquet and, where an item has one class, confusion.png.

    Args:
        folder: where to.
        scores: float [N, C].
        truth, predicted: bool [N, C].
        labels: C names.
        metrics: figures of the whole.
        multi_label: whether an item may have several classes.
    """
    write_json(folder / "metrics.json", metrics)
    table = pa.Table.from_pylist(class_table(scores, truth, predicted, labels))
    pyarrow.parquet.write_table(table, folder / "classes.parquet")
    pyarrow.csv.write_csv(table, folder / "classes.csv")
    if not multi_label and len(scores):
        matrix = confusion_matrix(truth.argmax(axis=1), scores.argmax(axis=1), len(labels))
        Image.fromarray(draw_confusion(matrix, labels)).save(folder / CONFUSION_PICTURE)


def draw_confusion(matrix: np.ndarray, labels: list[str]) -> np.ndarray:
    """True classes from top to bottom, predicted from left to right, darker for more: uint8 [height, width, 3]."""
    names = [label if len(label) <= _MOST_LETTERS else label[: _MOST_LETTERS - 1] + "…" for label in labels]
    left = _MARGIN_PX + max(len(name) for name in names) * _TEXT_PX
    side = len(labels) * _CELL_PX
    image = Image.new("RGB", (left + side + 2 * _MARGIN_PX, left + side + 2 * _MARGIN_PX), _PAPER)
    draw = ImageDraw.Draw(image)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    for row in range(len(labels)):
        y = left + row * _CELL_PX
        draw.text((_MARGIN_PX, y + _CELL_PX // 4), names[row], fill=_INK)
        for column in range(len(labels)):
            x, share = left + _MARGIN_PX + column * _CELL_PX, float(shares[row, column])
            colour = tuple((255 + (_FULL - 255) * share).astype(int).tolist())
            draw.rectangle((x, y, x + _CELL_PX - 2, y + _CELL_PX - 2), fill=colour)
            if matrix[row, column]:
                ink = _PAPER if share > 0.5 else _INK
                draw.text((x + 5, y + _CELL_PX // 4), str(matrix[row, column]), fill=ink)
    for column, name in enumerate(names):
        image.paste(_standing(name), (left + _MARGIN_PX + column * _CELL_PX + 6, _MARGIN_PX))
    return np.asarray(image)


def _standing(name: str) -> Image.Image:
    """A name that reads upwards."""
    strip = Image.new("RGB", (len(name) * _TEXT_PX, 14), _PAPER)
    ImageDraw.Draw(strip).text((0, 0), name, fill=_INK)
    return strip.rotate(90, expand=True)
