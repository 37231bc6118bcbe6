"""Pretraining: three regimes through one tower, what is skipped, what is frozen, and that search profits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from model import VideoBert, load_model, preset
from model.checkpoint import read_header, save_checkpoint
from model.errors import InputError, ModelError
from model.inputs import VideoInputs
from model.masking import Hidden
from model.pretrained import pretrained_model
from model.pretraining import OBJECTIVES, FeatureBatch, PretrainingModel, PretrainingSettings
from model.visual_vocabulary import VisualVocabulary

NUM_SCENES, NUM_FRAMES = 8, 4
NAMES = ["dog", "cat", "boat", "tree", "ball", "kite", "snow", "fire"]
VERBS = ["runs", "rests", "turns", "waits"]


def _scenes() -> torch.Tensor:
    return torch.rand(NUM_SCENES, 32, generator=torch.Generator().manual_seed(5)) * 3


def _vocabulary() -> VisualVocabulary:
    return VisualVocabulary.fit(_scenes().repeat(4, 1), NUM_SCENES, 1)


def _batch(num_items: int = 16, seed: int = 0) -> FeatureBatch:
    """Each video shows one scene, and its text names it, with one of a few verbs."""
    generator = torch.Generator().manual_seed(seed)
    scene = torch.arange(num_items) % NUM_SCENES
    noise = 0.05 * torch.randn(num_items, NUM_FRAMES, 1, 32, generator=generator)
    features = _scenes()[scene][:, None, None].expand(-1, NUM_FRAMES, -1, -1) + noise
    lengths = torch.randint(2, NUM_FRAMES + 1, (num_items, 1), generator=generator)
    times_s = torch.arange(float(NUM_FRAMES)).expand(num_items, -1)
    verbs = torch.randint(len(VERBS), (num_items,), generator=generator).tolist()
    texts: list[str | None] = [" ".join([NAMES[s], VERBS[v]] * 4) for s, v in zip(scene.tolist(), verbs, strict=True)]
    return FeatureBatch(features, torch.arange(NUM_FRAMES) < lengths, times_s, texts)


def _without_texts(batch: FeatureBatch) -> FeatureBatch:
    return batch._replace(texts=[None] * len(batch.texts))


def _without_frames(batch: FeatureBatch) -> FeatureBatch:
    return batch._replace(frame_mask=torch.zeros_like(batch.frame_mask))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _train(model: PretrainingModel, num_steps: int, learning_rate: float = 3e-3) -> None:
    torch.manual_seed(0)
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, generator = torch.optim.Adam(weights, learning_rate), _generator()
    for step in range(num_steps):
        loss = model.total(model(_batch(32, step), generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


@pytest.fixture
def model(tiny) -> PretrainingModel:
    return PretrainingModel(tiny, _vocabulary())


@pytest.fixture
def with_frame_head() -> VideoBert:
    config = preset("tiny_test")
    return pretrained_model(replace(config, fusion=replace(config.fusion, frame_head_width=16)), {})


def test_every_objective_gives_a_finite_loss_that_reaches_every_trained_weight(model):
    with torch.no_grad():
        model.videobert.fusion.output.weight.normal_(std=0.02)  # which starts at zero and lets nothing through yet
    losses = model.train()(_batch(), _generator())
    assert tuple(losses) == OBJECTIVES
    assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
    model.total(losses).backward()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert [name for name, weight in trained.items() if weight.grad is None] == []
    assert {name.split(".")[0] for name in trained} >= {"masked_text", "masked_visual", "alignment", "mask_vector"}


def test_fresh_heads_guess(model):
    losses = model.eval()(_batch(), _generator())
    assert losses["masked_visual"].item() == pytest.approx(math.log(NUM_SCENES), abs=0.2)
    assert losses["alignment"].item() == pytest.approx(math.log(2), abs=0.05)


def test_objectives_that_the_batch_holds_nothing_for_are_left_out(model):
    batch = _batch()
    first = FeatureBatch(*(tensor[:, :1] for tensor in batch[:3]), texts=[None] * 16)
    same = batch._replace(texts=["The dog ", *["the  dog"] * 15])
    one_pair = batch._replace(texts=[*batch.texts[:1], *[None] * 15])
    for given, expected in (
        (_without_texts(batch), {"masked_visual"}),
        (_without_frames(batch), {"masked_text"}),
        (first, set()),
        (same, {"masked_text", "masked_visual"}),
        (one_pair, {"masked_visual"}),
    ):
        assert set(model(given, _generator())) - {"masked_text"} == expected - {"masked_text"}
    assert "masked_text" not in model(_without_texts(batch), _generator())
    assert "masked_text" in model(_without_frames(batch), _generator())


def test_total_of_no_loss_still_has_a_gradient(model):
    model.total({}).backward()
    assert model.log_scale.grad == 0


def test_total_weighs_the_objectives_and_weight_0_computes_none(tiny):
    settings = PretrainingSettings(masked_text_weight=2.0, alignment_weight=0.0, contrastive_weight=0.5)
    model = PretrainingModel(tiny, _vocabulary(), settings).eval()
    losses = model(_batch(), _generator())
    assert set(losses) == {"masked_text", "masked_visual", "contrastive"}
    expected = 2 * losses["masked_text"] + losses["masked_visual"] + 0.5 * losses["contrastive"]
    torch.testing.assert_close(model.total(losses), expected)


def _inputs(batch: FeatureBatch) -> VideoInputs:
    return VideoInputs(batch.features, batch.frame_mask, batch.frame_times_s, [text or "" for text in batch.texts])


def _item(hidden: Hidden, row: int) -> Hidden:
    """One item without its padding."""
    num_tokens, num_frames = int(hidden.token_mask[row].sum()), int(hidden.frame_mask[row].sum())
    tokens, frames = slice(num_tokens), slice(num_frames)
    cut = {
        name: tensor[row : row + 1, tokens if name in _OF_TOKENS else frames]
        for name, tensor in hidden._asdict().items()
    }
    return Hidden(**cut)


_OF_TOKENS = ("token_ids", "token_mask", "token_chosen", "true_ids")


def test_guessing_in_a_padded_batch_scores_what_the_items_score_one_by_one(model):
    batch = _batch(12)
    mixed = batch._replace(texts=[None if i % 4 == 0 else f"{t} {'more ' * i}" for i, t in enumerate(batch.texts)])
    mixed.frame_mask[[1, 5]] = False
    model.eval()
    hidden = model.hide(_inputs(mixed), _generator())
    hidden = hidden._replace(features=hidden.features.masked_fill(~hidden.frame_mask[:, :, None, None], torch.nan))
    together = model.completion_losses(hidden)
    totals, counts = dict.fromkeys(together, 0.0), dict.fromkeys(together, 0)
    for row in range(12):
        item = _item(hidden, row)
        numbers = {"masked_text": int(item.token_chosen.sum()), "masked_visual": int(item.frame_chosen.sum())}
        for name, loss in model.completion_losses(item).items():
            totals[name] += loss.item() * numbers[name]
            counts[name] += numbers[name]
    assert set(together) == {"masked_text", "masked_visual"}
    for name, loss in together.items():
        assert loss.item() == pytest.approx(totals[name] / counts[name], rel=1e-5)


def test_padding_frames_change_neither_alignment_nor_contrast_even_if_they_are_nan(tiny):
    model = PretrainingModel(tiny, _vocabulary(), PretrainingSettings(masked_text_weight=0, masked_visual_weight=0))
    with torch.no_grad():
        model.videobert.fusion.output.weight.normal_(std=0.2)
    batch = _batch()
    padded = FeatureBatch(
        torch.cat([batch.features, torch.full((16, 3, 1, 32), torch.nan)], dim=1),
        torch.cat([batch.frame_mask, torch.zeros(16, 3, dtype=torch.bool)], dim=1),
        torch.cat([batch.frame_times_s, torch.full((16, 3), -7.0)], dim=1),
        batch.texts,
    )
    alone, with_padding = (model.eval()(given, _generator()) for given in (batch, padded))
    assert set(alone) == {"alignment", "contrastive"}
    for name, loss in alone.items():
        torch.testing.assert_close(with_padding[name], loss, rtol=1e-5, atol=1e-6)


def test_each_of_the_three_regimes_occurs(model):
    batch = _batch(64)
    hidden = model.hide(_inputs(batch), _generator())
    shown = list(zip(hidden.token_mask.any(dim=1).tolist(), hidden.frame_mask.any(dim=1).tolist(), strict=True))
    assert {regime: shown.count(regime) > 8 for regime in set(shown)} == {
        (True, True): True,
        (True, False): True,
        (False, True): True,
    }
    assert (hidden.features[hidden.frame_chosen] == model.mask_vector).all()


def test_words_to_guess_are_those_of_the_frames_before_they_were_hidden(model):
    batch = _batch(64)
    hidden = model.hide(_inputs(batch), _generator())
    chosen = hidden.frame_chosen
    expected = model.vocabulary.words(batch.features[chosen][:, 0])
    assert chosen.any()
    assert torch.equal(hidden.true_words[chosen][:, 0], expected)


def test_losses_follow_from_the_generator(model):
    model.eval()
    first, again, other = (model(_batch(), _generator(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in OBJECTIVES)
    assert any(not torch.equal(first[name], other[name]) for name in OBJECTIVES)


def test_half_precision_features_do(model):
    batch = _batch()
    batch = batch._replace(features=batch.features.half())
    assert all(loss.isfinite() for loss in model(batch, _generator()).values())


@pytest.mark.parametrize("name", ["tiny", "with_frame_head"])
def test_opening_the_gate_leaves_vectors_as_they_are(name, request):
    videobert, batch = request.getfixturevalue(name), _batch()
    batches = [_without_texts(batch), _without_frames(batch)]
    if name == "tiny":  # with a frame head, an open gate lets texts count by their agreement
        batches.append(batch)
    before = [videobert.encode_video(*one) for one in batches]
    PretrainingModel(videobert, _vocabulary())
    assert videobert.gate == 1
    for one, vectors in zip(batches, before, strict=True):
        torch.testing.assert_close(videobert.eval().encode_video(*one), vectors, rtol=0, atol=1e-6)


def test_encoders_are_frozen_and_stay_in_evaluation_mode(model):
    before = {name: weight.clone() for name, weight in model.videobert.state_dict().items()}
    _train(model, 2)
    model.train()
    assert (model.videobert.text_encoder.training, model.videobert.frame_encoder.training) == (False, False)
    assert model.videobert.fusion.training
    changed = {n for n, weight in model.videobert.state_dict().items() if not torch.equal(weight, before[n])}
    assert {name.split(".")[0] for name in changed} == {"fusion", "gate"}


def test_text_encoder_learns_when_it_is_asked_to(tiny):
    settings = PretrainingSettings(trained_parts=("fusion.", "gate", "text_encoder.stack."))
    model = PretrainingModel(tiny, _vocabulary(), settings).train()
    assert model.videobert.text_encoder.training
    model.total(model(_batch(), _generator())).backward()
    assert model.videobert.text_encoder.stack.blocks[0].attention.query.weight.grad.abs().max() > 0
    assert "text_encoder.stack." in model.checkpoint_config.trained


def _only(videobert: VideoBert, objective: str) -> PretrainingModel:
    weights = {f"{name}_weight": float(name == objective) for name in OBJECTIVES}
    return PretrainingModel(videobert, _vocabulary(), PretrainingSettings(**weights))


@pytest.mark.parametrize(
    ("objective", "ceiling"),
    [
        ("masked_visual", 0.2 * math.log(NUM_SCENES)),  # the other frames, or the text, tell the scene
        ("masked_text", 0.5 * math.log(4096)),
    ],
)
def test_objective_is_learnt_far_beyond_a_guess(tiny, objective, ceiling):
    model = _only(tiny, objective)
    _train(model, 100, learning_rate=1e-2)
    assert _held_out_losses(model)[objective] < ceiling


def test_alignment_is_learnt_far_beyond_a_guess(tiny):
    """Two scenes, each with a text: whether they belong together is an exclusive or, which no single one tells."""
    model = _only(tiny, "alignment")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and weight.ndim > 1 and name.startswith(("videobert.fusion.", "alignment.")):
                weight.mul_(5)  # at a width of 32 the usual start is so small that this takes thousands of steps

    def two_scenes(seed: int) -> FeatureBatch:
        batch = _batch(128, seed)
        rows = [row for row in range(128) if row % NUM_SCENES < 2]
        return FeatureBatch(*(tensor[rows] for tensor in batch[:3]), texts=[NAMES[row % NUM_SCENES] for row in rows])

    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], 3e-3)
    generator = _generator()
    for step in range(80):
        optimizer.zero_grad()
        model(two_scenes(step), generator)["alignment"].backward()
        optimizer.step()
    with torch.no_grad():
        assert model.eval()(two_scenes(1000), generator)["alignment"] < 0.75 * math.log(2)


@pytest.mark.parametrize("name", ["tiny", "with_frame_head"])
def test_contrastive_objective_teaches_texts_to_find_videos(name, request):
    model = _only(request.getfixturevalue(name), "contrastive")
    batch = _batch(NUM_SCENES, seed=1000)
    queries = model.videobert.encode_text([text or "" for text in batch.texts])

    def found() -> float:
        videos = model.videobert.encode_video(*_without_texts(batch))
        return ((queries @ videos.T).argmax(dim=1) == torch.arange(NUM_SCENES)).float().mean().item()

    before = found()
    _train(model, 100, learning_rate=1e-2)
    assert _held_out_losses(model)["contrastive"] < 0.6 * math.log(64)
    assert before <= 0.25
    assert found() >= 0.625


@torch.no_grad()
def _held_out_losses(model: PretrainingModel) -> dict[str, float]:
    return {name: loss.item() for name, loss in model.eval()(_batch(64, seed=1000), _generator()).items()}


def test_checkpoint_holds_what_search_needs_and_nothing_of_the_heads(model, tmp_path):
    _train(model, 3)
    path = tmp_path / "pretrained.safetensors"
    save_checkpoint(model.videobert, model.checkpoint_config, {}, path)
    assert {name.split(".")[0] for name in read_header(path).shapes} == {"fusion", "gate"}
    batch, loaded = _batch(), load_model(str(path))
    torch.testing.assert_close(
        loaded.encode_video(*batch), model.videobert.encode_video(*batch), rtol=0, atol=2e-3
    )  # half precision on disk
    assert not torch.allclose(loaded.encode_video(*batch), load_model("tiny_test").encode_video(*batch), atol=1e-2)


def test_items_with_neither_frames_nor_text_are_refused(model):
    with pytest.raises(InputError, match="item 0 has neither"):
        model(_without_frames(_without_texts(_batch())), _generator())


def test_vocabulary_of_other_features_is_refused(tiny):
    with pytest.raises(ModelError, match="features of 32 numbers, got 3"):
        PretrainingModel(tiny, VisualVocabulary.fit(torch.rand(9, 3), 2, 1))


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("fusoin.",), "must begin the names of weights, .* got 'fusoin.'"),
        (("frame_encoder.",), "cannot name the frame"),
    ],
)
def test_parts_that_cannot_be_trained_are_refused(tiny, parts, text):
    with pytest.raises(ModelError, match=text):
        PretrainingModel(tiny, _vocabulary(), PretrainingSettings(trained_parts=parts))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"alignment_weight": -1.0}, "alignment_weight must be at least 0, got -1.0"),
        ({f"{name}_weight": 0.0 for name in OBJECTIVES}, "at least one objective"),
        ({"text_mask_rate": 0.0}, "text_mask_rate must be above 0 and below 1, got 0.0"),
        ({"half_share": 1.5}, "half_share must be between 0 and 1, got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(ModelError, match=text):
        PretrainingSettings(**settings)
