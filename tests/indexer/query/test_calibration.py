import numpy as np
import pytest

from indexer.query.calibration import Calibration
from indexer.query.labels import zero_shot


def unit(count, dim=32, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_confidence_is_the_share_of_background_queries_that_stand_out_less():
    sample, background, query = unit(50), unit(40, seed=1), unit(1, seed=2)
    calibration = Calibration(sample, background)

    def z(vector, score):
        scores = [float(vector @ moment) for moment in sample]
        return (score - np.mean(scores)) / np.std(scores)

    score = 0.5
    wanted = np.mean([z(b, max(float(b @ m) for m in sample)) < z(query[0], score) for b in background])
    assert calibration.confidences(query, [[score]])[0][0] == pytest.approx(wanted)


def test_one_in_twenty_unrelated_queries_is_called_a_match():
    sample, background, queries = unit(200), unit(400, seed=1), unit(400, seed=2)
    calibration = Calibration(sample, background)
    best = [[float((sample @ query).max())] for query in queries]
    matched = [calibration.is_match(c[0]) for c in calibration.confidences(queries, best)]
    assert 0.02 <= np.mean(matched) <= 0.09


def test_a_query_that_is_in_the_collection_is_matched():
    sample = unit(200)
    calibration = Calibration(sample, unit(400, seed=1))
    assert calibration.is_match(calibration.confidences(sample[:1], [[1.0]])[0][0])


def test_zero_shot_is_the_softmax_of_scaled_cosines():
    class Encoder:
        def encode(self, texts):
            assert texts == ["a b", "a c"]
            return unit(2, seed=4)

    moments = unit(3)
    scores = zero_shot(moments, ["b", "c"], Encoder(), prompt="a {label}", temperature=0.1)
    logits = np.exp(moments @ unit(2, seed=4).T / 0.1)
    np.testing.assert_allclose(scores, logits / logits.sum(axis=1, keepdims=True), rtol=1e-5)
