"""The Transformer against PyTorch's own attention and encoder layer, in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from model.config import TransformerConfig
from model.errors import ModelError
from model.transformer import SelfAttention, TransformerBlock, TransformerStack, sinusoidal_encoding

CONFIG = TransformerConfig(num_layers=2, width=24, num_heads=4, ffn_width=48, layer_norm_eps=1e-5)


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _padded_batch() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[True] * 5, [True, True, False, False, False], [True] * 3 + [False] * 2])
    return torch.randn(3, 5, CONFIG.width), mask


def _copy_attention(ours: SelfAttention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())


@pytest.mark.parametrize("need_weights", [False, True])
def test_attention_equals_pytorchs_when_some_tokens_are_padding(need_weights):
    ours, theirs = SelfAttention(CONFIG), nn.MultiheadAttention(CONFIG.width, CONFIG.num_heads, batch_first=True)
    _copy_attention(ours, theirs)
    states, mask = _padded_batch()
    expected, expected_weights = theirs(states, states, states, key_padding_mask=~mask, average_attn_weights=False)
    mixed, weights = ours(states, mask, need_weights)
    torch.testing.assert_close(mixed, expected)
    if need_weights:
        torch.testing.assert_close(weights, expected_weights)
    else:
        assert weights is None


def _pytorchs(ours: TransformerBlock, config: TransformerConfig) -> nn.TransformerEncoderLayer:
    """PyTorch's layer with our weights, whose scales and shifts are made to differ so that none can be mixed up."""
    theirs = nn.TransformerEncoderLayer(
        config.width, config.num_heads, config.ffn_width, 0.0, "gelu", batch_first=True, norm_first=config.pre_norm
    ).train()  # in evaluation mode it takes a fused path; dropout is 0 anyway
    for norm in (ours.attention_norm, ours.feed_forward_norm):
        nn.init.normal_(norm.weight, mean=1.0)
        nn.init.normal_(norm.bias)
    _copy_attention(ours.attention, theirs.self_attn)
    theirs.linear1.load_state_dict(ours.feed_forward.inner.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.outer.state_dict())
    theirs.norm1.load_state_dict(ours.attention_norm.state_dict())
    theirs.norm2.load_state_dict(ours.feed_forward_norm.state_dict())
    return theirs


@pytest.mark.parametrize("pre_norm", [False, True])
def test_block_equals_pytorchs_encoder_layer(pre_norm):
    config = replace(CONFIG, pre_norm=pre_norm)
    ours = TransformerBlock(config).eval()
    theirs = _pytorchs(ours, config)
    states, mask = _padded_batch()
    expected = theirs(states, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(states, mask)[0], expected)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_stack_equals_pytorchs_encoder_in_states_and_gradients(pre_norm):
    config = replace(CONFIG, pre_norm=pre_norm)
    ours = TransformerStack(config).eval()
    layers = nn.ModuleList(_pytorchs(block, config) for block in ours.blocks)
    final_norm = nn.LayerNorm(config.width) if pre_norm else nn.Identity()  # none after the last post-norm block
    states, mask = _padded_batch()
    inputs = [states.clone().requires_grad_() for _ in range(2)]
    expected = inputs[0]
    for layer in layers:
        expected = layer(expected, src_key_padding_mask=~mask)
    expected, (found, _) = final_norm(expected), ours(inputs[1], mask)
    torch.testing.assert_close(found[mask], expected[mask])
    weighting = torch.randn(found[mask].shape)
    (expected[mask] * weighting).sum().backward()
    (found[mask] * weighting).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    for block, layer in zip(ours.blocks, layers, strict=True):
        torch.testing.assert_close(block.feed_forward.inner.weight.grad, layer.linear1.weight.grad)
        in_proj = torch.cat(
            [part.weight.grad for part in (block.attention.query, block.attention.key, block.attention.value)]
        )
        torch.testing.assert_close(in_proj, layer.self_attn.in_proj_weight.grad)


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_acts_in_training_only(need_weights):
    stack = TransformerStack(replace(CONFIG, dropout=0.3))
    states, mask = _padded_batch()
    first, second = (stack.train()(states, mask, need_weights)[0] for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (stack.eval()(states, mask, need_weights)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_stack_gives_each_item_of_a_padded_batch_what_it_gives_it_alone(pre_norm):
    stack = TransformerStack(replace(CONFIG, pre_norm=pre_norm)).eval()
    states, mask = _padded_batch()
    together, _ = stack(states, mask)
    for item, length in enumerate(mask.sum(dim=1).tolist()):
        alone, _ = stack(states[item : item + 1, :length])
        torch.testing.assert_close(together[item, :length], alone[0], rtol=1e-12, atol=1e-12)


def test_stack_returns_attention_of_every_layer_that_ignores_padding():
    stack = TransformerStack(CONFIG).eval()
    states, mask = _padded_batch()
    plain, nothing = stack(states, mask)
    explained, attention = stack(states, mask, need_weights=True)
    torch.testing.assert_close(explained, plain)
    assert nothing == []
    assert [tuple(weights.shape) for weights in attention] == [(3, 4, 5, 5)] * 2
    for weights in attention:
        torch.testing.assert_close(weights.sum(dim=3), torch.ones(3, 4, 5))
        assert weights[1, :, :, 2:].abs().max() == 0


def test_sinusoidal_encoding_follows_the_papers_formula():
    encoding = sinusoidal_encoding(torch.tensor([0.0, 2.5]), width=6)
    for i in range(3):
        angle = 2.5 / 10_000 ** (2 * i / 6)
        assert encoding[1, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert encoding[1, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert encoding[0].tolist() == [0, 1] * 3


def test_config_refuses_a_width_that_heads_cannot_share():
    with pytest.raises(ModelError, match="width must be a multiple of num_heads, got 24 and 5"):
        replace(CONFIG, num_heads=5)
