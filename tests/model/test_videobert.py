"""VideoBert as its callers see it: anchors, gate, the three regimes, labels and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.errors import InputError
from model.frame_encoder import TinyFrameEncoder


def _colour_video(model, *colours: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One video a colour, of three plain frames."""
    pixels = torch.tensor([TinyFrameEncoder.COLOURS[colour] for colour in colours], dtype=torch.uint8)
    frames = pixels[:, None, None, None, :].expand(-1, 3, 32, 32, -1)
    features = model.encode_frames(frames.flatten(0, 1)).unflatten(0, (len(colours), 3))
    return features, torch.ones(len(colours), 3, dtype=torch.bool), torch.arange(3.0).expand(len(colours), -1)


def _no_video(model, num_items: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (num_items, 2)
    return torch.zeros(*shape, *model.feature_shape), torch.zeros(shape, dtype=torch.bool), torch.zeros(shape)


def test_photographs_are_found_by_what_they_show(mini, photograph):
    names = ["skimage/data/chelsea.png", "skimage/data/coffee.png", "sklearn/datasets/images/flower.jpg"]
    frames = np.stack([photograph(name) for name in names])
    features = mini.encode_frames(frames)[:, None]  # each a video of one frame
    videos = mini.encode_video(features, torch.ones(3, 1, dtype=torch.bool), torch.zeros(3, 1))
    queries = mini.encode_text(["a cat looks into the camera", "a hot drink on a table", "a flower in a garden"])
    assert (queries @ videos.T).argmax(dim=1).tolist() == [0, 1, 2]


def test_float16_features_give_nearly_the_same_vector(mini, photograph):
    features = mini.encode_frames(photograph("skimage/data/chelsea.png")[None])[None]
    mask, times_s = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1)
    exact = mini.encode_video(features, mask, times_s)
    stored = mini.encode_video(features.half().numpy(), mask.numpy(), times_s.numpy())
    assert (exact * stored).sum() > 0.99999


def test_colours_are_found_by_name(tiny):
    colours = list(TinyFrameEncoder.COLOURS)
    videos = tiny.encode_video(*_colour_video(tiny, *colours))
    assert (tiny.encode_text(colours) @ videos.T).argmax(dim=1).tolist() == list(range(8))


def test_video_only_is_conse_while_the_gate_is_zero(tiny):
    features, mask, times_s = _colour_video(tiny, "red", "blue")
    logits = tiny.frame_encoder.classifier(features[:, :, 0])
    probabilities = (logits / tiny.config.conse_temperature).softmax(-1).mean(1)
    centred = tiny.label_embeddings - tiny.label_embeddings.mean(0)
    expected = F.normalize(probabilities @ centred, dim=1)
    torch.testing.assert_close(tiny.encode_video(features, mask, times_s), expected.detach())


def test_text_only_is_encode_text_while_the_gate_is_zero(tiny):
    texts = ["a red car", "night"]
    encoded = tiny.encode_video(*_no_video(tiny, 2), texts)
    torch.testing.assert_close(encoded, tiny.encode_text(texts), rtol=0, atol=1e-6)


