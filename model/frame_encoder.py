"""Pixels to frame features and class probabilities: EfficientNet-Lite0, and a tiny stand-in for tests.

Networks of timm are in `model.timm_encoder`.

Shapes: N frames, S = frame side in pixels, K tokens per frame, D numbers per token, C classes.
Frames are uint8 [N, S, S, 3], RGB, and normalised inside, so that one graph holds everything from pixels to features.

Source: Tan and Le, "EfficientNet", 2019; the Lite variant (no squeeze-and-excitation, ReLU6, stem and head not
scaled) as released with TensorFlow's TPU models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import FrameEncoderConfig
from model.errors import WeightsDamagedError
from model.timm_encoder import TimmFrameEncoder

# (repeats, kernel, stride of the first, expansion, channels out), EfficientNet paper, table 1.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_BATCH_NORM_EPS = 1e-3  # TensorFlow's


class SameConv2d(nn.Conv2d):
    """Convolution without bias, padded as TensorFlow's "SAME": where the padding is odd, right and bottom get more.

    The weights were trained so. PyTorch's symmetric padding shifts every strided layer by a pixel.

    Attributes:
        input_range: float [2], lowest and highest number that the input is rounded to, in 255 steps; None: it is not.
    """

    input_range: Tensor | None

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)
        self.register_buffer("input_range", None)

    def forward(self, input: Tensor) -> Tensor:
        """[N, Cin, H, W] -> [N, Cout, H / stride, W / stride]; H and W must be multiples of the stride."""
        # ceil(n / s) outputs need (ceil(n / s) - 1) * s + k - n more pixels, which is k - s where s divides n.
        if self.input_range is not None:
            input = _rounded(input, *self.input_range)
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        if before == after:
            return F.conv2d(input, self.weight, None, self.stride, before, self.dilation, self.groups)
        return super().forward(F.pad(input, (before, after, before, after)))


def _rounded(states: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Each number to the nearest of 256 from `low` to `high`: what 8-bit integers can hold."""
    step = (high - low) / 255
    return ((states.clamp(low, high) - low) / step).round() * step + low


def _conv_norm(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = SameConv2d(channels_in, channels_out, kernel, stride, groups)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out, eps=_BATCH_NORM_EPS))


class InvertedResidual(nn.Module):
    """Expand (1 x 1), filter each channel (k x k), project (1 x 1); plus the input where the shapes agree.

    Source: Sandler et al., "MobileNetV2", 2018.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.expand = _conv_norm(channels_in, inner, 1) if expansion > 1 else None
        self.depthwise = _conv_norm(inner, inner, kernel, stride, groups=inner)
        self.project = _conv_norm(inner, channels_out, 1)
        self.has_shortcut = stride == 1 and channels_in == channels_out

    def forward(self, states: Tensor) -> Tensor:
        """[N, Cin, H, W] -> [N, Cout, H / stride, W / stride]."""
        inner = states if self.expand is None else F.relu6(self.expand(states))
        out = self.project(F.relu6(self.depthwise(inner)))
        return states + out if self.has_shortcut else out


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to its pooled features, and its classifier of 1,000 ImageNet classes."""

    def __init__(self, config: FrameEncoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = 32
        self.stem = _conv_norm(3, channels, 3, 2)
        blocks = []
        for repeats, kernel, stride, expansion, channels_out in _STAGES:
            for repeat in range(repeats):
                blocks.append(InvertedResidual(channels, channels_out, kernel, 1 if repeat else stride, expansion))
                channels = channels_out
        self.blocks = nn.Sequential(*blocks)
        self.head = _conv_norm(channels, config.feature_dim, 1)
        self.classifier = nn.Linear(config.feature_dim, config.num_classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames uint8 [N, S, S, 3] in RGB -> features float32 [N, 1, D], each number 0 to 6."""
        pixels = (frames.permute(0, 3, 1, 2).float() - 127) / 128  # [N, 3, S, S]
        states = F.relu6(self.head(self.blocks(F.relu6(self.stem(pixels)))))
        return states.mean(dim=(2, 3))[:, None, :]

    def logits(self, features: Tensor) -> Tensor:
        """Scores of the classes, from features alone: float [..., K, D] -> [..., C]."""
        scores: Tensor = self.classifier(features[..., 0, :])
        return scores


class TinyFrameEncoder(nn.Module):
    """One random convolution, and a classifier solved so that it knows plain frames of eight colours. For tests."""

    COLOURS: ClassVar[dict[str, tuple[int, int, int]]] = {
        "black": (0, 0, 0),
        "white": (255, 255, 255),
        "red": (255, 0, 0),
        "green": (0, 255, 0),
        "blue": (0, 0, 255),
        "yellow": (255, 255, 0),
        "cyan": (0, 255, 255),
        "magenta": (255, 0, 255),
    }

    def __init__(self, config: FrameEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(3, config.feature_dim, kernel_size=8, stride=8)
        self.classifier = nn.Linear(config.feature_dim, config.num_classes, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames uint8 [N, S, S, 3] in RGB -> features float32 [N, 1, D]."""
        pixels = (frames.permute(0, 3, 1, 2).float() - 127) / 128
        return F.relu(self.stem(pixels)).mean(dim=(2, 3))[:, None, :]

    def logits(self, features: Tensor) -> Tensor:
        """Scores of the classes, from features alone: float [..., K, D] -> [..., C]."""
        scores: Tensor = self.classifier(features[..., 0, :])
        return scores

    @torch.no_grad()
    def solve_classifier(self) -> None:
        """Least-norm weights that give each of the colours a logit of 10 for itself and 0 for the others."""
        side = self.config.frame_size_px
        colours = torch.tensor(list(self.COLOURS.values()), dtype=torch.uint8)
        features = self(colours[:, None, None, :].expand(-1, side, side, -1))[:, 0]  # [C, D]
        self.classifier.weight.copy_((torch.linalg.pinv(features.double()) * 10).T)


FrameEncoder = EfficientNetLite0 | TinyFrameEncoder | TimmFrameEncoder


def load_efficientnet_weights(encoder: EfficientNetLite0, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors of the released checkpoint, which come in the order of the network, into `encoder`.

    Raises:
        WeightsDamagedError: their number or a shape is another.
    """
    own = encoder.state_dict()
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if shapes != [tuple(tensor.shape) for tensor in own.values()]:
        raise WeightsDamagedError(
            f"these are not the weights of EfficientNet-Lite0: it has {len(own)} tensors of other shapes than the "
            f"{len(shapes)} found"
        )
    encoder.load_state_dict(dict(zip(own, tensors.values(), strict=True)))
