"""Finding folders of foreign models, and refusing what is unsafe or incomplete, without loading anything."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from model import hub
from model.clip_files import clip_checksums
from model.errors import ModelError, WeightsDamagedError, WeightsNotFoundError
from model.weights import canonical_name, model_config, model_facts, require_weights, videobert_config


@pytest.fixture
def folder(clip_folder, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(clip_folder("clip"), tmp_path / "mine"))


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(model_id, **wanted):
        raise LocalEntryNotFoundError("Name or service not known\nplease check your connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)


def test_facts_and_checks_of_a_folder_need_no_torch(folder):
    code = (
        f"import sys; from model.weights import *; model_facts('clip:{folder}'); require_weights('clip:{folder}');"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_fingerprint_is_of_the_files_not_of_the_place(folder, tmp_path):
    before = model_facts(f"clip:{folder}").fingerprint
    folder.rename(tmp_path / "moved")
    assert model_facts(f"clip:{tmp_path / 'moved'}").fingerprint == before


@pytest.mark.parametrize("name", ["tokenizer.json", "preprocessor_config.json", "config.json"])
def test_fingerprint_follows_every_file_that_counts(folder, name):
    before = model_facts(f"clip:{folder}").fingerprint
    text = (folder / name).read_text()
    (folder / name).write_text(text + " ")
    assert model_facts(f"clip:{folder}").fingerprint != before


def test_fingerprint_follows_replaced_weights(folder):
    before = model_facts(f"clip:{folder}").fingerprint
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert model_facts(f"clip:{folder}").fingerprint != before


def test_shards_give_the_same_settings_and_are_all_hashed(folder):
    from safetensors.torch import load_file, save_file

    from model import load_text_encoder

    whole = model_config(f"clip:{folder}")
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, some in parts.items():
        save_file({name: tensors[name] for name in some}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: file for file, some in parts.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert model_config(f"clip:{folder}") == whole
    assert set(parts) <= set(clip_checksums(folder))
    assert load_text_encoder(f"clip:{folder}").encode(["dog"]).isfinite().all()
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(WeightsNotFoundError, match=r"lacks 'model-2\.safetensors', one of its 2"):
        model_facts(f"clip:{folder}")


def test_shards_outside_the_folder_are_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
    with pytest.raises(WeightsDamagedError, match="must list files beside it"):
        model_facts(f"clip:{folder}")


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        WeightsNotFoundError, match=r"'pytorch_model.bin' but no model.safetensors: a pickled file can run"
    ):
        require_weights(f"clip:{folder}")


def test_weights_cut_short_are_noticed_before_any_work(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-10])
    with pytest.raises(WeightsDamagedError, match=f"must have {len(data)} bytes, got {len(data) - 10}"):
        require_weights(f"clip:{folder}")


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json"])
def test_missing_side_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsNotFoundError, match=name):
        require_weights(f"clip:{folder}")


def test_pixel_settings_of_transformers_5_are_read(folder):
    before = model_config(f"clip:{folder}")
    pixels = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": pixels}))
    assert model_config(f"clip:{folder}") == before


def test_half_of_a_model_is_refused(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if "text" not in name}, folder / "model.safetensors")
    with pytest.raises(WeightsDamagedError, match=r"the weight 'text_projection\.weight' is missing"):
        require_weights(f"clip:{folder}")


def test_missing_inner_weights_are_not_made_up(folder):
    from safetensors.torch import load_file, save_file

    from model import load_model

    tensors = load_file(folder / "model.safetensors")
    lost = "text_model.encoder.layers.0.mlp.fc1.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(WeightsDamagedError, match=f"lacks 1 weights of a clip model, '{lost}' first"):
        load_model(f"clip:{folder}")


def test_temperature_is_read_from_half_precision_too(folder):
    from safetensors.torch import load_file, save_file

    exact = model_config(f"clip:{folder}").zero_shot_temperature
    tensors = load_file(folder / "model.safetensors")
    for half in ("half", "bfloat16"):
        save_file({name: getattr(tensor, half)() for name, tensor in tensors.items()}, folder / "model.safetensors")
        assert model_config(f"clip:{folder}").zero_shot_temperature == pytest.approx(exact, rel=0.02)


def test_settings_that_fit_no_network_are_refused(folder):
    from model import load_model

    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["hidden_size"] = "wide"
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsDamagedError, match="cannot be loaded as a clip model: "):
        load_model(f"clip:{folder}")


def test_another_type_says_what_to_write(clip_folder):
    folder = clip_folder("siglip")
    with pytest.raises(
        ModelError, match=f"clip: takes models of type clip, got 'siglip' in .* use --model siglip:{folder}"
    ):
        model_facts(f"clip:{folder}")
    assert model_facts(f"siglip2:{folder}") == model_facts(f"siglip:{folder}")


def test_unknown_type_is_refused(folder):
    (folder / "config.json").write_text('{"model_type": "bert", "auto_map": {"AutoModel": "evil.py"}}')
    with pytest.raises(ModelError, match=r"got 'bert' .* other types cannot be used"):
        model_facts(f"clip:{folder}")


def test_missing_folder_says_where_it_was_looked_for_and_how_to_point_to_its_new_place(tmp_path):
    with pytest.raises(WeightsNotFoundError) as caught:
        model_facts(f"clip:{tmp_path}/gone")
    for part in (f"clip:{tmp_path}/gone", "If the folder has moved, set VIDEOBERT_WEIGHTS_DIR"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_moved_folder_is_found_through_the_environment(folder, tmp_path, monkeypatch):
    before = model_facts(f"clip:{folder}")
    (tmp_path / "elsewhere").mkdir()
    folder.rename(tmp_path / "elsewhere" / folder.name)
    monkeypatch.setenv("VIDEOBERT_WEIGHTS_DIR", str(tmp_path / "elsewhere"))
    assert model_facts(f"clip:{folder}") == before


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch32", "my-clip"])
def test_hub_out_of_reach_is_one_line_that_says_how_to_provide_the_model(no_hub, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsNotFoundError) as caught:
        require_weights(f"clip:{name}")
    text = str(caught.value)
    folder = name.rpartition("/")[2]
    for part in (f"hf download {name} --local-dir {folder}", f"--model clip:{folder}", "Name or service"):
        assert part in text
    assert "\n" not in text


def test_hub_is_not_asked_for_what_its_cache_holds(folder, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []

    def from_cache(model_id, *, allow_patterns, local_files_only=False):
        asked.append((model_id, local_files_only, [p for p in allow_patterns if "bin" in p or "py" in p]))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", from_cache)
    assert hub.find_folder("owner/name", "clip") == folder
    assert asked == [("owner/name", True, [])]


def test_names_are_made_absolute_where_they_are_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert canonical_name(f"clip:{folder.name}") == f"clip:{folder}"
    assert canonical_name("my.safetensors") == str(folder.parent / "my.safetensors")
    for name in ("mini", "clip:openai/clip-vit-base-patch32"):
        assert canonical_name(name) == name


def test_clip_has_no_tower_to_train(folder):
    with pytest.raises(ModelError, match="must have a fusion tower"):
        videobert_config(f"clip:{folder}")


def test_missing_package_names_the_extra(folder, monkeypatch):
    real = hub.importlib.util.find_spec
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None if name == "transformers" else real(name))
    with pytest.raises(
        ModelError, match=r"needs the package transformers: run `pip install 'videobert-search\[backbones\]'`"
    ):
        require_weights(f"clip:{folder}")


def test_header_that_lies_about_its_length_is_no_safetensors_file(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(WeightsDamagedError, match=r"is not a \.safetensors file, or it is cut short"):
        model_facts(f"clip:{folder}")
