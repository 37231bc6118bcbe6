"""The tuned layers give what the CNN they belong to gives, and only the weights that are tuned get gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from model.config import preset
from model.frame_encoder import EfficientNetLite0
from model.weights import pretrained_model
from recipes.flickr8k.cache import EarlyLayers, sentence_embeddings
from recipes.flickr8k.late_layers import LateLayers

BLOCK = 13


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite0:
    encoder = pretrained_model(preset("mini"), {}).requires_grad_(False).frame_encoder
    assert isinstance(encoder, EfficientNetLite0)
    return encoder


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (3, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def states(encoder, frames) -> torch.Tensor:
    with torch.no_grad():
        before: torch.Tensor = EarlyLayers(encoder, BLOCK)(frames)
    return before


def test_early_and_late_layers_together_are_the_cnn(encoder, frames, states):
    with torch.no_grad():
        expected = encoder(frames)[:, 0]
    torch.testing.assert_close(LateLayers(encoder, BLOCK).eval()(states), expected, rtol=0, atol=1e-4)


def test_bfloat16_of_training_is_near_what_evaluation_gives(encoder, states):
    late = LateLayers(encoder, BLOCK).eval()
    exact, fast = late(states), late.train()(states)
    assert 0 < (exact - fast).abs().max() < 0.1  # features are 0 to 6
    assert F.cosine_similarity(exact, fast).min() > 0.9995


def test_gradients_reach_every_pointwise_convolution_and_no_depthwise_one(encoder, states):
    late = LateLayers(encoder, BLOCK).train().requires_grad_(True)
    late(states).square().sum().backward()
    without = {name for name, weight in late.named_parameters() if weight.grad is None}
    late.requires_grad_(False)
    assert without == {name for name, _ in late.named_parameters() if ".depthwise." in name}
    assert len(late.tuned()) == len(list(late.parameters())) - len(without)


def test_sentences_are_those_of_the_text_encoder_in_the_order_given():
    texts = ["two people sit at a table in a long and winding room", "a dog runs", "x", "hello there"]
    model = pretrained_model(preset("mini-zero"), {})
    torch.testing.assert_close(
        sentence_embeddings(model.text_encoder, texts), model.encode_text(texts), rtol=0, atol=1e-5
    )
