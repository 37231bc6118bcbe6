"""Augmentation of texts: stop words left out, words dropped at random, words replaced by synonyms.

All chance comes from the generator given. The two word lists are our own and lie in `model/data/`: they are short, and
fit descriptions of pictures. What each of these does to search is measured by `benchmarks/augmentation.py`; see
docs/design/augmentation.md.

Source: Wei and Zou, "EDA: Easy Data Augmentation Techniques", 2019, for dropout and synonyms. Departure: synonyms from
a short list instead of WordNet, whose groups hold many words that no caption would use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from model.errors import ModelError

_DATA_DIR = Path(__file__).parent / "data"
_WORD = re.compile(r"\w+(?:['’-]\w+)*")


@dataclass(frozen=True, kw_only=True)
class TextAugmentation:
    """What may happen to a text. The defaults leave it as it is.

    Attributes:
        remove_stop_words: leave out every word of `stop_words`.
        word_dropout: probability with which each word is left out, 0 up to 1.
        synonym_rate: probability with which each word that has synonyms is replaced by one of them.
    """

    remove_stop_words: bool = False
    word_dropout: float = 0.0
    synonym_rate: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.word_dropout < 1:
            raise ModelError(f"word_dropout must be at least 0 and below 1, got {self.word_dropout!r}")
        if not 0 <= self.synonym_rate <= 1:
            raise ModelError(f"synonym_rate must be between 0 and 1, got {self.synonym_rate!r}")


def augment_text(text: str, settings: TextAugmentation, generator: torch.Generator) -> str:
    """One random version of a text. Punctuation stays where it is; of a text with words, at least one word stays."""
    words = list(_WORD.finditer(text))
    kept = (
        [word[0].lower() not in stop_words() for word in words] if settings.remove_stop_words else [True] * len(words)
    )
    chance = torch.rand(2, len(words), generator=generator).tolist()
    if settings.word_dropout:
        kept = [keep and draw >= settings.word_dropout for keep, draw in zip(kept, chance[0], strict=True)]
    if words and not any(kept):
        kept[_last_chance(words, chance[0], settings)] = True
    pieces, end = [], 0
    for word, keep, draw in zip(words, kept, chance[1], strict=True):
        replaced = _synonym(word[0], draw / settings.synonym_rate) if draw < settings.synonym_rate else word[0]
        pieces += [text[end : word.start()], replaced if keep else ""]
        end = word.end()
    return " ".join("".join([*pieces, text[end:]]).split())


def _last_chance(words: list[re.Match[str]], chance: list[float], settings: TextAugmentation) -> int:
    """Which word stays when all would go: the luckiest of those that are no stop words, if there are any."""
    telling = [i for i, word in enumerate(words) if word[0].lower() not in stop_words()]
    among = telling if settings.remove_stop_words and telling else range(len(words))
    return max(among, key=lambda i: chance[i])


@cache
def stop_words() -> frozenset[str]:
    """English words that say little about what is seen, in lower case."""
    return frozenset(word for line in _lines("stop_words.txt") for word in line)


@cache
def synonyms() -> dict[str, tuple[str, ...]]:
    """For each word that has any, in lower case, the other words of its group."""
    return {
        word: tuple(other for other in group if other != word) for group in _lines("synonyms.txt") for word in group
    }


def _lines(name: str) -> list[list[str]]:
    text = (_DATA_DIR / name).read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _synonym(word: str, share: float) -> str:
    """The synonym at `share` (0 up to 1) of the list, with the capital of the word; the word itself if it has none."""
    others = synonyms().get(word.lower())
    if not others:
        return word
    chosen = others[int(share * len(others))]
    return chosen.capitalize() if word[0].isupper() else chosen
