import numpy as np

from indexer.query.calibration import Calibration


def unit(count, dim=32, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_confidence_is_the_share_of_background_queries_that_score_less():
    calibration = Calibration(np.array([0.4, 0.1, 0.3, 0.2]))
    assert [calibration.confidence(score) for score in (0.05, 0.15, 0.35, 0.9)] == [0.0, 0.25, 0.75, 1.0]


def test_one_in_five_unrelated_queries_is_called_a_match():
    moments, background, queries = unit(200), unit(400, seed=1), unit(400, seed=2)
    calibration = Calibration((background @ moments.T).max(axis=1))
    matched = [calibration.is_match(calibration.confidence(score)) for score in (queries @ moments.T).max(axis=1)]
    assert 0.15 <= np.mean(matched) <= 0.25


def test_a_query_that_is_in_the_collection_is_matched():
    moments = unit(200)
    calibration = Calibration((unit(400, seed=1) @ moments.T).max(axis=1))
    assert calibration.is_match(calibration.confidence(1.0))
