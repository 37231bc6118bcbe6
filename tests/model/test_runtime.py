"""OpenVINO against PyTorch, frame for frame."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.errors import ModelError
from model.runtime import OpenVinoRuntime, TorchRuntime, make_runtime

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
    assert make_runtime(mini.frame_encoder, "auto", torch.device("cuda"), 1).name == "torch"
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
    with pytest.raises(ModelError, match="must be one of auto, torch, openvino, got 'onnx'"):
        make_runtime(tiny.frame_encoder, "onnx", CPU)