def test_both_is_the_normalised_sum_while_the_gate_is_zero(tiny):
    video = _colour_video(tiny, "green")
    expected = F.normalize(tiny.encode_video(*video) + tiny.encode_text(["grass"]), dim=1)
    torch.testing.assert_close(tiny.encode_video(*video, ["grass"]), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("texts", [None, [None, None], ["", " \n"]])
def test_blank_texts_count_as_none(tiny, texts):
    video = _colour_video(tiny, "red", "cyan")
    assert torch.equal(tiny.encode_video(*video, texts), tiny.encode_video(*video))


@pytest.mark.parametrize("gate", [0.0, 0.7])
def test_each_item_of_a_mixed_batch_is_encoded_as_alone(tiny, gate):
    with torch.no_grad():
        tiny.gate.fill_(gate)
    features, mask, times_s = _colour_video(tiny, "red", "green", "blue")
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    texts = ["short", "a longer text about a green field", None]
    together = tiny.encode_video(features, mask, times_s, texts)
    for item in range(3):
        keep = mask[item]
        alone = tiny.encode_video(features[item : item + 1, keep], mask[item : item + 1, keep],
                                  times_s[item : item + 1, keep], [texts[item]])  # fmt: skip
        torch.testing.assert_close(together[item], alone[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_open_gate_lets_the_tower_in(tiny):
    video = _colour_video(tiny, "red")
    anchor = tiny.encode_video(*video)
    with torch.no_grad():
        tiny.gate.fill_(1.0)
    assert not torch.allclose(tiny.encode_video(*video), anchor, atol=1e-4)


def test_training_starts_at_the_anchor_and_moves_the_gate_first(tiny):
    video = _colour_video(tiny, "red")
    anchor = tiny.encode_video(*video)
    assert not anchor.requires_grad
    encoded = tiny.train().encode_video(*video)
    torch.testing.assert_close(encoded, anchor)
    encoded[0, 0].backward()
    assert tiny.gate.grad is not None
    assert tiny.gate.grad != 0


def test_classify_is_the_mean_over_frames_and_zero_without_frames(tiny):
    features, _, _ = _colour_video(tiny, "red", "blue")
    mixed = torch.cat([features[0, :1], features[1, :2]])[None].expand(2, -1, -1, -1)
    probabilities = tiny.classify(mixed, torch.tensor([[True] * 3, [False] * 3]))
    assert probabilities[0, tiny.label_names.index("blue")].item() == pytest.approx(2 / 3, abs=0.01)
    assert probabilities[0].sum().item() == pytest.approx(1, abs=1e-5)
    assert probabilities[1].sum() == 0


def test_vectors_and_classes_together_are_those_of_each_alone(tiny):
    features, mask, times_s = _colour_video(tiny, *["red", "blue", "green"] * 30)  # more than one batch
    texts = ["grass", None, "a dog"] * 30
    vectors, probabilities = tiny.encode_and_classify(features, mask, times_s, texts)
    assert torch.equal(vectors, tiny.encode_video(features, mask, times_s, texts))
    torch.testing.assert_close(probabilities, tiny.classify(features, mask))
    assert not vectors.requires_grad
    nothing = tiny.encode_and_classify(*_no_video(tiny, 0))
    assert [found.shape for found in nothing] == [(0, 32), (0, 8)]


def test_zero_shot_scores_are_probabilities_that_favour_what_fits(tiny):
    videos = tiny.encode_video(*_colour_video(tiny, "red", "blue"))
    scores = tiny.zero_shot(videos, ["blue", "red", "green"])
    assert scores.argmax(dim=1).tolist() == [1, 0]
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))


def test_frames_are_encoded_alike_whatever_their_batch(mini, monkeypatch):
    monkeypatch.setattr("model.runtime.MAX_FRAMES_PER_BATCH", 4)
    frames = torch.randint(0, 256, (6, 224, 224, 3), dtype=torch.uint8)
    together = mini.encode_frames(frames)
    torch.testing.assert_close(mini.encode_frames(frames[5:6])[0], together[5], rtol=1e-4, atol=1e-5)
    assert mini.encode_frames(frames[:0]).shape == (0, 1, 1280)


def test_read_only_arrays_are_taken_without_a_warning(tiny):
    frames = np.zeros((1, 32, 32, 3), np.uint8)
    frames.flags.writeable = False
    assert tiny.encode_frames(frames).shape == (1, 1, 32)


def test_no_videos_give_no_vectors(tiny):
    assert tiny.encode_video(*_no_video(tiny, 0)).shape == (0, 32)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 30, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
    ],
)
def test_encode_frames_refuses_other_shapes_and_types(tiny, frames):
    with pytest.raises(InputError, match=r"frames must be uint8 \[N, 32, 32, 3\]"):
        tiny.encode_frames(frames)


def test_encode_video_refuses_an_item_with_neither_frames_nor_text(tiny):
    with pytest.raises(InputError, match="item 1 has neither"):
        tiny.encode_video(*_no_video(tiny, 2), ["text", None])


def test_encode_video_refuses_shapes_that_disagree(tiny):
    features, mask, times_s = _colour_video(tiny, "red")
    with pytest.raises(InputError, match="features must be"):
        tiny.encode_video(features[..., :5], mask, times_s)
    with pytest.raises(InputError, match="frame_mask must be bool"):
        tiny.encode_video(features, mask.float(), times_s)
    with pytest.raises(InputError, match="frame_times_s must be"):
        tiny.encode_video(features, mask, times_s[:, :2])
    with pytest.raises(InputError, match="texts must hold one text"):
        tiny.encode_video(features, mask, times_s, ["a", "b"])


def test_zero_shot_refuses_no_labels(tiny):
    with pytest.raises(InputError, match="at least one label"):
        tiny.zero_shot(torch.zeros(1, 32), [])
