"""Strings to token ids. Both tokenisers put `[CLS]` first and `[SEP]` last and cut what is longer than allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from zlib import crc32

from tokenizers import Tokenizer as _TokenizersTokenizer

# A token has at least one character, so what lies far beyond max_tokens words is never looked at by the model;
# cutting early keeps a very long transcript from being tokenised in full.
_MAX_CHARACTERS_PER_TOKEN = 64


class Tokenizer(Protocol):
    """Anything that turns strings into token ids.

    Attributes:
        mask_id: of the token that hides another in pretraining.
        special_ids: of all tokens that stand for no text, `mask_id` among them.
    """

    mask_id: int
    special_ids: tuple[int, ...]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """One list of ids a text, `[CLS]` and `[SEP]` included, at most `max_tokens` long, not padded."""
        ...


class WordPieceTokenizer:
    """BERT's tokeniser, read from the `tokenizer.json` beside the weights."""

    def __init__(self, path: Path, max_tokens: int) -> None:
        self._tokenizer = _TokenizersTokenizer.from_file(str(path))
        self._tokenizer.no_padding()  # the file asks for padding to 128
        self._tokenizer.enable_truncation(max_length=max_tokens)
        self._max_characters = max_tokens * _MAX_CHARACTERS_PER_TOKEN
        special = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = tuple(sorted(number for number, token in special.items() if token.special))
        mask_id = self._tokenizer.token_to_id("[MASK]")
        assert mask_id is not None
        self.mask_id = mask_id

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_batch`."""
        cut = [text[: self._max_characters] for text in texts]
        return [list(encoding.ids) for encoding in self._tokenizer.encode_batch(cut)]


class HashTokenizer:
    """Words in lower case, each hashed to an id: needs no vocabulary file. For tests.

    Ids 0, 1 and 2 are `[PAD]`, which hides tokens too, `[CLS]` and `[SEP]`.
    """

    mask_id = 0
    special_ids: tuple[int, ...] = (0, 1, 2)

    def __init__(self, vocab_size: int, max_tokens: int) -> None:
        self._vocab_size = vocab_size
        self._max_tokens = max_tokens

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_batch`."""
        return [[1, *self._word_ids(text), 2] for text in texts]

    def _word_ids(self, text: str) -> list[int]:
        words = re.findall(r"\w+", text.lower())[: self._max_tokens - 2]
        return [3 + crc32(word.encode()) % (self._vocab_size - 3) for word in words]
