"""A CNN or ViT of timm as frame encoder: its pooled features, and its ImageNet classifier where it has one.

Shapes: N frames, S = frame side in pixels, D numbers per frame, C classes (1,000, or 0 without a classifier).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.config import FrameEncoderConfig
from model.errors import ModelError, WeightsDamagedError
from model.hub import weights_files
from model.timm_files import TimmSettings, read_timm_settings


class TimmFrameEncoder(nn.Module):
    """The same surface as `EfficientNetLite0`."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: FrameEncoderConfig, network: Any, settings: TimmSettings) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.register_buffer("mean", torch.tensor(settings.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(settings.std)[:, None, None], persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames uint8 [N, S, S, 3] in RGB -> features float32 [N, 1, D]."""
        pixels = (frames.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        pooled = self.network.forward_head(self.network.forward_features(pixels), pre_logits=True)
        return pooled.flatten(1)[:, None, :]

    def logits(self, features: Tensor) -> Tensor:
        """Scores of the classes, from features alone: float [..., 1, D] -> [..., C]; C may be 0."""
        if not self.config.num_classes:
            return features[..., 0, :0]
        scores: Tensor = self.network.get_classifier()(features[..., 0, :])
        return scores


def load_timm_encoder(config: FrameEncoderConfig, folder: Path) -> TimmFrameEncoder:
    """The encoder with the weights in `folder`, on the CPU.

    Raises:
        ModelError: timm cannot be imported.
        WeightsDamagedError: the weights are not those of the architecture that config.json names.
    """
    from safetensors.torch import load_file

    settings = read_timm_settings(folder)
    create_model = _import_timm()
    tensors = {name: tensor for file in weights_files(folder) for name, tensor in load_file(file).items()}
    try:
        network = _unfilled(partial(create_model, settings.architecture, pretrained=False, **settings.arguments))
        network.load_state_dict(tensors, assign=True)
    except (RuntimeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise WeightsDamagedError(f"{folder} holds no weights of timm's {settings.architecture!r}: {text}") from error
    return TimmFrameEncoder(config, network.float().eval(), settings)  # some files hold float16


def _unfilled(make: Callable[[], Any]) -> Any:
    """The network without numbers, as inventing a thousand million that are replaced at once takes 20 s.

    Where it holds some that no file has, such as tables of positions, it is made whole.
    """
    with torch.device("meta"):
        network = make()
    if {name for name, _ in network.named_buffers()} <= network.state_dict().keys():
        return network
    return make()


def _import_timm() -> Any:
    try:
        from timm import create_model
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise ModelError(
            f"timm cannot be imported ({' '.join(str(error).split())[:120]}): torchvision must be of the same build as "
            f"torch {torch.__version__}; install both from one index"
        ) from error
    return create_model
