"""`mini-int8` and its calibration file."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model import load_model, load_text_encoder, model_facts, model_fingerprint
from model.config import FrameEncoderConfig, mini, mini_int8
from model.errors import ModelError, WeightsDamagedError
from model.facts import frames_fingerprint
from model.frame_encoder import EfficientNetLite0
from model.int8 import quantize_rows, quantized_convolutions
from model.int8_calibration import load_calibration, round_convolutions, save_calibration
from model.pretrained_files import INT8_FRAME_FILES, WEIGHTS_FILES, verified_path
from model.quantization import calibrate, quantized_model
from model.runtime import OpenVinoRuntime, TorchRuntime
from model.safetensors_file import read_safetensors_header

TEXTS = ["a dog on a beach", "two children play football in a park"]
SHIPPED = INT8_FRAME_FILES["frames/calibration"]


@pytest.fixture(scope="module")
def int8():
    return load_model("mini-int8", runtime="torch")


@pytest.fixture(scope="module")
def photographs(photograph):
    names = ["skimage/data/coffee.png", "skimage/data/chelsea.png", "skimage/data/astronaut.png"]
    pixels = torch.stack([torch.from_numpy(photograph(name).copy()) for name in names])
    return torch.cat([pixels, pixels.flip(2)])


@pytest.fixture(scope="module")
def small():
    """EfficientNet-Lite0 for 64 px with random weights, and the pictures that its normalisation is from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        frames = torch.randint(256, (12, 64, 64, 3), dtype=torch.uint8)
        encoder = EfficientNetLite0(
            FrameEncoderConfig(
                backbone="efficientnet_lite0", frame_size_px=64, num_tokens=1, feature_dim=1280, num_classes=10
            )
        ).train()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        encoder(frames)
    return encoder.eval(), frames


def calibrated(original, frames):
    copied = copy.deepcopy(original)
    calibrate(original, copied, frames)
    return copied


def test_preset_is_mini_but_for_the_frame_encoder(mini, int8):
    here, there = mini.state_dict(), int8.state_dict()
    for name, weight in there.items():
        if not name.startswith("frame_encoder."):
            assert torch.equal(weight, here[name]), name
    for name in ("classifier.weight", "classifier.bias", "stem.0.weight"):
        assert torch.equal(there[f"frame_encoder.{name}"], here[f"frame_encoder.{name}"])
    assert torch.equal(load_text_encoder("mini-int8").encode(TEXTS), mini.encode_text(TEXTS))


def test_every_weight_is_minis_rounded_to_codes_and_scales(mini, int8):
    originals = quantized_convolutions(mini.frame_encoder)
    for name, convolution in quantized_convolutions(int8.frame_encoder).items():
        codes, scales = quantize_rows(originals[name].weight)
        expected = codes.double() * scales.double().view(-1, 1, 1, 1)
        torch.testing.assert_close(convolution.weight.double(), expected, rtol=1e-6, atol=0)


def test_only_a_few_kilobytes_are_shipped_and_belong_to_the_shipped_mini():
    path = verified_path(SHIPPED)
    header = read_safetensors_header(path)

    assert path.stat().st_size < 50_000
    assert INT8_FRAME_FILES["frames/tuned"] == WEIGHTS_FILES["mini"]["checkpoint"]
    for role in ("frames/pretrained", "frames/tuned"):
        assert INT8_FRAME_FILES[role].sha256 in header.metadata["base"]


def test_fingerprints_are_its_own_and_known_without_loading(mini, int8):
    assert int8.fingerprint == model_fingerprint("mini-int8") != mini.fingerprint
    assert frames_fingerprint("mini-int8") != frames_fingerprint("mini")
    assert model_facts("mini-int8").feature_shape == mini.feature_shape


def test_features_stay_near_minis_on_photographs(mini, int8, photographs):
    cosine = F.cosine_similarity(int8.encode_frames(photographs), mini.encode_frames(photographs), dim=2)
    assert 0.99 < cosine.min() < 0.99999


def test_openvino_and_pytorch_agree_within_the_stated_tolerance(int8, photographs):
    pytest.importorskip("openvino")
    by_openvino = OpenVinoRuntime(int8.frame_encoder, 2)(photographs)
    cosine = F.cosine_similarity(by_openvino, TorchRuntime(int8.frame_encoder)(photographs), dim=2)
    assert cosine.mean() > 0.999
    assert cosine.min() > 0.998


def test_imitation_in_floats_gives_what_integers_give(int8, photographs, monkeypatch, tmp_path):
    """What runs on processors without exact products of 8-bit integers."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("model.runtime.integers_are_exact", lambda: False)
    imitated = OpenVinoRuntime(int8.frame_encoder, 2)(photographs)
    cosine = F.cosine_similarity(imitated, TorchRuntime(int8.frame_encoder)(photographs), dim=2)
    assert cosine.mean() > 0.999
    assert cosine.min() > 0.998


def test_damaged_calibration_is_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    data = bytearray(verified_path(SHIPPED).read_bytes())
    data[-1] ^= 1
    (tmp_path / "mini-int8.safetensors").write_bytes(data)
    monkeypatch.setenv("VIDEOBERT_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(WeightsDamagedError, match=r"calibration .* SHA-256 must be .*, got .*\. Replace") as caught:
        load_model("mini-int8")
    assert "\n" not in str(caught.value)


def test_calibration_of_another_network_or_format_is_refused(small, tmp_path):
    encoder = copy.deepcopy(small[0])
    shutil.copy(verified_path(INT8_FRAME_FILES["frames/tuned"]), tmp_path / "mini.safetensors")
    with pytest.raises(WeightsDamagedError, match="must have the format 'videobert-int8"):
        load_calibration(encoder, tmp_path / "mini.safetensors")

    fewer = copy.deepcopy(encoder)
    round_convolutions(fewer)
    fewer.blocks = fewer.blocks[:3]
    save_calibration(fewer, {}, tmp_path / "fewer.safetensors")
    with pytest.raises(WeightsDamagedError, match="of another network"):
        load_calibration(encoder, tmp_path / "fewer.safetensors")


def test_calibration_twice_gives_the_same_bytes_and_they_give_the_same_network(small, tmp_path):
    encoder, frames = small
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path in paths:
        save_calibration(calibrated(encoder, frames), {"frames/tuned": "0" * 64}, path)
    loaded = copy.deepcopy(encoder)
    load_calibration(loaded, paths[0])

    assert paths[0].read_bytes() == paths[1].read_bytes()
    expected = calibrated(encoder, frames).state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(values, expected[name]) for name, values in loaded.state_dict().items())


def test_frames_are_not_quantised_twice(int8, photographs):
    with pytest.raises(ModelError, match="in 8-bit integers already: leave frames out"):
        quantized_model(int8, ("frames",), photographs.repeat(2, 1, 1, 1))


def test_settings_of_the_preset_are_minis():
    assert mini_int8().has_int8_frames
    assert not mini().has_int8_frames
    assert mini_int8().text == mini().text
    assert mini_int8().fusion == mini().fusion
