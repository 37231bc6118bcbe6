import numpy as np
import pyarrow as pa
import pytest

from indexer import schema
from indexer.query.labels import CALIBRATIONS, LabelCalibration, LabelScorer
from indexer.query.results import ClassifiedMoment
from model.labels import imagenet_classes
from model.weights import load_text_encoder

CALIBRATION = LabelCalibration(cosine=2.0, seen=3.0, elsewhere=1.0, none=0.5)


def unit(*vectors):
    vectors = np.array(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Encoder:
    """Known words get known vectors; every other sentence is noise."""

    def __init__(self, known):
        self.known = known

    def encode(self, texts):
        random = np.random.default_rng(0)
        return unit(*(self.known.get(text, random.standard_normal(8)) for text in texts))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def seen(*moments):
    return pa.array([[{"label": n, "score": s} for n, s in one] for one in moments], type=schema.LABELS_TYPE)


def test_score_of_one_label_is_the_logistic_function_of_its_evidence():
    evidence = np.array([[[1.5, 0.2, 0.1]]], dtype=np.float32)
    expected = 1 / (1 + np.exp(-(2.0 * 1.5 + 3.0 * 0.2 - 0.1 - 0.5)))
    np.testing.assert_allclose(CALIBRATION.scores(evidence), [[expected, 1 - expected]], rtol=1e-5)


def test_scores_add_up_to_one_with_none_of_these():
    evidence = np.random.default_rng(0).standard_normal((5, 7, 3)).astype(np.float32)
    scores = CALIBRATION.scores(evidence)
    assert scores.shape == (5, 8)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_labels_without_evidence_leave_none_as_likely_however_many_there_are():
    none = [CALIBRATION.scores(np.zeros((1, count, 3), dtype=np.float32))[0, -1] for count in (1, 10, 100)]
    np.testing.assert_allclose(none, [1 / (1 + np.exp(-0.5))] * 3, rtol=1e-5)


def test_standing_out_is_measured_against_the_background_sentences(monkeypatch):
    background = unit([1, 0, 0], [0, 1, 0], [1, 1, 0])
    monkeypatch.setattr("indexer.query.labels.background_vectors", lambda encoder, fingerprint: background)
    scorer = LabelScorer(["up"], Encoder({"up": [0.2, 0.1, 1.0]}), "tiny_test", "any")
    moments = unit([1, 2, 3], [0, 1, 1])
    usual = moments @ background.T
    expected = (moments @ unit([0.2, 0.1, 1.0]).T - usual.mean(axis=1, keepdims=True)) / usual.std(
        axis=1, keepdims=True
    )
    evidence = scorer.evidence(moments, seen([], []))
    np.testing.assert_allclose(evidence[:, :, 0], expected, rtol=1e-4)
    assert not evidence[:, :, 1:].any(), "the tiny model's classes are not ImageNet's"


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder("mini")


def evidence_of(encoder, labels, classes):
    vector = encoder.encode(["a photo"]).numpy()
    return LabelScorer(labels, encoder, "mini", "test").evidence(vector, seen(classes))[0]


def test_a_class_speaks_for_labels_that_mean_it_and_against_others(encoder):
    cat, wolf, train = evidence_of(encoder, ["a cat", "wolf", "train"], [("tabby", 0.6), ("timber wolf", 0.3)])
    assert cat[1] == pytest.approx(0.6, abs=0.03), '"tabby: a cat ..." holds the word'
    assert wolf[1] == pytest.approx(0.3, abs=0.03)
    assert train[1] < 0.02
    np.testing.assert_allclose([cat[2], wolf[2], train[2]], [0.0, 0.3, 0.6], atol=0.03)


def test_classes_that_nobody_knows_count_for_nothing(encoder):
    assert not evidence_of(encoder, ["a cat"], [("flux capacitor", 0.9)])[0, 1:].any()
    assert not evidence_of(encoder, ["a cat"], [])[0, 1:].any()


def test_moments_do_not_depend_on_their_company(encoder, monkeypatch):
    monkeypatch.setattr("indexer.query.labels._MOMENTS_PER_BATCH", 2)
    random = np.random.default_rng(0)
    names = [name for name, _ in imagenet_classes()]
    vectors = unit(*random.standard_normal((5, 384)))
    classes = [[(names[int(random.integers(1000))], 0.1) for _ in range(count)] for count in (0, 5, 1, 3, 2)]
    scorer = LabelScorer(["dog", "sea", "cooking"], encoder, "mini", "test")
    together = scorer.score(vectors, pa.chunked_array([seen(*classes[:3]), seen(*classes[3:])]))
    alone = [scorer.score(vectors[i : i + 1], seen(classes[i]))[0] for i in range(5)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("label", ["%s {x} {label}", "日本", "?!", "a", "x" * 5000])
def test_any_label_can_be_asked(encoder, label):
    scores = LabelScorer([label], encoder, "mini", "test").score(unit(np.ones(384)), seen([("tabby", 0.5)]))
    assert np.isfinite(scores).all()
    assert scores.sum() == pytest.approx(1, abs=1e-5)


def test_more_cosine_and_fitting_classes_never_count_against_a_label():
    for calibration in CALIBRATIONS.values():
        assert min(calibration.cosine, calibration.seen, calibration.elsewhere) > 0


def test_none_of_these_is_the_answer_where_it_is_likeliest():
    place = {"video": "v", "start_s": 0, "end_s": 1, "segment_id": 7}
    moment = ClassifiedMoment.of(["a", "b"], np.array([0.1, 0.3, 0.6]), **place)
    assert (moment.answer, [label.label for label in moment.labels]) == (None, ["b", "a"])
    assert [label.label for label in moment.ranked] == ["none of these", "b", "a"]
    assert moment.to_dict()["answer"] is None
    assert ClassifiedMoment.of(["a", "b"], np.array([0.1, 0.5, 0.4]), **place).answer == "b"
