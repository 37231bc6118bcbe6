"""Strings to token states and sentence embeddings: a BERT encoder with mean pooling.

Shapes: N texts, L tokens, W = width (384 for `mini`).

Source: Devlin et al., "BERT", 2019; Reimers and Gurevych, "Sentence-BERT", 2019, for the pooling.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import TextEncoderConfig
from model.errors import WeightsDamagedError
from model.inputs import check_strings
from model.tokenizer import Tokenizer
from model.transformer import TransformerStack

_INIT_STD = 0.02  # BERT's
_TEXTS_PER_BATCH = 64
# Up to so many tokens, padding included, one thread is as fast as several, and several wait for each other on a busy
# machine: docs/design/serve.md.
_TOKENS_FOR_ONE_THREAD = 512


class TokenStates(NamedTuple):
    """What BERT makes of a batch of texts.

    Attributes:
        states: float32 [N, L, W]; zero where there is no token.
        mask: bool [N, L], True where there is a token.
    """

    states: Tensor
    mask: Tensor


class QueryAdapter(nn.Module):
    """Moves sentence embeddings towards what videos look like: normalise(e + MLP(e)).

    Has no meaningful weights before `initialise`, after which the MLP is zero, or a checkpoint.
    """

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)  # numbers of a vector of length 1 are small
        self.inner = nn.Linear(width, inner_width)
        self.outer = nn.Linear(inner_width, width)

    def initialise(self) -> None:
        """Fresh weights, the same every time, that change nothing yet."""
        fresh = torch.randn(self.inner.weight.shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
        with torch.no_grad():
            self.inner.weight.copy_(fresh * _INIT_STD)
        nn.init.ones_(self.norm.weight)
        for zero in (self.norm.bias, self.inner.bias, self.outer.weight, self.outer.bias):
            nn.init.zeros_(zero)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Float [N, W] of length 1 -> [N, W] of length 1; zeros stay zeros."""
        moved = F.normalize(embeddings + self.outer(F.gelu(self.inner(self.norm(embeddings)))), dim=1)
        return moved.masked_fill((embeddings == 0).all(dim=1, keepdim=True), 0.0)


class TextEncoder(nn.Module):
    """BERT, its tokeniser, and the adapter of its sentence embeddings to the joint space, where there is one."""

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
        self.adapter = QueryAdapter(width, config.adapter_width) if config.adapter_width else None

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
        token_ids = self.tokenizer.encode_batch(check_strings(texts))
        by_length = sorted(range(len(token_ids)), key=lambda i: len(token_ids[i]))  # little padding in each batch
        embeddings = torch.empty(len(texts), self.config.transformer.width, device=self.device)
        for start in range(0, len(by_length), _TEXTS_PER_BATCH):
            batch = by_length[start : start + _TEXTS_PER_BATCH]
            num_tokens = len(batch) * len(token_ids[batch[-1]])
            with torch.inference_mode(), _few_threads(num_tokens <= _TOKENS_FOR_ONE_THREAD):
                embeddings[batch] = self.pool(self._states_of([token_ids[i] for i in batch]))
        return embeddings

    def pool(self, tokens: TokenStates) -> Tensor:
        """Token states to vectors of the joint space: float [N, W] of length 1, or 0 without a token."""
        if not tokens.states.shape[1]:  # the adapter leaves zeros alone
            return tokens.states.new_zeros(len(tokens.states), self.config.transformer.width)
        return self.adapt(mean_pool(tokens))

    def adapt(self, sentences: Tensor) -> Tensor:
        """Sentence embeddings to vectors of the joint space: float [N, W] -> [N, W]; the same without an adapter."""
        return sentences if self.adapter is None else self.adapter(sentences)

    def _states_of(self, token_ids: list[list[int]]) -> TokenStates:
        lengths = torch.tensor([len(ids) for ids in token_ids])
        length = max((len(ids) for ids in token_ids), default=1)
        mask = torch.arange(length) < lengths[:, None]  # [N, L]
        padded = torch.zeros(len(token_ids), length, dtype=torch.int64)
        padded[mask] = torch.tensor([token for ids in token_ids for token in ids], dtype=torch.int64)
        mask = mask.to(self.device)
        states = self(padded.to(self.device), mask)
        return TokenStates(states.masked_fill(~mask[:, :, None], 0.0), mask)


@contextlib.contextmanager
def _few_threads(is_little: bool) -> Iterator[None]:
    """Computes in the thread that asks if there is little to compute. PyTorch keeps the number of each thread apart."""
    num_threads = torch.get_num_threads()
    if not is_little or num_threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def mean_pool(tokens: TokenStates) -> Tensor:
    """Mean of the real tokens' states, scaled to length 1: [N, L, W] -> [N, W]; zeros where there is no token."""
    return F.normalize(tokens.states.sum(dim=1) / tokens.mask.sum(dim=1, keepdim=True).clamp(min=1), dim=1)


def load_bert_weights(encoder: TextEncoder, tensors: Mapping[str, Tensor]) -> None:
    """Give `encoder` the weights of a Hugging Face `BertModel` state dict; the pooler is not used.

    Tensors of single precision are taken as they are, not copied: those that are mapped from a file stay so, and what
    a query does not look at, such as most of the vocabulary, is never read.

    Raises:
        WeightsDamagedError: a tensor is missing or has another shape.
    """
    try:
        own = [name for name in encoder.state_dict() if not name.startswith("adapter.")]
        encoder.load_state_dict({name: tensors[_bert_name(name)].float() for name in own}, strict=False, assign=True)
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
