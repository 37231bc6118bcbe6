"""What the frozen layers make of every view and caption, computed once.

Shapes: N photographs or texts, A activations at each of the 49 places where the frozen part of the CNN ends, E numbers
of a sentence embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import openvino as ov
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from model.frame_encoder import EfficientNetLite0
from model.text_encoder import TextEncoder, mean_pool
from recipes.flickr8k.data import SIDE_PX, Pixels

_TEXTS_PER_BATCH = 64


class Cache:
    """Keeps tensors between runs, in files of a folder whose names begin with a hash of the data; or not at all.

    Args:
        folder: made when first needed; None keeps nothing.
        data: the file that everything is computed from.
    """

    def __init__(self, folder: Path | None, data: Path) -> None:
        self.folder = folder
        with data.open("rb") as stream:
            self._prefix = hashlib.file_digest(stream, "sha256").hexdigest()[:12]

    def remember(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives, or gave in an earlier run."""
        if self.folder is None:
            return compute()
        path = self.folder / f"{self._prefix}-{name}.safetensors"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({"states": compute()}, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)  # a run that was cut short leaves nothing that looks whole
        return load_file(path)["states"]


class EarlyLayers(nn.Module):
    """The CNN before its block number `cut`: uint8 [N, 224, 224, 3] -> float32 [N, 49, A]."""

    def __init__(self, encoder: EfficientNetLite0, cut: int) -> None:
        super().__init__()
        self.stem, self.blocks = encoder.stem, encoder.blocks[:cut]

    def forward(self, frames: Tensor) -> Tensor:
        pixels = (frames.permute(0, 3, 1, 2).float() - 127) / 128
        states: Tensor = self.blocks(F.relu6(self.stem(pixels)))
        return states.flatten(2).transpose(1, 2)


def activations(encoder: EfficientNetLite0, cut: int, frames: Iterable[Pixels], num_frames: int) -> Tensor:
    """What `EarlyLayers` make of frames, on as many threads as PyTorch uses: float16 [N, 49, A]."""
    example = torch.zeros(1, SIDE_PX, SIDE_PX, 3, dtype=torch.uint8)
    early = EarlyLayers(encoder, cut).eval()
    graph = ov.convert_model(early, example_input=example, input=list(example.shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    request = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
    states = torch.empty(num_frames, *early(example).shape[1:], dtype=torch.float16)
    for position, frame in enumerate(frames):
        states[position] = torch.from_numpy(request.infer([frame[None]])[0][0])
    return states


@torch.no_grad()
def sentence_embeddings(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    """What the pooled text encoder makes of texts, before any adapter: float32 [N, E] of length 1."""
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding in each batch
    sentences = torch.empty(len(texts), encoder.config.transformer.width)
    for start in range(0, len(texts), _TEXTS_PER_BATCH):
        rows = by_length[start : start + _TEXTS_PER_BATCH]
        sentences[rows] = mean_pool(encoder.token_states([texts[i] for i in rows]))
    return sentences
