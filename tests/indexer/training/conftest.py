"""Images of one colour each, with noise, so that what is to be learnt is known; training in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from indexer.training.job import Job, read_result, work
from indexer.training.prepare import prepare_training
from indexer.training.run_folder import Prepared
from model.training_plan import TrainingSettings

COLOURS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255)}


def save_image(path: Path, colour: str, number: int) -> Path:
    """An image of a size of its own."""
    noise = np.random.default_rng([number, len(colour)]).normal(0, 25, (40 + number, 50, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def write_image():
    """Writes an image: `write_image(path, "red", number)`."""
    return save_image


@pytest.fixture(autouse=True)
def always_one_thread(one_thread):
    pass


@pytest.fixture
def colour_folder(tmp_path: Path) -> Path:
    """Three classes of ten images."""
    for colour in COLOURS:
        for number in range(10):
            save_image(tmp_path / "colours" / colour / f"{number}.png", colour, number)
    return tmp_path / "colours"


@pytest.fixture
def captions(tmp_path, write_image):
    """Forty images in a Parquet file, whose captions name the colour by words that say nothing of it."""
    words = {"red": "alpha one", "green": "beta two", "blue": "gamma three"}
    rows = []
    for number in range(40):
        colour = list(words)[number % 3]
        data = write_image(tmp_path / "image.png", colour, number).read_bytes()
        rows.append({"jpeg": data, "captions": [words[colour], f"a {words[colour]} thing"]})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "captions.parquet", row_group_size=7)
    return tmp_path / "captions.parquet"


@pytest.fixture
def prepare(tmp_path: Path):
    """`prepare_training` with the tiny model; keyword arguments go to it or, if it has none such, to the settings."""

    def run(data, out="out.safetensors", **options) -> Prepared:
        own = {
            name: options.pop(name)
            for name in ("task", "held_out_share", "max_frames", "resume", "batch_size")
            if name in options
        }
        settings = TrainingSettings(**{"num_epochs": 5, "learning_rate": 1e-2, **options})
        return prepare_training(
            str(data),
            str(tmp_path / out),
            model=own.pop("model", "tiny_test"),
            task=own.pop("task", None),
            settings=lambda kind: settings,
            cache=tmp_path / "cache",
            **own,
        )

    return run


@pytest.fixture
def train_here():
    """Trains a prepared job in this process, without Ray, and returns its result."""

    def run(prepared: Prepared | Job) -> dict:
        folder = prepared.job.folder if isinstance(prepared, Prepared) else prepared.folder
        work(folder)
        return read_result(folder)

    return run
