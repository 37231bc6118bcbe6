"""Saving and loading what training changed, and what is said of a file that cannot be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import VideoBert, load_model, load_text_encoder, model_facts
from model.checkpoint import FORMAT, load_checkpoint, read_header, save_checkpoint, trained_weights
from model.config import VideoBertConfig, preset
from model.errors import WeightsDamagedError, WeightsNotFoundError
from model.weights import pretrained_model

CONFIG = replace(
    preset("tiny_test"),
    text=replace(preset("tiny_test").text, adapter_width=16),
    trained=("fusion.", "gate", "text_encoder.adapter."),
)


@pytest.fixture
def trained() -> VideoBert:
    """As if trained: every weight that training changes is another."""
    model = pretrained_model(CONFIG, {})
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in trained_weights(model, CONFIG).values():
            weight.copy_(torch.randn(weight.shape).half())
    return model


@pytest.fixture
def path(trained, tmp_path) -> Path:
    save_checkpoint(trained, CONFIG, {}, tmp_path / "own.safetensors")
    return tmp_path / "own.safetensors"


def _rewrite(path: Path, change) -> None:
    """Apply `change` to the dict of tensors in the file."""
    facts = {"format": FORMAT, "config": json.dumps(CONFIG.to_dict()), "base": "{}"}
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=facts)


def test_checkpoint_brings_back_every_trained_weight(trained, path):
    loaded = load_model(str(path)).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in trained.state_dict().items())


def test_weights_are_half_precision_on_disk_and_single_in_use(path):
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    assert {weight.dtype for weight in load_model(str(path)).parameters()} == {torch.float32}


def test_text_encoder_alone_gives_the_vectors_of_the_whole_model(path):
    texts = ["a red car", "night"]
    expected = load_model(str(path)).encode_text(texts)
    assert torch.equal(load_text_encoder(str(path)).encode(texts), expected)
    assert not torch.allclose(load_text_encoder("tiny_test").encode(texts), expected, atol=0.01)


def test_facts_of_a_checkpoint_are_those_of_the_model_and_follow_its_weights(path, tmp_path):
    facts = model_facts(str(path))
    assert facts.fingerprint == load_model(str(path)).fingerprint
    _rewrite(path, lambda tensors: tensors["gate"].add_(1))
    assert model_facts(str(path)).fingerprint != facts.fingerprint


def test_settings_survive_the_round_trip():
    for config in (preset("mini"), CONFIG):
        assert VideoBertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_header_tells_settings_and_shapes(path):
    config, base, shapes = read_header(path)
    assert (config, base, shapes["gate"]) == (CONFIG, {}, ())


def test_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"no checkpoint '.*none.safetensors'"):
        load_model(str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize("num_bytes", [0, 5, 100, -1])
def test_file_cut_short_is_refused(path, num_bytes):
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(WeightsDamagedError, match=r"own.safetensors (is not a .safetensors file|must have \d+ bytes)"):
        load_model(str(path))


def test_other_files_are_refused(path):
    path.write_text("no weights at all, but long enough to have a header")
    with pytest.raises(WeightsDamagedError, match=r"is not a \.safetensors file"):
        read_header(path)
    save_file({"gate": torch.zeros(())}, path)
    with pytest.raises(WeightsDamagedError, match=f"must have the format '{FORMAT}', got None"):
        read_header(path)


def test_unknown_and_missing_weights_are_named(path):
    def move(tensors):
        tensors["extra"] = tensors.pop("gate")

    _rewrite(path, move)
    with pytest.raises(WeightsDamagedError, match=r"it lacks 1 weights: gate$"):
        load_model(str(path))
    _rewrite(path, lambda tensors: tensors.update(gate=torch.zeros(())))
    with pytest.raises(WeightsDamagedError, match=r"it holds unknown 1 weights: extra$"):
        load_model(str(path))


def test_other_shapes_are_refused(path):
    _rewrite(path, lambda tensors: tensors.update({"fusion.output.bias": torch.zeros(3)}))
    with pytest.raises(WeightsDamagedError, match=r"fusion.output.bias must be \[32\], got \[3\]"):
        load_model(str(path))


def test_settings_that_cannot_be_read_are_refused(path):
    save_file(load_file(path), path, metadata={"format": FORMAT, "config": '{"name": "x"}', "base": "{}"})
    with pytest.raises(WeightsDamagedError, match="settings that this version cannot read"):
        read_header(path)


def test_other_pretrained_weights_are_refused(trained, path):
    save_checkpoint(trained, CONFIG, {"text": "0" * 64}, path)
    with pytest.raises(WeightsDamagedError, match="was trained on other pretrained weights"):
        load_model(str(path))


def test_damaged_file_leaves_the_model_as_it_was(trained, path):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    _rewrite(path, lambda tensors: tensors.update({"fusion.output.bias": torch.zeros(3)}))
    with pytest.raises(WeightsDamagedError):
        load_checkpoint(trained, CONFIG, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())


def test_checkpoint_of_equal_weights_is_the_same_file_and_readable_as_other_files_are(tmp_path):
    config = replace(preset("tiny_test"), trained=("fusion.", "gate"))
    paths = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for path in paths:
        save_checkpoint(pretrained_model(config, {}), config, {"b": "1", "a": "2"}, path)
    (tmp_path / "other").write_bytes(b"")
    assert len({path.read_bytes() for path in paths}) == 1
    assert paths[0].stat().st_mode == (tmp_path / "other").stat().st_mode
    assert read_header(paths[0]).base == {"a": "2", "b": "1"}
