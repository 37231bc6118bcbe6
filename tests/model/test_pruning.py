import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model import ModelError, load_model, model_fingerprint
from model.checkpoint import save_checkpoint
from model.config import TransformerConfig
from model.pruning import Moments, NeuronStatistics, neurons, pruned_layer, pruned_model
from model.transformer import FeedForward
from model.weights import base_checksums

TEXTS = [
    f"{who} {what}" for who in ("a dog", "a cat", "two men", "a girl") for what in ("runs", "sits", "eats", "plays")
]


@pytest.fixture
def layer():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FeedForward(TransformerConfig(num_layers=1, width=6, num_heads=1, ffn_width=5)).requires_grad_(False)


@pytest.fixture
def states():
    return torch.randn(20, 10, 6, generator=torch.Generator().manual_seed(1))


def statistics_of(layer, states):
    statistics = NeuronStatistics(layer.inner.out_features)
    statistics.add(neurons(layer, states))
    return statistics


def test_statistics_are_numpys_over_the_real_tokens(layer, states):
    mask = torch.arange(10) < torch.arange(1, 21)[:, None].clamp(max=10)
    statistics = NeuronStatistics(5)
    statistics.mask = mask

    statistics.add(neurons(layer, states))

    rows = neurons(layer, states)[mask].double().numpy()
    assert statistics.count == len(rows)
    np.testing.assert_allclose(statistics.mean(), rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(statistics.covariance(), np.cov(rows.T, bias=True), rtol=1e-4, atol=1e-6)


def test_neuron_that_says_what_another_says_goes_without_a_loss(layer, states):
    layer.inner.weight[4], layer.inner.bias[4] = layer.inner.weight[1], layer.inner.bias[1]
    layer.outer.weight[:, 4] *= 0.1

    pruned = pruned_layer(layer, 4, statistics_of(layer, states))

    torch.testing.assert_close(pruned(states), layer(states), rtol=0, atol=1e-3)
    by_size = pruned_layer(layer, 4, None)
    assert (by_size(states) - layer(states)).abs().max() > 1e-2


def test_neuron_that_never_changes_goes_into_the_bias(layer, states):
    layer.inner.weight[2], layer.inner.bias[2] = 0, 3
    layer.outer.weight[:, 2] = 10

    pruned = pruned_layer(layer, 4, statistics_of(layer, states))

    torch.testing.assert_close(pruned(states), layer(states), rtol=0, atol=1e-3)


def test_fit_is_least_squares(layer, states):
    pruned = pruned_layer(layer, 3, statistics_of(layer, states))

    kept = [next(i for i in range(5) if torch.equal(layer.inner.weight[i], row)) for row in pruned.inner.weight]
    rows = neurons(layer, states).flatten(0, 1).double().numpy()
    inputs = np.hstack([rows[:, kept], np.ones((len(rows), 1))])
    best, *_ = np.linalg.lstsq(inputs, layer(states).flatten(0, 1).double().numpy(), rcond=None)
    pruned = pruned.requires_grad_(False)
    error = np.linalg.norm(pruned(states).flatten(0, 1).numpy() - layer(states).flatten(0, 1).numpy())
    least = np.linalg.norm(inputs @ best - layer(states).flatten(0, 1).numpy())
    assert error <= least * 1.01


def test_pruned_model_is_narrower_in_every_layer_and_loads(tiny, tmp_path):
    model, path = pruned_model(tiny, ("text", "fusion"), 0.25, TEXTS), tmp_path / "pruned.safetensors"
    save_checkpoint(model, model.config, base_checksums(model.config), path)
    loaded = load_model(str(path))

    assert loaded.config.text.transformer.ffn_width == loaded.config.fusion.transformer.ffn_width == 48
    assert loaded.text_encoder.stack.blocks[0].feed_forward.inner.weight.shape == (48, 32)
    assert loaded.fusion.stack.blocks[0].feed_forward.outer.weight.shape == (32, 48)
    torch.testing.assert_close(loaded.encode_text(TEXTS), model.encode_text(TEXTS), rtol=0, atol=2e-3)
    assert F.cosine_similarity(loaded.encode_text(TEXTS), tiny.encode_text(TEXTS)).min() > 0.99
    assert loaded.fingerprint == model_fingerprint(str(path)) != tiny.fingerprint


def test_pruning_nothing_changes_nothing(tiny):
    model = pruned_model(tiny, ("text",), 0.0, TEXTS)

    torch.testing.assert_close(model.encode_text(TEXTS), tiny.encode_text(TEXTS), rtol=0, atol=1e-4)


def test_fusion_is_fitted_to_moments(tiny):
    with torch.no_grad():
        tiny.gate.fill_(1.0)
    generator = torch.Generator().manual_seed(0)
    features, mask = torch.rand(16, 3, 1, 32, generator=generator), torch.ones(16, 3, dtype=torch.bool)
    moments = Moments(features, mask, torch.arange(3.0).expand(16, 3), TEXTS)

    def error(model):
        return (model.encode_video(*moments) - tiny.encode_video(*moments)).norm()

    fitted = error(pruned_model(tiny, ("fusion",), 0.5, TEXTS, moments))
    assert 0 < fitted < 0.5 * error(pruned_model(tiny, ("fusion",), 0.5, TEXTS))


@pytest.mark.parametrize(
    ("parts", "amount", "texts", "message"),
    [
        (("text",), 0.96, TEXTS, "between 0 and 0.95, got 0.96"),
        (("text",), float("nan"), TEXTS, "got nan"),
        (("frames",), 0.1, TEXTS, "text, fusion, got 'frames'"),
        (("text",), 0.1, TEXTS[:3], "at least 16 texts"),
    ],
)
def test_pruning_refuses_what_it_cannot_do(tiny, parts, amount, texts, message):
    with pytest.raises(ModelError, match=message):
        pruned_model(tiny, parts, amount, texts)
