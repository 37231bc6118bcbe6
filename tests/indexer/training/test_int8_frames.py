"""Training on a model whose frame encoder computes in 8-bit integers."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from indexer.training.captions import caption_config, trainable_model
from model import load_model, model_fingerprint
from model.checkpoint import save_checkpoint
from model.facts import frames_fingerprint
from model.weights import base_checksums, load_videobert


def test_model_trained_on_it_keeps_its_frame_encoder_and_brings_none(tmp_path):
    path, int8 = tmp_path / "mine.safetensors", load_videobert("mini-int8", runtime="torch", for_training=True)
    model = trainable_model(int8)
    with torch.no_grad():
        model.gate.mul_(0.5)
    save_checkpoint(model, caption_config(int8.config), base_checksums(int8.config), path)
    loaded = load_model(str(path), runtime="torch")

    assert not any(name.startswith("frame_encoder.") for name in load_file(path))
    assert frames_fingerprint(str(path)) == frames_fingerprint("mini-int8")  # so `refresh` works between the two
    assert model_fingerprint(str(path)) != model_fingerprint("mini-int8")
    own = int8.frame_encoder.state_dict()
    assert all(torch.equal(values, own[name]) for name, values in loaded.frame_encoder.state_dict().items())
    assert loaded.gate == int8.gate / 2
