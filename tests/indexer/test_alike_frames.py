"""`mini` and `mini-int8` compute nearly the same frame features, so what was made for one serves the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from indexer.config import RunConfig, SamplingConfig
from indexer.errors import IndexSettingsError
from indexer.pipeline import index_videos
from indexer.query.heads import classify_index
from indexer.query.video_index import VideoIndex
from indexer.refresh import refresh_index
from indexer.store.index import IndexStore
from indexer.store.verify import verify
from indexer.training.pretraining import open_index
from model.checkpoint import save_checkpoint
from model.classifier import Classifier, save_classifier
from model.weights import base_checksums, frames_alike, frames_fingerprint, load_videobert

_MODELS = ("mini", "mini-int8")


@pytest.fixture
def index_with(small_videos, tmp_path):
    def make(model):
        run, path = RunConfig(), tmp_path / model
        index_videos([str(small_videos)], path, model=model, sampling=SamplingConfig(), run=run, in_process=True)
        return path

    return make


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint that was trained from the model of that name."""

    def write(model):
        path, trained = tmp_path / f"from-{model}.safetensors", load_videobert(model, runtime="torch")
        with torch.no_grad():
            trained.gate.mul_(0.5)
        save_checkpoint(trained, trained.config, base_checksums(trained.config), path)
        return str(path)

    return write


@pytest.fixture
def head(tmp_path):
    """A head that says "bright" where the first feature is above its mean, for features of that fingerprint."""

    def write(fingerprint):
        classifier = Classifier(["bright", "dark"], 1280, multi_label=False, frames_fingerprint=fingerprint)
        with torch.no_grad():
            classifier.head.output.weight[0, 0] = 1
        save_classifier(classifier.eval(), tmp_path / "head.safetensors")
        return tmp_path / "head.safetensors"

    return write


def _vectors(path):
    snapshot = IndexStore.open(path).snapshot()
    rows = snapshot.read(range(snapshot.num_segments), ["segment_id", "embedding"]).to_pylist()
    return np.array([row["embedding"] for row in sorted(rows, key=lambda row: row["segment_id"])])


@pytest.mark.parametrize("others", [("mini", "mini-zero"), ("mini-int8", "mini-zero"), ("mini", "tiny_test")])
def test_features_of_other_backbones_are_not_alike(others):
    assert not frames_alike(*map(frames_fingerprint, others))


def test_features_of_what_was_trained_on_either_are_alike(checkpoint):
    prints = [frames_fingerprint(checkpoint(model)) for model in _MODELS]
    assert prints[0] != prints[1]
    assert frames_alike(*prints)
    assert frames_alike(prints[0], frames_fingerprint("mini-int8"))


@pytest.mark.parametrize(("model", "other"), [_MODELS, _MODELS[::-1]])
def test_refresh_goes_between_the_two_and_comes_near_to_a_fresh_index(index_with, small_videos, model, other):
    path, fresh = index_with(model), index_with(other)
    refresh_index(path, model=other)
    cosines = (_vectors(path) * _vectors(fresh)).sum(axis=1)
    assert cosines.min() > 0.98
    assert cosines.min() < 1 - 1e-6  # the features that are stored are still those of the first
    assert verify(IndexStore.open(path)) == []
    run = RunConfig()
    again = index_videos([str(small_videos)], path, model=other, sampling=SamplingConfig(), run=run, in_process=True)
    assert again.unchanged == 3


def test_checkpoint_trained_from_mini_goes_over_an_index_of_mini_int8(index_with, checkpoint):
    path, trained = index_with("mini-int8"), checkpoint("mini")
    assert refresh_index(path, model=trained).segments == 4
    assert IndexStore.open(path).config.model == trained


@pytest.mark.parametrize("trained_with", _MODELS)
def test_head_of_either_classifies_an_index_of_mini_int8(index_with, head, trained_with):
    index = VideoIndex.open(index_with("mini-int8"))
    moments = classify_index(index, head(frames_fingerprint(trained_with)))
    assert len(moments) == 4
    assert {label.label for label in moments[0].ranked} == {"bright", "dark", "none of these"}


def test_head_of_another_backbone_is_refused(index_with, head):
    index = VideoIndex.open(index_with("mini-int8"))
    with pytest.raises(IndexSettingsError, match="frame features of another model"):
        classify_index(index, head(frames_fingerprint("mini-zero")))


def test_pretraining_takes_either_model_for_an_index_of_the_other(index_with):
    path = str(index_with("mini-int8"))
    assert [open_index(path, model)[1] for model in (None, "mini")] == ["mini-int8", "mini"]
    with pytest.raises(IndexSettingsError, match="whose frame features are others"):
        open_index(path, "mini-zero")
