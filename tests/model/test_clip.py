"""CLIP, SigLIP and SigLIP 2 against transformers, on tiny random checkpoints."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model import load_model, load_text_encoder, model_facts
from model.errors import InputError, ModelError
from model.labels import imagenet_classes

transformers = pytest.importorskip("transformers")

KINDS = ("clip", "siglip", "siglip2")
TEXTS = ["a red car", "the dog in a tree on the car", "tree"]
CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
PROCESSORS = {
    "clip": "CLIPImageProcessorPil",
    "siglip": "SiglipImageProcessorPil",
    "siglip2": "Siglip2ImageProcessorPil",
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "videobert"


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(clip_folder, kind):
    return clip_folder(kind)


@pytest.fixture(scope="module")
def model(folder, kind):
    return load_model(f"{kind}:{folder}")


@pytest.fixture(scope="module")
def reference(folder, kind):
    return getattr(transformers, CLASSES[kind]).from_pretrained(folder).eval().requires_grad_(False)


@pytest.fixture
def frames(model):
    side = model.frame_size_px
    return torch.randint(0, 256, (5, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def pooled(output):
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def processor(folder, kind):
    settings = {"do_resize": False, "do_center_crop": False}
    if kind == "siglip2":
        settings = {"patch_size": 8, "do_resize": True}  # without resizing it takes no square of another size
    module = pytest.importorskip(f"transformers.models.{kind}.image_processing_pil_{kind}")
    return getattr(module, PROCESSORS[kind]).from_pretrained(folder, **settings)


@torch.no_grad()
def test_frames_are_embedded_as_by_transformers(model, reference, folder, kind, frames):
    inputs = processor(folder, kind)(list(frames.numpy()), return_tensors="pt", input_data_format="channels_last")
    expected = pooled(reference.get_image_features(**inputs))
    found = model.encode_frames(frames)
    assert found.shape == (5, *model.feature_shape)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_texts_are_embedded_as_by_transformers(model, reference, folder, kind):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = "longest" if kind == "clip" else "max_length"
    tokens = tokenizer(TEXTS, padding=padding, max_length=32, truncation=True, return_tensors="pt")
    wanted = ("input_ids", "attention_mask") if kind == "clip" else ("input_ids",)
    expected = F.normalize(pooled(reference.get_text_features(**{name: tokens[name] for name in wanted})), dim=1)
    torch.testing.assert_close(model.encode_text(TEXTS), expected)


def test_text_does_not_depend_on_its_company(model):
    alone = torch.cat([model.encode_text([text]) for text in TEXTS])
    torch.testing.assert_close(model.encode_text(TEXTS), alone, atol=1e-6, rtol=0)


def test_long_text_is_cut(model):
    assert torch.equal(model.encode_text(["dog " * 50_000]), model.encode_text(["dog " * 40]))


def test_text_side_alone_equals_that_of_the_whole_model(model, folder, kind):
    alone = load_text_encoder(f"{kind}:{folder}")
    assert torch.equal(alone.encode(TEXTS), model.encode_text(TEXTS))
    assert not hasattr(alone.network, "vision_model")


def test_facts_are_those_of_the_loaded_model(model, folder, kind):
    facts = model_facts(f"{kind}:{folder}")
    assert facts.fingerprint == model.fingerprint
    assert (facts.embedding_dim, facts.feature_shape) == (model.embedding_dim, model.feature_shape)
    assert facts.frame_size_px == model.frame_size_px == 32


def test_scale_of_cosines_is_the_one_learnt(model, reference):
    assert model.config.zero_shot_temperature == pytest.approx(math.exp(-float(reference.logit_scale)))


def padded(features):
    """Two videos, of 3 and 2 frames: [2, 3, 1, E] and mask; what stands in the masked place must not matter."""
    batch = torch.full((2, 3, *features.shape[1:]), torch.nan)
    batch[0], batch[1, :2] = features[:3], features[3:]
    return batch, torch.tensor([[True, True, True], [True, True, False]])


def test_video_is_the_mean_of_its_frames_directions(model, frames):
    features, mask = padded(model.encode_frames(frames))
    units = F.normalize(model.encode_frames(frames)[:, 0], dim=1)
    expected = F.normalize(torch.stack([units[:3].mean(dim=0), units[3:].mean(dim=0)]), dim=1)
    torch.testing.assert_close(model.encode_video(features, mask, torch.zeros(2, 3)), expected)


def test_text_without_frames_is_its_own_vector(model):
    nothing = torch.zeros(3, 0, *model.feature_shape)
    found = model.encode_video(nothing, torch.zeros(3, 0, dtype=torch.bool), torch.zeros(3, 0), TEXTS)
    torch.testing.assert_close(found, model.encode_text(TEXTS))


def test_transcript_joins_without_what_all_texts_share(model, frames):
    features, mask = padded(model.encode_frames(frames))
    prompts = [f"a photo of a {name}" for name, _ in imagenet_classes()]
    said = model.encode_text(["a red car"]) - model.encode_text(prompts).mean(dim=0)
    seen = model.encode_video(features, mask, torch.zeros(2, 3))
    found = model.encode_video(features, mask, torch.zeros(2, 3), ["a red car", None])
    torch.testing.assert_close(found[:1], F.normalize(seen[:1] + 0.3 * said, dim=1))
    assert torch.equal(found[1], seen[1])


def test_classes_are_the_softmax_of_scaled_cosines_of_each_frame(model, reference, frames):
    features, mask = padded(model.encode_frames(frames))
    prompts = model.encode_text([f"a photo of a {name}" for name in model.label_names])
    units = F.normalize(model.encode_frames(frames)[:, 0], dim=1)
    each = (units @ prompts.T * reference.logit_scale.exp()).softmax(dim=1).detach()
    expected = torch.stack([each[:3].mean(dim=0), each[3:].mean(dim=0)])
    torch.testing.assert_close(model.classify(features, mask), expected)


def test_class_vectors_are_kept_for_the_next_process(model, folder, kind, monkeypatch):
    first = model.class_embeddings
    again = load_model(f"{kind}:{folder}")
    monkeypatch.setattr(again.text_encoder, "encode", None)
    assert torch.equal(again.class_embeddings, first)


def test_zero_shot_prefers_the_label_that_the_vector_is_of(model):
    videos = model.encode_text(["a photo of a dog", "a photo of a tree"])
    scores = model.zero_shot(videos, ["tree", "dog"])
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))
    assert scores.argmax(dim=1).tolist() == [1, 0]


def test_frames_of_another_size_are_refused(model):
    with pytest.raises(InputError, match=r"frames must be uint8 \[N, 32, 32, 3\], got uint8 \[1, 16, 16, 3\]"):
        model.encode_frames(np.zeros((1, 16, 16, 3), np.uint8))


def test_no_frames_give_no_features(model):
    assert model.encode_frames(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, *model.feature_shape)


def test_half_precision_on_the_image_side_stays_near(model, frames, monkeypatch):
    exact = model.encode_frames(frames)[:, 0]
    monkeypatch.setattr(model, "autocast", True)
    rough = model.encode_frames(frames)[:, 0]
    assert not torch.equal(rough, exact)
    assert F.cosine_similarity(rough, exact).min() > 0.999


def test_openvino_is_refused(clip_folder):
    with pytest.raises(ModelError, match="must be auto or torch, got 'openvino'"):
        load_model(f"clip:{clip_folder('clip')}", runtime="openvino")
