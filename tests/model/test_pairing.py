"""Whose text meets whose video."""

from __future__ import annotations

import torch

from model.pairing import halves, num_different, same_text, strangers

TEXTS = ["a dog", "A  DOG", "", "a cat", "  ", "a boat"]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_same_text_ignores_case_and_spaces_and_blank_texts():
    same = same_text(TEXTS)
    assert same.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [3, 3], [5, 5]]
    assert num_different(TEXTS) == 3


def test_strangers_never_bring_the_same_or_a_blank_text():
    seen = set()
    for seed in range(200):
        text_of = strangers(TEXTS, 1.0, _generator(seed))
        assert text_of[[2, 4]].tolist() == [2, 4]
        for item in (0, 1, 3, 5):
            assert TEXTS[text_of[item]].strip()
            assert not same_text([TEXTS[item], TEXTS[text_of[item]]])[0, 1]
            seen.add((item, int(text_of[item])))
    assert seen == {(0, 3), (0, 5), (1, 3), (1, 5), (3, 0), (3, 1), (3, 5), (5, 0), (5, 1), (5, 3)}


def test_strangers_come_in_the_share_asked_for():
    texts = [f"text {i}" for i in range(1000)]
    kept = (strangers(texts, 0.25, _generator()) == torch.arange(1000)).float().mean().item()
    assert abs(kept - 0.75) < 0.05
    assert torch.equal(strangers(texts, 0.0, _generator()), torch.arange(1000))


def test_everybody_keeps_the_text_when_all_are_the_same():
    assert strangers(["a dog"] * 3, 1.0, _generator()).tolist() == [0, 1, 2]


def test_halves_share_the_words_out_and_leave_short_texts_whole():
    long, short = " ".join(f"w{i}" for i in range(11)), "one two three four five six seven"
    cuts = set()
    for seed in range(100):
        (query, other), (read, nothing) = halves([long, short], 1.0, _generator(seed))
        assert (other, nothing) == (short, "")
        assert sorted([f"{query} {read}", f"{read} {query}"])[0] == long or f"{query} {read}" == long
        assert min(len(query.split()), len(read.split())) >= 4
        cuts.add((len(query.split()), query.startswith("w0 ")))
    assert cuts == {(size, first) for size in range(4, 8) for first in (True, False)}


def test_no_text_is_cut_at_a_share_of_0():
    assert halves(["a b c d e f g h i"], 0.0, _generator()) == (["a b c d e f g h i"], [""])
