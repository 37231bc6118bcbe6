"""Backbones of timm. What needs timm is skipped where it cannot be imported, for want of a fitting torchvision."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from model import load_model, model_facts
from model.checkpoint import save_checkpoint
from model.config import fingerprint, mini
from model.conse import centred, class_probabilities, conse_embedding
from model.errors import ModelError, WeightsDamagedError, WeightsNotFoundError
from model.inputs import check_videos
from model.pretrained import base_checksums
from model.weights import frames_fingerprint, load_videobert, require_weights, videobert_config

SETTINGS = {
    "architecture": "resnet18",
    "num_classes": 1000,
    "num_features": 512,
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "classifier": "fc",
    },
}


@pytest.fixture
def folder(tmp_path):
    """The settings of a network and its classifier alone: enough to know its facts."""
    path = tmp_path / "net"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(SETTINGS))
    save_file({"fc.weight": torch.zeros(1000, 512)}, path / "model.safetensors")
    return path


def test_facts_come_from_settings_and_weights(folder):
    facts = model_facts(f"timm:{folder}")
    assert (facts.embedding_dim, facts.feature_shape, facts.frame_size_px) == (384, (1, 512), 64)
    assert videobert_config(f"timm:{folder}").frames.num_classes == 1000


def test_fingerprint_is_of_the_files_not_of_the_place(folder, tmp_path):
    before = model_facts(f"timm:{folder}").fingerprint
    folder.rename(tmp_path / "moved")
    assert model_facts(f"timm:{tmp_path / 'moved'}").fingerprint == before
    save_file({"fc.weight": torch.ones(1000, 512)}, tmp_path / "moved" / "model.safetensors")
    assert model_facts(f"timm:{tmp_path / 'moved'}").fingerprint != before


def test_fingerprints_of_presets_do_not_depend_on_this():
    assert fingerprint(mini(), {}) == fingerprint(mini(), {}) != fingerprint(mini(), {"text": "a"})


@pytest.mark.parametrize("classifier", ["fc", "head"])
def test_a_network_without_imagenet_classes_asks_for_training(folder, classifier):
    save_file({"fc.weight": torch.zeros(10, 512)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SETTINGS | {"num_classes": 10}))
    assert videobert_config(f"timm:{folder}").feature_shape == (1, 512)
    for refuse in (load_videobert, load_model):
        with pytest.raises(ModelError, match=r"no classifier of the 1,000 ImageNet classes.*videobert train"):
            refuse(f"timm:{folder}")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pretrained_cfg": {}}, "not that of a timm model"),
        ({"pretrained_cfg": SETTINGS["pretrained_cfg"] | {"input_size": [3, 64, 32]}}, "square colour frames"),
    ],
)
def test_other_settings_are_refused(folder, change, text):
    (folder / "config.json").write_text(json.dumps(SETTINGS | change))
    with pytest.raises(ModelError, match=text):
        model_facts(f"timm:{folder}")


def test_names_of_timm_are_looked_for_under_its_account(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIDEOBERT_WEIGHTS_DIR", str(tmp_path))
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def offline(model_id, **wanted):
        raise OSError(f"no network for {model_id}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(WeightsNotFoundError, match=r"no network for timm/resnet18\.a1_in1k.*--model timm:resnet18"):
        model_facts("timm:resnet18.a1_in1k")


@pytest.fixture(scope="session")
def timm():
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported here: {' '.join(str(error).split())[:100]}")
    return timm


@pytest.fixture(scope="session", params=["resnet10t", "test_vit"])
def network(timm, request):
    torch.manual_seed(0)
    size = {"img_size": 64} if "vit" in request.param else {}
    return timm.create_model(request.param, pretrained=False, num_classes=1000, **size).eval()


@pytest.fixture(scope="session")
def saved(timm, network, tmp_path_factory):
    path = tmp_path_factory.mktemp("timm") / "net"
    timm.models.save_for_hf(network, path, safe_serialization=True)
    return path


def frames_for(model):
    side = model.frame_size_px
    return torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_classes_are_those_of_the_network(network, saved):
    model = load_videobert(f"timm:{saved}")
    mean, std = (torch.tensor(network.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    frames = frames_for(model)
    expected = network((frames.permute(0, 3, 1, 2) / 255 - mean) / std).softmax(dim=1)
    features = model.encode_frames(frames)
    assert features.shape == (3, *model.feature_shape)
    found = model.classify(features[:, None], torch.ones(3, 1, dtype=torch.bool))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_untrained_videos_are_the_anchor_of_their_classes(saved):
    require_weights(f"timm:{saved}")
    model = load_videobert(f"timm:{saved}")
    features = model.encode_frames(frames_for(model))[None]
    found = model.encode_video(features, torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3))
    logits = model.frame_encoder.logits(features)
    probabilities = class_probabilities(logits, model.config.conse_temperature).mean(dim=1)
    torch.testing.assert_close(found, conse_embedding(probabilities, centred(model.label_embeddings)).detach())
    assert model.fingerprint == model_facts(f"timm:{saved}").fingerprint


def test_a_trained_projection_serves_a_network_without_classes(timm, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", pretrained=False, num_classes=0)
    timm.models.save_for_hf(network, tmp_path / "net", safe_serialization=True)
    model = load_model(f"timm:{tmp_path / 'net'}", for_training=True)
    with torch.no_grad():  # what training would do
        model.gate.fill_(1.0)
        model.fusion.frame_head[-1].weight.normal_()
    save_checkpoint(model, model.config, base_checksums(model.config), tmp_path / "my.safetensors")
    trained = load_model(str(tmp_path / "my.safetensors"))
    features = trained.encode_frames(frames_for(trained))[None]
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = trained.encode_video(features, mask, torch.zeros(1, 3))
    videos = check_videos(features, mask, torch.zeros(1, 3), None, model.feature_shape, model.device)
    expected = F.normalize(trained.fusion.of_mean_frame(videos.features, videos.frame_mask), dim=1)
    torch.testing.assert_close(found, expected.detach())
    assert trained.classify(features, mask).shape == (1, 0)


def test_weights_of_another_network_are_refused(timm, saved, tmp_path):
    settings = json.loads((saved / "config.json").read_text()) | {"architecture": "resnet18", "model_args": {}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").symlink_to(saved / "model.safetensors")
    with pytest.raises(WeightsDamagedError, match="holds no weights of timm's 'resnet18'"):
        load_videobert(f"timm:{tmp_path}", for_training=True)


def test_features_of_a_backbone_serve_what_was_trained_on_it(timm, saved, tmp_path):
    model = load_model(f"timm:{saved}", for_training=True)
    save_checkpoint(model, model.config, base_checksums(model.config), tmp_path / "my.safetensors")
    assert frames_fingerprint(str(tmp_path / "my.safetensors")) == frames_fingerprint(f"timm:{saved}")
    assert "frames" not in base_checksums(model.config)  # those of EfficientNet play no part
