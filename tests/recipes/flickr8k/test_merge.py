"""Several trainings as one: the mean of weights, and one wide head that says the mean of several."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from model.config import preset
from model.videobert import VideoBert
from model.weights import pretrained_model
from recipes.flickr8k.merge import mean_of, merge_heads

NUM_MODELS = 3
WIDTH = 8


def _model(width: int, seed: int) -> VideoBert:
    """Random head, adapter and gate on the backbones of tests."""
    config = preset("tiny_test")
    config = replace(
        config,
        text=replace(config.text, adapter_width=width),
        fusion=replace(config.fusion, frame_head_width=width),
    )
    model = pretrained_model(config, {}).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for part in (model.fusion.frame_head, model.text_encoder.adapter):
        assert part is not None
        for weight in part.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    model.gate.fill_(0.5 + seed)
    return model.eval()


@pytest.fixture(scope="module")
def models() -> list[VideoBert]:
    return [_model(WIDTH, seed) for seed in range(NUM_MODELS)]


@pytest.fixture(scope="module")
def merged(models) -> VideoBert:
    merged = _model(WIDTH * NUM_MODELS, seed=9)
    merge_heads(models, merged)
    return merged


def test_merged_head_says_the_mean_of_what_the_heads_say_through_their_gates(models, merged):
    features, mask = torch.rand(4, 3, 1, 32), torch.ones(4, 3, dtype=torch.bool)
    expected = torch.stack([model.gate * model.fusion.of_mean_frame(features, mask) for model in models]).mean(dim=0)
    torch.testing.assert_close(merged.gate * merged.fusion.of_mean_frame(features, mask), expected, rtol=0, atol=1e-4)


def test_merged_adapter_moves_a_sentence_by_the_mean_of_the_moves(models, merged):
    sentence = F.normalize(torch.randn(4, 32), dim=1)
    adapters = [model.text_encoder.adapter for model in models]
    moves = [adapter.outer(F.gelu(adapter.inner(adapter.norm(sentence)))) for adapter in adapters]
    expected = F.normalize(sentence + torch.stack(moves).mean(dim=0), dim=1)
    torch.testing.assert_close(merged.text_encoder.adapt(sentence), expected, rtol=0, atol=1e-5)


def test_one_model_merged_is_that_model(models):
    alone = _model(WIDTH, seed=9)
    merge_heads(models[:1], alone)
    features = torch.rand(2, 1, 1, 32), torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 1)
    torch.testing.assert_close(alone.encode_video(*features), models[0].encode_video(*features), rtol=0, atol=1e-5)


def test_mean_of_states_is_taken_name_by_name_and_leaves_counters_alone():
    states = [{"weight": torch.tensor([1.0, value]), "steps": torch.tensor(7)} for value in (2.0, 4.0)]
    mean = mean_of(states)
    assert mean["weight"].tolist() == [1.0, 3.0]
    assert mean["steps"].item() == 7
