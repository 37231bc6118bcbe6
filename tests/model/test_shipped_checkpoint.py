"""The checkpoint that comes with the package: pinned, small, and not the untrained model where it should not be."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from model import load_text_encoder
from model.checkpoint import read_header, trained_weights
from model.config import preset
from model.weights import WEIGHTS_FILES, base_checksums, verified_path

MAX_BYTES = 15_000_000
TEXTS = ["a dog runs on the beach", "two people talk at a table"]
FLICKR8K = Path(__file__).parents[3] / "shared" / "data" / "flickr8k_train.parquet"
NUM_PHOTOGRAPHS = 64


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


def test_trained_and_untrained_models_differ_in_the_tuned_weights_and_in_no_depthwise_filter(mini, mini_zero):
    untrained, weights = dict(mini_zero.named_parameters()), dict(mini.named_parameters())
    changed = [
        name for name in trained_weights(mini, mini.config) if name in untrained and not name.startswith("fusion.")
    ]
    assert {name.split(".")[0] for name in changed} == {"frame_encoder", "gate"}
    same = [name for name in changed if torch.equal(weights[name], untrained[name].half().float())]
    assert same == [name for name in changed if ".depthwise." in name]
    assert len(changed) > 2 * len(same)


def test_untouched_layers_are_those_of_the_pretrained_files(mini, mini_zero):
    weights, changed = dict(mini.named_parameters()), trained_weights(mini, mini.config)
    backbones = {name for name, _ in mini_zero.named_parameters() if not name.startswith(("fusion.", "gate"))}
    assert all(torch.equal(weights[n], dict(mini_zero.named_parameters())[n]) for n in backbones - set(changed))


def test_gate_is_open_and_vectors_are_others_than_without_training(mini, mini_zero, photograph):
    assert mini.gate > 0.1
    trained, untrained = (m.encode_video(*_photographs(m, photograph)) for m in (mini, mini_zero))
    assert (trained * untrained).sum(dim=1).max() < 0.95
    torch.testing.assert_close(trained.norm(dim=1), torch.ones(3))


def test_file_holds_no_stack_and_the_silent_stack_is_not_run(mini, photograph, monkeypatch):
    shapes = read_header(verified_path(WEIGHTS_FILES["mini"]["checkpoint"])).shapes
    assert [name for name in shapes if name.startswith("fusion.") and not name.startswith("fusion.frame_head.")] == []
    assert mini.fusion.is_silent
    monkeypatch.setattr(mini.fusion, "forward", None)
    vectors = mini.encode_video(*_photographs(mini, photograph), ["a cat", None, "a cat"])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


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


def test_vector_of_video_with_text_is_the_formula_of_the_model_card(mini, photograph):
    video, text = _photographs(mini, photograph), ["a cat looks into the camera", "a cat", "a flower on a stem"]
    seen, told = mini.encode_video(*video), mini.encode_text(text)
    cosine, settings = (seen * told).sum(dim=1, keepdim=True), mini.config.fusion
    agreement = settings.agreement_weight / (
        1 + torch.exp((settings.agreement_midpoint - cosine) / settings.agreement_width)
    )
    expected = F.normalize(seen + agreement * told, dim=1)
    torch.testing.assert_close(mini.encode_video(*video, text), expected, rtol=0, atol=1e-5)


@pytest.mark.shared
@pytest.mark.skipif(not FLICKR8K.is_file(), reason="the shared photographs are not here")
def test_captions_find_their_photographs_and_unrelated_transcripts_cost_little(mini):
    """A check that file, settings and code belong together: the photographs are among those trained on."""
    rows = pq.read_table(FLICKR8K, columns=["jpeg", "captions"]).slice(0, NUM_PHOTOGRAPHS).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["jpeg"])).convert("RGB")) for row in rows])
    frames = mini.encode_frames(pixels)[:, None], torch.ones(len(rows), 1, dtype=torch.bool), torch.zeros(len(rows), 1)
    queries, transcripts = (mini.encode_text([row["captions"][i] for row in rows]) for i in (0, 1))
    strange = [row["captions"][1] for row in rows[7:] + rows[:7]]
    fitting = [row["captions"][1] for row in rows]
    alone, told, misled = (mini.encode_video(*frames, texts) for texts in (None, fitting, strange))
    recall = [_recall_at_1(queries, videos) for videos in (alone, told, misled, transcripts)]
    print("R@1 of video, with its transcript, with another's, of the transcript =", recall)
    assert recall[0] >= 75
    assert recall[1] >= max(recall[0], recall[3])
    assert recall[2] >= recall[0] - 5


def _recall_at_1(queries: torch.Tensor, videos: torch.Tensor) -> float:
    """In percent, where query and video of one number belong together."""
    return 100 * ((queries @ videos.T).argmax(dim=1) == torch.arange(len(queries))).float().mean().item()
