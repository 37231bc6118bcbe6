"""Which text meets which video in pretraining: strangers for the alignment objective, halves for the contrastive one.

Shapes: B items. All chance comes from the generator given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_FEWEST_WORDS = 4  # in each half of a text that is cut in two


class Halves(NamedTuple):
    """What each item asks for, and what it may read.

    Attributes:
        queries: B texts, looked for.
        transcripts: B texts that go with the video; "" where the query is the whole text.
    """

    queries: list[str]
    transcripts: list[str]


def same_text(texts: Sequence[str]) -> Tensor:
    """Whether two items have the same words, whatever their case and spaces: bool [B, B]; items without text never."""
    numbers: dict[str, int] = {}
    group = torch.tensor([numbers.setdefault(_plain(text), len(numbers)) for text in texts])
    has_text = torch.tensor([bool(text.strip()) for text in texts])
    return (group[:, None] == group) & has_text[:, None] & has_text


def num_different(texts: Sequence[str]) -> int:
    """How many different texts there are, blank ones not counted."""
    return len({_plain(text) for text in texts} - {""})


def strangers(texts: Sequence[str], share: float, generator: torch.Generator) -> Tensor:
    """Gives some items the text of another item.

    Args:
        texts: B texts; "" for an item without one, whose text nobody gets.
        share: of the items with a text that get another's, which is never the same text.
        generator: on the CPU.

    Returns:
        int64 [B], the item whose text each gets: its own number, where it keeps its own.
    """
    has_text = torch.tensor([bool(text.strip()) for text in texts])
    other = has_text[:, None] & has_text & ~same_text(texts)  # [B, B]
    draw = torch.rand(other.shape, generator=generator).masked_fill(~other, -1.0)
    swaps = (torch.rand(len(texts), generator=generator) < share) & other.any(dim=1)
    return torch.where(swaps, draw.argmax(dim=1), torch.arange(len(texts)))


def halves(texts: Sequence[str], share: float, generator: torch.Generator) -> Halves:
    """Cuts some texts in two at a random word: one half is looked for, the other goes with the video.

    Args:
        texts: B texts.
        share: of the texts that are cut, among those of at least eight words.
        generator: on the CPU.
    """
    queries, transcripts = [], []
    for text, draw in zip(texts, torch.rand(len(texts), 3, generator=generator).tolist(), strict=True):
        words = text.split()
        places = len(words) - 2 * _FEWEST_WORDS + 1
        cut = _FEWEST_WORDS + int(draw[1] * places)
        parts = (" ".join(words[:cut]), " ".join(words[cut:]))
        first = draw[2] < 0.5
        is_cut = draw[0] < share and places > 0
        queries.append(parts[not first] if is_cut else text)
        transcripts.append(parts[first] if is_cut else "")
    return Halves(queries, transcripts)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
