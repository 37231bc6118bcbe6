from types import SimpleNamespace

import numpy as np
import pytest

from indexer.query import calibration as module
from indexer.query.calibration import MATCH_CONFIDENCE, Background, Calibration, percent


def unit(count, dim=32, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Moments:
    """What calibration asks of a snapshot, by brute force."""

    def __init__(self, vectors, video_rows=None):
        self.vectors = vectors
        self.num_segments = len(vectors)
        self.rows = SimpleNamespace(video_rows=np.arange(len(vectors)) if video_rows is None else video_rows)

    def search(self, queries, k):
        scores = queries @ self.vectors.T
        rows = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(scores, rows, 1), rows

    def vectors_of(self, rows):
        return self.vectors[rows]


class Encoder:
    """Texts to random vectors, the same for the same text."""

    def __init__(self, dim=32):
        self.dim = dim

    def encode(self, texts):
        return np.vstack([unit(1, self.dim, seed=[len(text), *text.encode()]) for text in texts])


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_confidence_is_the_share_of_background_queries_that_stand_out_less():
    calibration = Calibration(np.array([0.4, 0.1, 0.3, 0.2]), 0.1)
    found = calibration.confidences(np.array([0.05, 0.15, 0.35, 0.9]), np.empty((4, 2)), "")
    assert found.tolist() == [0.0, 0.25, 0.75, 1.0]


def test_standing_out_is_measured_against_the_nearest_other_queries():
    queries, moments = unit(60), unit(7, seed=1)
    cosines = queries @ moments.T
    expected = []
    for query in range(len(queries)):
        others = np.sort(np.delete(cosines, query, axis=0), axis=0)[-20:].mean(axis=0)
        nearest = np.argsort(-cosines[query])[:3]
        expected.append((cosines[query] - others)[nearest].max())
    background = Background(queries, np.full(len(queries), 5))
    snapshot = Moments(moments)
    found = module._standing_out(snapshot, background, *snapshot.search(queries, 3))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_query_that_finds_nothing_does_not_count():
    snapshot = Moments(unit(7))
    background = Background(unit(60, seed=1), np.full(60, 5))
    cosines, rows = snapshot.search(background.vectors, 3)
    cosines[4], rows[4] = -np.inf, -1
    cosines[9, 1:], rows[9, 1:] = -np.inf, -1
    found = module._standing_out(snapshot, background, cosines, rows)
    assert np.flatnonzero(np.isinf(found)).tolist() == [4]


def test_what_goes_with_the_length_of_a_query_is_taken_off():
    background = Background(np.zeros((40, 8), np.float32), np.tile([1, 2, 5, 20], 10))
    noise = np.linspace(-0.01, 0.01, 10).repeat(4)
    calibration = Calibration(0.1 + 0.05 * np.log(background.num_words) + noise, 0.1, background)
    moments = np.zeros((1, 8), np.float32)
    for text in ("cat", "two cats", "a cat on a mat", " ".join(["word"] * 20)):
        usual = 0.1 + 0.05 * np.log(len(text.split()))
        assert calibration.confidences(np.array([usual + 0.005]), moments, text)[0] == pytest.approx(0.7, abs=0.1)
    longest, longer = " ".join(["word"] * 20), " ".join(["word"] * 500)
    score = np.array([0.26])
    assert calibration.confidences(score, moments, longer) == calibration.confidences(score, moments, longest)


def test_unrelated_queries_are_called_a_match_as_rarely_as_promised():
    moments, encoder, queries = unit(200), Encoder(), unit(400, seed=2)
    calibration = Calibration.fit(Moments(moments), encoder, "fingerprint")
    sure = [
        calibration.confidences(vector @ moments[nearest].T, moments[nearest], "five words in a query").max()
        for vector in queries
        for nearest in [np.argsort(-(moments @ vector))[:3]]
    ]
    assert np.mean([calibration.is_match(one) for one in sure]) == pytest.approx(1 - MATCH_CONFIDENCE, abs=0.06)


@pytest.mark.parametrize("num_moments", [1, 2, 200])
def test_query_that_is_in_the_collection_is_matched(num_moments):
    moments = unit(num_moments)
    calibration = Calibration.fit(Moments(moments), Encoder(), "fingerprint")
    assert calibration.is_match(calibration.confidences(np.ones(1), moments[:1], "what it shows")[0])


def test_moment_that_is_near_to_everything_must_score_more():
    near = unit(400, dim=8) + 2 * np.eye(8, dtype=np.float32)[0]
    background = Background(near / np.linalg.norm(near, axis=1, keepdims=True), np.full(400, 5))
    calibration = Calibration(np.linspace(-1, 1, 400), 0.1, background)
    near_to_all, near_to_few = np.eye(8, dtype=np.float32)[:2]
    sure = calibration.confidences(np.array([0.8, 0.8]), np.vstack([near_to_all, near_to_few]), "what it shows")
    assert sure[0] < sure[1] - 0.2


def test_spread_is_that_of_the_everyday_sentences():
    moments, encoder = unit(50), Encoder()
    lines = (module._EVERYDAY).read_text().splitlines()
    best = (encoder.encode(lines) @ moments.T).max(axis=1)
    assert Calibration.fit(Moments(moments), encoder, "fingerprint").spread == pytest.approx(best.std(), abs=1e-6)


def test_background_queries_are_of_every_length_and_each_there_once():
    texts = module._lines(module._EVERYDAY) + module._lines(module._SHORT_AND_LONG)
    assert len(set(texts)) == len(texts)
    lengths = np.array([module._num_words(text) for text in texts])
    assert all((lengths == num).sum() >= 3 for num in range(1, 16))


def test_background_vectors_are_kept_and_a_damaged_copy_is_made_anew(tmp_path):
    first = module.background_vectors(Encoder(), "fingerprint")
    np.testing.assert_array_equal(module.background_vectors(None, "fingerprint"), first)
    (file,) = (tmp_path / "videobert").glob("background-*.npy")
    file.write_bytes(b"damaged")
    np.testing.assert_array_equal(module.background_vectors(Encoder(), "fingerprint"), first)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, ">99%"), (0.991, ">99%"), (0.99, "99%"), (0.989, "98%"), (0.975, "97%"), (0.0, "0%"), (-0.1, "0%")],
)
def test_percent_is_never_certain_and_never_rounded_up(share, expected):
    assert percent(share) == expected


@pytest.mark.parametrize("hundredths", range(1, 100))
def test_percent_reaches_a_border_just_when_the_value_does(hundredths):
    border = hundredths / 100  # as in `share >= 0.85`
    assert percent(border) == f"{hundredths}%"
    assert percent(float(np.nextafter(border, 0))) == f"{hundredths - 1}%"
