"""Strings to token states and sentence embeddings: a BERT encoder with mean pooling.

Shapes: N texts, L tokens, W = width (384 for `mini`).

Source: Devlin et al., "BERT", 2019; Reimers and Gurevych, "Sentence-BERT", 2019, for the pooling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import TextEncoderConfig
from model.errors import InputError, WeightsDamagedError
from model.tokenizer import Tokenizer
from model.transformer import TransformerStack

_TEXTS_PER_BATCH = 64


class TokenStates(NamedTuple):
    """What BERT makes of a batch of texts.

    Attributes:
        states: float32 [N, L, W]; zero where there is no token.
        mask: bool [N, L], True where there is a token.
    """

    states: Tensor
    mask: Tensor


class TextEncoder(nn.Module):
    """BERT and its tokeniser. `encode` is the text side of the joint space: a learned projection would live here."""

    def __init__(self, config: TextEncoderConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        width = config.transformer.width
        self.config = config
        self.tokenizer = tokenizer
        self.word_embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Embedding(config.num_positions, width)
        self.segment_embedding = nn.Embedding(2, width)  # "token type"; we only use the first
        self.embedding_norm = nn.LayerNorm(width, eps=config.transformer.layer_norm_eps)
        self.stack = TransformerStack(config.transformer)

    @property
    def device(self) -> torch.device:
        return self.word_embedding.weight.device

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids int64 [N, L] and mask bool [N, L] -> states float [N, L, W]; those of padding mean nothing."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)
        states = self.word_embedding(token_ids) + self.position_embedding(positions) + self.segment_embedding.weight[0]
        states, _ = self.stack(self.embedding_norm(states), mask)
        return states

    def token_states(self, texts: Sequence[str]) -> TokenStates:
        """The states of every token of every text, in one batch padded to the longest. Keeps gradients."""
        return self._states_of(self.tokenizer.encode_batch(list(texts)))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts in the joint space.

        Args:
            texts: any number of strings of any length; what is beyond `config.max_tokens` tokens is not read.

        Returns:
            float32 [N, W] of length 1 each, in the order given, on the encoder's device. Independent of the
            company a text is in, up to rounding (1e-6).

        Raises:
            InputError: `texts` is one string, or holds something else than strings.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"texts must be a sequence of strings, got {texts!r:.80}")
        token_ids = self.tokenizer.encode_batch(list(texts))
        by_length = sorted(range(len(token_ids)), key=lambda i: len(token_ids[i]))  # little padding in each batch
        embeddings = torch.empty(len(texts), self.config.transformer.width, device=self.device)
        for start in range(0, len(by_length), _TEXTS_PER_BATCH):
            batch = by_length[start : start + _TEXTS_PER_BATCH]
            with torch.inference_mode():
                pooled = mean_pool(self._states_of([token_ids[i] for i in batch]))
            embeddings[batch] = pooled
        return embeddings

    def _states_of(self, token_ids: list[list[int]]) -> TokenStates:
        lengths = torch.tensor([len(ids) for ids in token_ids])
        length = max((len(ids) for ids in token_ids), default=1)
        mask = torch.arange(length) < lengths[:, None]  # [N, L]
        padded = torch.zeros(len(token_ids), length, dtype=torch.int64)
        padded[mask] = torch.tensor([token for ids in token_ids for token in ids], dtype=torch.int64)
        mask = mask.to(self.device)
        states = self(padded.to(self.device), mask)
        return TokenStates(states.masked_fill(~mask[:, :, None], 0.0), mask)


def mean_pool(tokens: TokenStates) -> Tensor:
    """Mean of the real tokens' states, scaled to length 1: [N, L, W] -> [N, W]."""
    return F.normalize(tokens.states.sum(dim=1) / tokens.mask.sum(dim=1, keepdim=True), dim=1)


def load_bert_weights(encoder: TextEncoder, tensors: Mapping[str, Tensor]) -> None:
    """Copy the weights of a Hugging Face `BertModel` state dict into `encoder`; the pooler is not used.

    Raises:
        WeightsDamagedError: a tensor is missing or has another shape.
    """
    try:
        encoder.load_state_dict({name: tensors[_bert_name(name)] for name in encoder.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise WeightsDamagedError(f"these are not the weights of the BERT encoder asked for: {error}") from error


_BERT_NAMES = {
    "word_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "segment_embedding": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward.inner": "intermediate.dense",
    "feed_forward.outer": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


def _bert_name(name: str) -> str:
    """BERT's name of our parameter: stack.blocks.0.attention.key.bias -> encoder.layer.0.attention.self.key.bias."""
    module, _, parameter = name.rpartition(".")
    if not module.startswith("stack.blocks."):
        return f"{_BERT_NAMES[module]}.{parameter}"
    layer, _, part = module.removeprefix("stack.blocks.").partition(".")
    return f"encoder.layer.{layer}.{_BERT_NAMES[part]}.{parameter}"
