"""What the frozen first layers make of every view and caption, computed once and kept in half precision.

Shapes: N photographs, V views of each, A x 7 x 7 activations where the frozen part of the CNN ends, L tokens, E numbers
a token, D numbers a frame's features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import openvino as ov
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.frame_encoder import EfficientNetLite0
from model.text_encoder import TextEncoder, TokenStates
from recipes.flickr8k.data import SIDE_PX, Pixels

_TEXTS_PER_BATCH = 64
_STATES_PER_BATCH = 256
_CAPTION_MAX_TOKENS = 48


class EarlyLayers(nn.Module):
    """The CNN before its block number `cut`: uint8 [N, 224, 224, 3] -> float32 [N, A, 7, 7]."""

    def __init__(self, encoder: EfficientNetLite0, cut: int) -> None:
        super().__init__()
        self.stem, self.blocks = encoder.stem, encoder.blocks[:cut]

    def forward(self, frames: Tensor) -> Tensor:
        pixels = (frames.permute(0, 3, 1, 2).float() - 127) / 128
        states: Tensor = self.blocks(F.relu6(self.stem(pixels)))
        return states


class LateLayers(nn.Module):
    """The rest of the CNN, sharing its weights: float [N, A, 7, 7] -> features float32 [N, D]."""

    def __init__(self, encoder: EfficientNetLite0, cut: int) -> None:
        super().__init__()
        self.blocks, self.head = encoder.blocks[cut:], encoder.head

    def forward(self, states: Tensor) -> Tensor:
        return F.relu6(self.head(self.blocks(states.float()))).mean(dim=(2, 3))

    @torch.no_grad()
    def features(self, states: Tensor) -> Tensor:
        """All features of float16 [N, A, 7, 7], a batch at a time and without gradients: float16 [N, D]."""
        return torch.cat([self(batch).half() for batch in states.split(_STATES_PER_BATCH)])


def activations(encoder: EfficientNetLite0, cut: int, frames: Iterable[Pixels], num_frames: int) -> Tensor:
    """What `EarlyLayers` make of frames, one on each core at a time: float16 [N, A, 7, 7]."""
    example = torch.zeros(1, SIDE_PX, SIDE_PX, 3, dtype=torch.uint8)
    early = EarlyLayers(encoder, cut).eval()
    graph = ov.convert_model(early, example_input=example, input=list(example.shape))
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    queue = ov.AsyncInferQueue(ov.Core().compile_model(graph, "CPU", settings))
    states = torch.empty(num_frames, *early(example).shape[1:], dtype=torch.float16)
    target = states.numpy()

    def store(request: Any, position: int) -> None:
        target[position] = request.get_output_tensor().data[0]

    queue.set_callback(store)
    for position, frame in enumerate(frames):
        queue.start_async(frame[None], userdata=position)
    queue.wait_all()
    return states


class TokenCache:
    """Token states of many texts, packed without padding."""

    def __init__(self, states: Tensor, starts: Tensor) -> None:
        self._states, self._starts = states, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def batch(self, rows: Tensor) -> TokenStates:
        """The texts `rows` int64 [N], padded to the longest; a negative row gets no token."""
        known = rows.clamp(min=0)
        lengths = (self._starts[known + 1] - self._starts[known]) * (rows >= 0)
        positions = torch.arange(max(1, int(lengths.max())))
        mask = positions < lengths[:, None]
        states = torch.zeros(*mask.shape, self._states.shape[1])
        states[mask] = self._states[(self._starts[known][:, None] + positions)[mask]].float()
        return TokenStates(states, mask)

    @torch.no_grad()
    def through(self, blocks: nn.ModuleList) -> TokenCache:
        """The same texts after more blocks of the text encoder."""
        states = torch.empty_like(self._states)
        lengths = self._starts.diff()
        for rows in lengths.argsort().split(_TEXTS_PER_BATCH):
            tokens = run_blocks(self.batch(rows), blocks)
            states[self._positions(rows)] = tokens.states[tokens.mask].half()
        return TokenCache(states, self._starts)

    def _positions(self, rows: Tensor) -> Tensor:
        return torch.cat([torch.arange(int(self._starts[i]), int(self._starts[i + 1])) for i in rows.tolist()])


def run_blocks(tokens: TokenStates, blocks: nn.ModuleList) -> TokenStates:
    """More blocks of the text encoder over token states, padding kept at zero."""
    states = tokens.states
    for block in blocks:
        states, _ = block(states, tokens.mask)
    return TokenStates(states.masked_fill(~tokens.mask[:, :, None], 0.0), tokens.mask)


@torch.no_grad()
def early_token_states(encoder: TextEncoder, cut: int, texts: Sequence[str]) -> TokenCache:
    """Token states of `texts` before the block number `cut` of the text encoder."""
    ids = [tokens[:_CAPTION_MAX_TOKENS] for tokens in encoder.tokenizer.encode_batch(list(texts))]
    starts = torch.tensor([0, *(len(tokens) for tokens in ids)]).cumsum(0)
    flat = torch.tensor([token for tokens in ids for token in tokens])
    positions = torch.arange(len(flat)) - starts[:-1].repeat_interleave(starts.diff())
    states = encoder.word_embedding(flat) + encoder.position_embedding(positions) + encoder.segment_embedding.weight[0]
    return TokenCache(encoder.embedding_norm(states).half(), starts).through(encoder.stack.blocks[:cut])
