"""OpenVINO against PyTorch, frame for frame."""

from __future__ import annotations

import copy
import importlib.util

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model import runtime
from model.cache import cached_path
from model.errors import ModelError
from model.runtime import GpuRuntime, OpenVinoRuntime, TorchRuntime, make_runtime

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="openvino is not installed")


@pytest.fixture(scope="module")
def frames(photograph):
    names = ["skimage/data/chelsea.png", "skimage/data/coffee.png", "skimage/data/rocket.jpg"]
    photographs = [photograph(name) for name in names]
    plain = [np.zeros((224, 224, 3), np.uint8), np.full((224, 224, 3), 255, np.uint8)]
    return torch.from_numpy(np.stack([*photographs, *plain]))


@needs_openvino
@pytest.mark.parametrize("num_threads", [1, 2])
def test_openvino_gives_pytorchs_features(mini, frames, num_threads):
    expected = TorchRuntime(mini.frame_encoder)(frames)
    features = OpenVinoRuntime(mini.frame_encoder, num_threads)(frames)
    assert features.dtype == torch.float32
    assert F.cosine_similarity(features, expected, dim=2).min() >= 0.9999
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3)


@needs_openvino
def test_openvino_features_do_not_depend_on_the_batch_by_a_single_bit(mini, frames):
    runtime = OpenVinoRuntime(mini.frame_encoder, 2)
    together = runtime(frames.repeat(4, 1, 1, 1))
    assert torch.equal(together[5:10], runtime(frames))
    assert torch.equal(together[2:3], runtime(frames[2:3]))


@needs_openvino
def test_auto_is_openvino_for_efficientnet_and_pytorch_for_the_rest(mini, tiny):
    assert make_runtime(mini.frame_encoder, "auto", CPU, 1).name == "openvino"
    assert isinstance(make_runtime(copy.deepcopy(mini.frame_encoder), "auto", torch.device("cuda"), 1), GpuRuntime)
    assert make_runtime(tiny.frame_encoder, "auto", CPU, 1).name == "torch"


def test_auto_falls_back_when_openvino_is_not_installed(mini, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert make_runtime(mini.frame_encoder, "auto", CPU).name == "torch"
    with pytest.raises(ModelError, match="is not installed"):
        make_runtime(mini.frame_encoder, "openvino", CPU)


def test_openvino_is_refused_where_it_cannot_run(mini, tiny):
    with pytest.raises(ModelError, match="runs on the CPU only, got the device 'cuda'"):
        make_runtime(mini.frame_encoder, "openvino", torch.device("cuda"))
    with pytest.raises(ModelError, match="cannot run the backbone 'tiny'"):
        make_runtime(tiny.frame_encoder, "openvino", CPU)


def test_unknown_runtime_lists_the_runtimes(tiny):
    with pytest.raises(ModelError, match="must be one of auto, torch, compiled, openvino, got 'onnx'"):
        make_runtime(tiny.frame_encoder, "onnx", CPU)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return lambda: list(cached_path("any").parent.glob("openvino-*"))


@needs_openvino
def test_openvino_network_is_compiled_once_and_read_from_the_cache_then(mini, frames, own_cache, monkeypatch):
    first = OpenVinoRuntime(mini.frame_encoder, 1)(frames)
    assert len(own_cache()) == 1
    monkeypatch.setattr(runtime, "build_openvino_graph", None)
    assert torch.equal(OpenVinoRuntime(mini.frame_encoder, 1)(frames), first)


@needs_openvino
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-9] + bytes(9)])
def test_damaged_file_in_the_cache_is_made_anew(mini, frames, own_cache, damage, monkeypatch):
    expected = OpenVinoRuntime(mini.frame_encoder, 1)(frames)
    (path,) = own_cache()
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(OpenVinoRuntime(mini.frame_encoder, 1)(frames), expected)
    monkeypatch.setattr(runtime, "build_openvino_graph", None)  # whoever comes next finds a whole one
    assert torch.equal(OpenVinoRuntime(mini.frame_encoder, 1)(frames), expected)


@needs_openvino
def test_other_weights_are_compiled_anew_and_a_read_only_cache_is_no_error(mini, frames, own_cache, monkeypatch):
    OpenVinoRuntime(mini.frame_encoder, 1)
    other = copy.deepcopy(mini.frame_encoder)
    with torch.no_grad():
        other.stem[0].weight *= 2
    assert not torch.equal(OpenVinoRuntime(other, 1)(frames), OpenVinoRuntime(mini.frame_encoder, 1)(frames))
    assert len(own_cache()) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    OpenVinoRuntime(mini.frame_encoder, 1)


def test_bfloat16_with_the_channels_last_gives_nearly_pytorchs_features(mini, frames):
    """What runs on a GPU, here on the CPU. Of the plain frames, near zero in most channels, less is asked."""
    encoder = copy.deepcopy(mini.frame_encoder)
    features = GpuRuntime(encoder)(frames)
    expected = TorchRuntime(mini.frame_encoder)(frames)
    assert (features.dtype, features.shape) == (torch.float32, expected.shape)
    similarity = F.cosine_similarity(features, expected, dim=2)
    assert similarity[:3].min() >= 0.998
    assert similarity.min() >= 0.99
    assert not torch.equal(features, expected)


def test_networks_calibrated_for_integers_are_not_run_in_bfloat16(mini, frames):
    encoder = copy.deepcopy(mini.frame_encoder)
    encoder.blocks[3].depthwise[0].input_range = torch.tensor([0.0, 6.0])
    expected = TorchRuntime(encoder)(frames)
    similarity = F.cosine_similarity(GpuRuntime(encoder)(frames), expected, dim=2)
    assert similarity.min() >= 0.9999


@pytest.mark.parametrize(("compiled", "expected"), [(False, [4, 4, 2]), (True, [4, 4, 4])])
def test_a_gpu_is_given_batches_of_few_sizes(tiny, monkeypatch, compiled, expected):
    monkeypatch.setattr(runtime, "GPU_BATCH_SIZES", (2, 4))
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: module)
    sizes = []
    encoder = copy.deepcopy(tiny.frame_encoder)
    encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    side = encoder.config.frame_size_px
    frames = torch.randint(0, 256, (9, side, side, 3), dtype=torch.uint8)
    features = GpuRuntime(encoder, compiled=compiled)(frames)
    assert sizes == expected
    similarity = F.cosine_similarity(features, TorchRuntime(tiny.frame_encoder)(frames), dim=2)
    assert similarity.min() >= 0.999


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch.compile itself uses what torch deprecates
@pytest.mark.parametrize("kind", ["torch", "compiled"])
def test_gpu_gives_nearly_the_features_of_the_cpu(mini, frames, kind):
    device = torch.device("cuda")
    encoder = copy.deepcopy(mini.frame_encoder).to(device)
    features = make_runtime(encoder, kind, device)(frames).cpu()
    assert F.cosine_similarity(features, TorchRuntime(mini.frame_encoder)(frames), dim=2)[:3].min() >= 0.998


def test_compiled_runtime_is_refused_on_the_cpu(tiny):
    with pytest.raises(ModelError, match="the runtime compiled runs on a GPU only, got the device 'cpu'"):
        make_runtime(tiny.frame_encoder, "compiled", CPU)
