"""Augmentation of texts: stop words, dropout, synonyms."""

from __future__ import annotations

import pytest
import torch

from model.augment_text import TextAugmentation, augment_text, stop_words, synonyms
from model.errors import ModelError

TEXT = "A man, in the BIG red jacket, is running."


def _augment(text: str, seed: int = 0, **settings) -> str:
    return augment_text(text, TextAugmentation(**settings), torch.Generator().manual_seed(seed))


def test_nothing_happens_by_default():
    assert _augment(TEXT) == TEXT


def test_stop_words_are_removed_whatever_their_case():
    assert _augment(TEXT, remove_stop_words=True) == "man, in BIG red jacket, running."


def test_a_text_of_stop_words_keeps_one():
    assert _augment("Is it the?", remove_stop_words=True) in {"Is ?", "it ?", "the?"}


def test_what_tells_something_is_no_stop_word():
    assert not stop_words() & {"no", "not", "in", "on", "under", "man", "two", "up", "down", "with", "without"}


def test_words_are_dropped_at_the_rate_asked_for_and_keep_their_order():
    words = [f"w{i}" for i in range(2000)]
    kept = _augment(" ".join(words), word_dropout=0.3).split()
    assert len(kept) == pytest.approx(1400, abs=80)
    assert kept == sorted(kept, key=lambda word: int(word[1:]))


def test_a_word_always_stays():
    assert {_augment("dog cat", seed, word_dropout=0.99) for seed in range(50)} >= {"dog", "cat"}
    assert all(_augment("the dog", seed, word_dropout=0.99, remove_stop_words=True) == "dog" for seed in range(20))


def test_a_text_without_words_stays():
    assert _augment("  ?! ", word_dropout=0.5, remove_stop_words=True) == "?!"
    assert _augment("", word_dropout=0.5) == ""


def test_synonyms_replace_words_and_keep_the_capital():
    seen = {_augment("Man on a bike", seed, synonym_rate=1.0) for seed in range(50)}
    assert seen == {"Guy on a bicycle", "Gentleman on a bicycle"}


def test_synonyms_come_at_the_rate_asked_for():
    changed = _augment(" ".join(["bike"] * 2000), synonym_rate=0.25).split().count("bicycle")
    assert changed == pytest.approx(500, abs=80)


def test_no_word_is_in_two_groups_and_each_is_its_synonyms_synonym():
    for word, others in synonyms().items():
        assert word not in others
        assert others
        assert all(word in synonyms()[other] for other in others)


def test_versions_follow_from_the_generator():
    settings = {"word_dropout": 0.4, "synonym_rate": 0.5}
    assert _augment(TEXT, 3, **settings) == _augment(TEXT, 3, **settings)
    assert len({_augment(TEXT, seed, **settings) for seed in range(20)}) > 10


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"word_dropout": 1.0}, "word_dropout must be at least 0 and below 1, got 1.0"),
        ({"synonym_rate": -0.1}, "synonym_rate must be between 0 and 1, got -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(ModelError, match=text):
        TextAugmentation(**settings)
