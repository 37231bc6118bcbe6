import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.classifier import Classifier, load_classifier, save_classifier
from model.errors import InputError, WeightsDamagedError, WeightsNotFoundError


def make(multi_label: bool) -> Classifier:
    classifier = Classifier(["cat", "dog", "Füchse"], 6, multi_label=multi_label, frames_fingerprint="f" * 32)
    torch.manual_seed(0)
    with torch.no_grad():
        classifier.head.output.weight.normal_()
        classifier.mean.normal_()
        classifier.thresholds.copy_(torch.tensor([0.3, 0.4, 0.9] if multi_label else [0.5] * 3))
    return classifier.eval()


@pytest.fixture
def videos():
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(20, 4, generator=generator) < 0.6
    mask[:, 0] = True
    return torch.randn(20, 4, 2, 6, generator=generator), mask


@pytest.mark.parametrize("multi_label", [False, True])
def test_classifier_comes_back_as_it_was_saved(tmp_path, videos, multi_label):
    classifier = make(multi_label)
    save_classifier(classifier, tmp_path / "head.safetensors")
    again = load_classifier(tmp_path / "head.safetensors")
    assert (again.labels, again.multi_label) == (classifier.labels, multi_label)
    assert again.frames_fingerprint == "f" * 32
    assert torch.equal(again.scores(*videos), classifier.scores(*videos))


def test_classifier_does_not_look_at_padding(videos):
    features, mask = videos
    expected = make(False).predict(features, mask)
    features = torch.where(mask[:, :, None, None], features, torch.nan)
    torch.testing.assert_close(make(False).predict(features, mask), expected)


def test_scores_say_none_exactly_where_no_class_reaches_the_threshold(videos):
    classifier = make(False)
    probabilities, scores = classifier.predict(*videos), classifier.scores(*videos)
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(20))
    none = scores.argmax(dim=1) == 3
    assert 0 < none.sum() < 20
    assert torch.equal(none, probabilities.amax(dim=1) < 0.5)
    assert torch.equal(scores[:, :3].argmax(dim=1), probabilities.argmax(dim=1))


def test_scores_of_several_labels_pass_a_half_at_their_thresholds(videos):
    classifier = make(True)
    probabilities, scores = classifier.predict(*videos), classifier.scores(*videos)
    assert torch.equal(scores[:, :3] > 0.5, probabilities > classifier.thresholds)
    assert torch.equal(scores[:, 3] > 0.5, ~(probabilities > classifier.thresholds).any(dim=1))


def test_classifier_standardises_its_inputs():
    classifier = make(False)
    means = torch.tensor(np.random.default_rng(0).normal(5, 3, (200, 6)), dtype=torch.float32)
    means[:, 2] = 7.0  # a feature that never varies
    classifier.standardise(means)
    inputs = (means - classifier.mean) / classifier.std
    assert inputs.mean(dim=0).abs().max() < 1e-3
    assert inputs[:, [0, 1, 3]].std(dim=0).sub(1).abs().max() < 0.01
    assert inputs[:, 2].abs().max() < 1


def test_classifier_refuses_features_of_another_width(videos):
    with pytest.raises(InputError, match=r"features must be \[B, T, K, 6\], got \[20, 4, 2, 5\]"):
        make(False).predict(videos[0][..., :5], videos[1])


@pytest.mark.parametrize(
    "damage", [lambda data: data[:100], lambda data: data[:-8], lambda data: b"", lambda data: b"nonsense" * 40]
)
def test_head_that_is_damaged_is_refused(tmp_path, damage):
    path = tmp_path / "head.safetensors"
    save_classifier(make(False), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsDamagedError, match="cannot be read"):
        load_classifier(path)


def test_head_of_other_weights_is_refused(tmp_path):
    path = tmp_path / "head.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(
        WeightsDamagedError, match="no classification head: its format must be 'videobert-head-1', got None"
    ):
        load_classifier(path)
    save_classifier(make(False), path)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = file.metadata()
    save_file({**load_file(path), "surplus": torch.zeros(1)}, path, metadata=facts)
    with pytest.raises(WeightsDamagedError, match="surplus"):
        load_classifier(path)


def test_head_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(WeightsNotFoundError, match="there is no head"):
        load_classifier(tmp_path / "none.safetensors")
