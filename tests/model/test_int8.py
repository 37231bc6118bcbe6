import torch
from torch import nn

from model.int8 import Int8Linear, dequantize_rows, quantize_rows


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rows_come_back_within_half_a_scale():
    weight = random(7, 3, 5, 5)

    codes, scales = quantize_rows(weight)

    assert codes.dtype == torch.int8
    assert ((dequantize_rows(codes, scales) - weight).abs().flatten(1).amax(dim=1) <= scales / 2 * 1.001).all()


def test_quantising_again_gives_the_same_codes():
    codes, scales = quantize_rows(random(50, 200))

    assert torch.equal(quantize_rows(dequantize_rows(codes, scales))[0], codes)


def test_rows_of_zeros_stay_zeros():
    assert torch.equal(dequantize_rows(*quantize_rows(torch.zeros(2, 4))), torch.zeros(2, 4))


def test_int8_linear_multiplies_the_codes_of_tokens_and_weights():
    layer, states = nn.Linear(48, 20), random(3, 5, 48)
    codes, scales = quantize_rows(layer.weight)
    tokens, token_scales = quantize_rows(states.flatten(0, 1))
    products = tokens.double() @ codes.double().T
    expected = products * token_scales[:, None] * scales + layer.bias

    out = Int8Linear(layer)(states)

    torch.testing.assert_close(out.flatten(0, 1).double(), expected, rtol=1e-5, atol=1e-5)
    assert (out - layer(states)).abs().max() < 0.05


def test_int8_linear_gives_a_token_the_same_whatever_its_company():
    layer, states = Int8Linear(nn.Linear(48, 20)), random(6, 4, 48)
    states[1:] *= 100

    assert torch.equal(layer(states)[0], layer(states[:1])[0])


def test_int8_linear_of_zeros_is_the_bias():
    layer = nn.Linear(16, 8)

    assert torch.equal(Int8Linear(layer)(torch.zeros(1, 16))[0], layer.bias)
