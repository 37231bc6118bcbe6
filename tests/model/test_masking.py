"""What is hidden: how much, what instead, and what never."""

from __future__ import annotations

import pytest
import torch

from model.errors import InputError
from model.masking import choose_frames, mask_tokens

MASK, SPECIAL, VOCAB = 4, (0, 1, 2, 3, 4), 1000


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _mask(token_ids, mask, rate=0.15, seed=0):
    return mask_tokens(
        token_ids, mask, mask_id=MASK, special_ids=SPECIAL, vocab_size=VOCAB, rate=rate, generator=_generator(seed)
    )


def _texts(num: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[CLS] ... [SEP] and padding of random length."""
    ids = torch.randint(5, VOCAB, (num, length), generator=_generator(1))
    lengths = torch.randint(3, length + 1, (num, 1), generator=_generator(2))
    places = torch.arange(length)
    ids[:, 0] = 1
    ids = ids.masked_fill(places == lengths - 1, 2).masked_fill(places >= lengths, 0)
    return ids, places < lengths


def test_tokens_are_chosen_and_replaced_in_berts_shares():
    ids = torch.full((200, 500), 7)
    ids[:, 0] = 1
    token_ids, chosen = _mask(ids, torch.ones_like(ids, dtype=torch.bool))
    assert chosen[:, 1:].float().mean().item() == pytest.approx(0.15, abs=0.005)
    seen = token_ids[chosen]
    assert (seen == MASK).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (seen == 7).float().mean().item() == pytest.approx(0.1, abs=0.01)
    drawn = seen[(seen != MASK) & (seen != 7)]
    assert len(drawn) / len(seen) == pytest.approx(0.1, abs=0.01)
    assert drawn.min() >= 5
    assert len(drawn.unique()) > 700  # of 995 ordinary tokens, from some 1,500 draws


def test_special_tokens_and_padding_are_never_touched_and_unchosen_tokens_stay():
    ids, mask = _texts(200, 12)
    token_ids, chosen = _mask(ids, mask, rate=0.6)
    special = torch.isin(ids, torch.tensor(SPECIAL))
    assert not (chosen & (special | ~mask)).any()
    assert torch.equal(token_ids[~chosen], ids[~chosen])


def test_each_text_with_an_ordinary_token_has_one_to_guess():
    ids, mask = _texts(300, 6)
    _, chosen = _mask(ids, mask, rate=0.01)
    assert torch.equal(chosen.any(dim=1), mask.sum(dim=1) > 2)
    assert chosen.sum(dim=1).max() <= 2


def test_no_token_is_no_trouble():
    token_ids, chosen = _mask(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.bool))
    assert token_ids.shape == chosen.shape == (2, 0)


def test_masks_follow_from_the_generator():
    ids, mask = _texts(20, 12)
    first, again, other = (_mask(ids, mask, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.token_ids, again.token_ids)
    assert not torch.equal(first.chosen, other.chosen)


@pytest.mark.parametrize("rate", [0.01, 0.15, 0.9, 1.0])
def test_frames_to_guess_are_at_least_one_and_never_all(rate):
    lengths = torch.arange(0, 9)[:, None].repeat(40, 1)
    frame_mask = torch.arange(8) < lengths
    chosen = choose_frames(frame_mask, rate, _generator())
    count, real = chosen.sum(dim=1), frame_mask.sum(dim=1)
    assert not (chosen & ~frame_mask).any()
    assert (count[real < 2] == 0).all()
    assert (count[real >= 2] >= 1).all()
    assert (count[real >= 2] < real[real >= 2]).all()


def test_frames_are_chosen_at_the_rate_asked_for():
    chosen = choose_frames(torch.ones(200, 100, dtype=torch.bool), 0.15, _generator())
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.005)


def test_rate_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"between 0 and 1, got 1\.5"):
        choose_frames(torch.ones(1, 2, dtype=torch.bool), 1.5, _generator())


def test_wordpiece_tokeniser_names_berts_special_tokens(mini):
    tokenizer = mini.text_encoder.tokenizer
    assert (tokenizer.mask_id, tokenizer.special_ids) == (103, (0, 100, 101, 102, 103))
    ids = torch.tensor(tokenizer.encode_batch(["a dog"]))
    assert torch.isin(ids, torch.tensor(tokenizer.special_ids)).tolist() == [[True, False, False, True]]
