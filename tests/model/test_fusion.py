"""The fusion tower: padding, order in time, regimes, and that it can learn."""

from __future__ import annotations

import torch

from model.config import mini, tiny_test
from model.fusion import FusionTower
from model.text_encoder import TokenStates

CONFIG = tiny_test()


def _tower() -> FusionTower:
    return FusionTower(CONFIG).eval()


def _text(num_items: int, length: int) -> TokenStates:
    return TokenStates(torch.randn(num_items, length, 32), torch.ones(num_items, length, dtype=torch.bool))


def _video(num_items: int, num_frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    times_s = torch.arange(num_frames).float().expand(num_items, -1)
    return torch.randn(num_items, num_frames, 1, 32), torch.ones(num_items, num_frames, dtype=torch.bool), times_s


def test_padding_changes_nothing_even_if_it_is_nan():
    torch.manual_seed(0)
    tower, text, (features, mask, times_s) = _tower(), _text(1, 3), _video(1, 4)
    alone = tower(text, features, mask, times_s).residual
    padded_text = TokenStates(
        torch.cat([text.states, torch.randn(1, 2, 32)], 1), torch.cat([text.mask, torch.zeros(1, 2).bool()], 1)
    )
    padded = tower(
        padded_text,
        torch.cat([features, torch.full((1, 3, 1, 32), torch.nan)], 1),
        torch.cat([mask, torch.zeros(1, 3).bool()], 1),
        torch.cat([times_s, torch.full((1, 3), -9.0)], 1),
    ).residual
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-6)


def test_sequence_is_cls_text_switch_video_sep_and_attention_covers_it():
    output = _tower()(_text(2, 3), *_video(2, 4), need_weights=True)
    assert output.states.shape == (2, 3 + 3 + 4, 32)
    assert output.mask.all()
    assert [tuple(weights.shape) for weights in output.attention] == [(2, 2, 10, 10)]


def test_each_modality_may_be_absent():
    tower = _tower()
    assert tower(_text(2, 0), *_video(2, 4)).residual.isfinite().all()
    assert tower(_text(2, 3), *_video(2, 0)).residual.isfinite().all()


def test_order_of_frames_matters_but_not_the_origin_of_time():
    torch.manual_seed(0)
    tower, text, (features, mask, times_s) = _tower(), _text(1, 2), _video(1, 4)
    forwards = tower(text, features, mask, times_s).residual
    torch.testing.assert_close(tower(text, features, mask, times_s + 100).residual, forwards)
    assert not torch.allclose(tower(text, features.flip(1), mask, times_s).residual, forwards, atol=1e-6)


def test_fresh_weights_are_the_same_every_time_whatever_the_random_state():
    torch.manual_seed(1)
    first = FusionTower(CONFIG).state_dict()
    torch.manual_seed(2)
    second = FusionTower(CONFIG).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    norms = [tensor for name, tensor in first.items() if "norm.weight" in name or name.endswith("projection.0.weight")]
    assert norms
    assert all((tensor == 1).all() for tensor in norms)


def test_every_weight_of_the_mini_tower_gets_a_gradient():
    config = mini()
    tower = FusionTower(config)
    text = TokenStates(torch.randn(2, 3, 384), torch.ones(2, 3, dtype=torch.bool))
    features, times_s = torch.randn(2, 4, 1, 1280), torch.arange(4.0).expand(2, -1)
    mask = torch.ones(2, 4, dtype=torch.bool)
    (tower(text, features, mask, times_s).residual + tower.of_mean_frame(features, mask)).square().sum().backward()
    assert [name for name, weight in tower.named_parameters() if weight.grad is None] == []
