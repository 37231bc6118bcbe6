"""The checkpoint that comes with the package: pinned, small, and not the untrained model where it should not be."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from model import load_text_encoder
from model.checkpoint import read_header, trained_weights
from model.config import preset
from model.weights import WEIGHTS_FILES, base_checksums, verified_path

MAX_BYTES = 15_000_000
TEXTS = ["a dog runs on the beach", "two people talk at a table"]


def _photographs(model, photograph) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    names = ["skimage/data/chelsea.png", "skimage/data/coffee.png", "sklearn/datasets/images/flower.jpg"]
    features = model.encode_frames(torch.stack([torch.tensor(photograph(name)) for name in names]))[:, None]
    return features, torch.ones(3, 1, dtype=torch.bool), torch.zeros(3, 1)


def test_checkpoint_is_the_pinned_file_for_these_settings_and_backbones():
    path = verified_path(WEIGHTS_FILES["mini"]["checkpoint"])
    config, base, _ = read_header(path)
    assert config == preset("mini")
    assert base == base_checksums(preset("mini"))
    assert path.stat().st_size <= MAX_BYTES


def test_trained_and_untrained_models_differ_in_every_trained_weight_of_the_cnn(mini, mini_zero):
    untrained = dict(mini_zero.named_parameters())
    shared = [name for name in trained_weights(mini, mini.config) if name.startswith("frame_encoder.")]
    assert shared
    weights = dict(mini.named_parameters())
    assert [name for name in shared if torch.equal(weights[name], untrained[name])] == []


def test_untouched_layers_are_those_of_the_pretrained_files(mini, mini_zero):
    weights, changed = dict(mini.named_parameters()), trained_weights(mini, mini.config)
    backbones = {name for name, _ in mini_zero.named_parameters() if not name.startswith(("fusion.", "gate"))}
    assert all(torch.equal(weights[n], dict(mini_zero.named_parameters())[n]) for n in backbones - set(changed))


def test_gate_is_open_and_vectors_are_others_than_without_training(mini, mini_zero, photograph):
    assert mini.gate > 0.1
    trained, untrained = (m.encode_video(*_photographs(m, photograph)) for m in (mini, mini_zero))
    assert (trained * untrained).sum(dim=1).max() < 0.95
    torch.testing.assert_close(trained.norm(dim=1), torch.ones(3))


def test_text_encoder_alone_gives_the_vectors_of_the_whole_model(mini):
    for text in TEXTS:
        assert torch.equal(load_text_encoder("mini").encode([text]), mini.encode_text([text]))


def test_text_without_video_is_encoded_as_a_query(mini):
    nothing = torch.zeros(2, 1, *mini.feature_shape), torch.zeros(2, 1, dtype=torch.bool), torch.zeros(2, 1)
    torch.testing.assert_close(mini.encode_video(*nothing, TEXTS), mini.encode_text(TEXTS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("query", ["a cat", "a cup of coffee", "a flower"])
def test_fitting_transcript_brings_a_video_nearer_to_its_query(mini, photograph, query):
    video = _photographs(mini, photograph)
    item = ["a cat", "a cup of coffee", "a flower"].index(query)
    alone = mini.encode_video(*video)[item]
    told = mini.encode_video(*video, ["this cat is looking at us", "the coffee is ready", "this flower smells"])[item]
    wanted = mini.encode_text([query])[0]
    assert wanted @ told > wanted @ alone


def test_several_equal_frames_mean_nearly_what_one_means(mini, photograph):
    features, mask, times_s = _photographs(mini, photograph)
    one = mini.encode_video(features, mask, times_s)
    five = mini.encode_video(features.expand(-1, 5, -1, -1), mask.expand(-1, 5), torch.arange(5.0).expand(3, -1))
    assert F.cosine_similarity(one, five).min() > 0.8
