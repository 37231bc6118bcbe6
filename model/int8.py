"""Weights as 8-bit integers with one scale a row, in files and in the layers that compute with them.

Shapes: N rows, K numbers a row; weights of more dimensions are rows along their first. A row is `codes * scale`, the
codes -127 to 127, so quantising what was quantised once gives the same codes again.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018, symmetric and per output channel; Yao et al., "ZeroQuant", 2022, for activations: one scale a token, so that what
becomes of a text does not depend on its company.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import VideoBertConfig
from model.frame_encoder import EfficientNetLite0, SameConv2d
from model.transformer import TransformerStack

PART_PREFIXES = {"frames": "frame_encoder.", "fusion": "fusion.", "text": "text_encoder."}
_FULL_PRECISION = ("frame_encoder.stem.",)  # pixels come in here, and it is 0.02 % of the weights
_MAX_CODE = 127


def is_stored_as_int8(name: str, weight: Tensor, config: VideoBertConfig) -> bool:
    """Whether a checkpoint with these settings holds the weight of that name as int8: matrices of quantised parts."""
    prefixes = tuple(PART_PREFIXES[part] for part in config.quantized)
    return weight.ndim >= 2 and name.startswith(prefixes) and not name.startswith(_FULL_PRECISION)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Float [N, ...] -> codes int8 [N, ...] and scales float32 [N]; the error is at most half a scale."""
    rows = weight.detach().float().flatten(1)
    scales = rows.abs().amax(dim=1) / _MAX_CODE
    divisors = torch.where(scales > 0, scales, 1.0)[:, None]  # rows of zeros stay so
    return (rows / divisors).round().to(torch.int8).view(weight.shape), scales


def dequantize_rows(codes: Tensor, scales: Tensor) -> Tensor:
    """The inverse of `quantize_rows`: int8 [N, ...] and float [N] -> float32 [N, ...]."""
    return (codes.flatten(1).float() * scales.float()[:, None]).view(codes.shape)


class Int8Linear(nn.Module):
    """A linear layer that multiplies 8-bit integers: about twice as fast on CPUs. For inference only.

    Each token is rounded to codes by its own largest number. On other devices the same numbers are multiplied as
    floats.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        codes, scales = quantize_rows(layer.weight)
        self.register_buffer("codes", codes.t())  # [K, N], a view: the product wants the columns side by side
        self.register_buffer("scales", scales)
        self.bias = layer.bias

    def forward(self, states: Tensor) -> Tensor:
        """Float [..., K] -> float [..., N]."""
        tokens = states.reshape(-1, states.shape[-1])
        scales = tokens.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / _MAX_CODE
        codes = (tokens / scales).round()
        if states.device.type == "cpu":
            products = torch._int_mm(codes.to(torch.int8), self.codes).float()
        else:
            products = codes @ self.codes.to(codes.dtype)
        out = torch.addcmul(self.bias, products * scales, self.scales)
        return out.view(*states.shape[:-1], -1)


def compute_in_int8(stack: TransformerStack) -> None:
    """Replaces the linear layers by such of int8, made from their weights as they are."""
    for module in list(stack.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))


def quantized_convolutions(encoder: EfficientNetLite0) -> dict[str, SameConv2d]:
    """Those that compute in int8, by name: all but the first."""
    convolutions = {name: module for name, module in encoder.named_modules() if isinstance(module, SameConv2d)}
    return {name: module for name, module in convolutions.items() if module is not encoder.stem[0]}


def add_input_ranges(encoder: EfficientNetLite0) -> None:
    """Gives each of them a range for its input, to be filled from a checkpoint or by calibration."""
    for convolution in quantized_convolutions(encoder).values():
        convolution.input_range = torch.tensor([0.0, 6.0])  # of ReLU6
