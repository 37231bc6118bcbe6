"""The layers of the CNN that are tuned, run from what the frozen layers before them make of each view.

Shapes: N views, A activations at each of 7 x 7 = 49 places, D numbers of a frame's features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.frame_encoder import EfficientNetLite0, InvertedResidual

_GRID = 7
_VIEWS_PER_BATCH = 128


class LateLayers(nn.Module):
    """The CNN from its block number `cut` on, sharing its weights: float [N, 49, A] -> features float32 [N, D].

    What `EfficientNetLite0` computes, but with places before channels, so that each 1 x 1 convolution with its
    normalisation is one matrix product. Depthwise filters are not tuned: they are 2 % of the weights, and their
    gradients would take half of the time. While training, matrix products are in bfloat16, three times as fast on a
    CPU that knows it.
    """

    def __init__(self, encoder: EfficientNetLite0, cut: int) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(list(encoder.blocks)[cut:]), encoder.head

    def forward(self, states: Tensor) -> Tensor:
        dtype = torch.bfloat16 if self.training else torch.float32
        states = states.to(dtype)
        for block in self.blocks:
            assert isinstance(block, InvertedResidual)
            assert block.expand is not None
            inner = F.relu6(_pointwise(block.expand, states))
            out = _pointwise(block.project, F.relu6(_depthwise(block.depthwise, inner)).to(dtype))
            states = states + out if block.has_shortcut else out
        return F.relu6(_pointwise(self.head, states)).float().mean(dim=1)

    @torch.no_grad()
    def features(self, states: Tensor) -> Tensor:
        """All features of float16 [N, 49, A], a batch at a time and without gradients: float16 [N, D]."""
        return torch.cat([self(batch).half() for batch in states.split(_VIEWS_PER_BATCH)])

    def tuned(self) -> list[nn.Parameter]:
        """The weights of all 1 x 1 convolutions and of their normalisation."""
        return [weight for name, weight in self.named_parameters() if ".depthwise." not in name]


def _pointwise(layer: nn.Sequential, states: Tensor) -> Tensor:
    """1 x 1 convolution and normalisation: [N, 49, Cin] -> [N, 49, Cout]."""
    convolution, scale, shift = _folded(layer)
    weight = convolution[:, :, 0, 0] * scale[:, None]
    return F.linear(states, weight.to(states.dtype), shift.to(states.dtype))


@torch.no_grad()
def _filters(layer: nn.Sequential) -> tuple[Tensor, Tensor]:
    convolution, scale, shift = _folded(layer)
    return (convolution * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last), shift


def _depthwise(layer: nn.Sequential, states: Tensor) -> Tensor:
    """Depthwise convolution and normalisation, whose weights get no gradient: [N, 49, C] -> float32 [N, 49, C]."""
    weight, shift = _filters(layer)
    grid = states.float().unflatten(1, (_GRID, _GRID)).permute(0, 3, 1, 2)  # [N, C, 7, 7], channels last in memory
    out = F.conv2d(grid, weight, shift, padding=weight.shape[-1] // 2, groups=len(weight))
    return out.permute(0, 2, 3, 1).flatten(1, 2)


def _folded(layer: nn.Sequential) -> tuple[Tensor, Tensor, Tensor]:
    """Of convolution and normalisation with fixed statistics: the filters, and scale and shift of each channel."""
    convolution, norm = layer
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return convolution.weight, scale, norm.bias - norm.running_mean * scale
