"""The whole recipe, as its command line runs it, on 48 small pictures: to a checkpoint that loads, twice the same."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from model.checkpoint import trained_weights
from model.config import preset
from model.weights import load_videobert, pretrained_model
from recipes.flickr8k.__main__ import main

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 40), "blue": (30, 40, 220), "grey": (128, 128, 128)}
NUM_PICTURES = 48
NUM_HELD_OUT = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Noisy pictures of one colour each, with five captions."""
    random, rows = np.random.default_rng(0), []
    for number in range(NUM_PICTURES):
        name, colour = list(COLOURS.items())[number % len(COLOURS)]
        pixels = np.clip(random.normal(colour, 20, (224, 224, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(stream := io.BytesIO(), "JPEG")
        captions = [f"a {kind} {name} wall" for kind in ("plain", "painted", "large", "clean", "dirty")]
        rows.append({"jpeg": stream.getvalue(), "captions": captions})
    path = tmp_path_factory.mktemp("flickr") / "pictures.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _run(data: Path, out: Path, monkeypatch, more: dict[str, object] | None = None) -> None:
    flags = {"--data": data, "--out": out, "--held-out": NUM_HELD_OUT, "--cache": data.parent / "cache", **(more or {})}
    monkeypatch.setattr(sys, "argv", ["recipe", *(str(word) for flag in flags.items() for word in flag)])
    main()


@pytest.mark.slow
def test_recipe_writes_a_checkpoint_that_loads_and_is_the_same_every_time(data, tmp_path, monkeypatch, capsys):
    threads = torch.get_num_threads()
    try:
        _run(data, tmp_path / "first.safetensors", monkeypatch)
        cached = {path: path.stat().st_mtime_ns for path in (data.parent / "cache").iterdir()}
        _run(data, tmp_path / "second.safetensors", monkeypatch, {"--measured": tmp_path / "measured.safetensors"})
        continued: dict[str, object] = {"--cnn": tmp_path / "first.safetensors", "--held-out": 0}
        _run(data, tmp_path / "third.safetensors", monkeypatch, continued)
    finally:
        torch.set_num_threads(threads)
    first, second, third = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "third"))
    assert first.read_bytes() == second.read_bytes()
    tuned, read = (load_file(path) for path in (first, third))
    assert all(torch.equal(read[name], tuned[name]) for name in tuned if name.startswith("frame_encoder."))
    measured = load_file(tmp_path / "measured.safetensors")
    frames = [name for name in tuned if name.startswith("frame_encoder.")]
    assert all(torch.equal(measured[name], tuned[name]) for name in frames)
    assert not torch.equal(measured["text_encoder.adapter.inner.weight"], tuned["text_encoder.adapter.inner.weight"])
    assert len(cached) == 4  # three views, and the captions
    assert {path: path.stat().st_mtime_ns for path in (data.parent / "cache").iterdir()} == cached
    assert "all captions     R@1/5/10 =" in capsys.readouterr().out
    model = load_videobert(str(tmp_path / "first.safetensors"))
    assert model.config == preset("mini")
    fresh = dict(pretrained_model(preset("mini"), {}).named_parameters())
    weights = trained_weights(model, model.config)
    unchanged = [name for name, weight in weights.items() if torch.equal(weight, fresh[name].half().float())]
    assert len(weights) > 25
    untouched = (".depthwise.", ".frame_head.0.", ".adapter.norm.")  # not tuned, or moved on by merging
    assert unchanged == [name for name in weights if any(part in name for part in untouched)]
