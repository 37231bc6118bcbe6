import numpy as np
import pytest

from benchmarks.moment_vectors import MOMENTS_PER_VIDEO, Collection
from benchmarks.vectors import run


@pytest.fixture(scope="module")
def moments() -> np.ndarray:
    return np.concatenate(list(Collection(7_200).parts(3_000)))


def test_the_same_seed_gives_the_same_moments_of_length_one(moments):
    np.testing.assert_array_equal(moments, np.concatenate(list(Collection(7_200).parts(3_000))))
    np.testing.assert_allclose(np.linalg.norm(moments, axis=1), 1, atol=1e-5)


def test_moments_of_a_video_are_more_alike_than_those_of_others(moments):
    likeness = moments[:: MOMENTS_PER_VIDEO * 10] @ moments.T
    nearest = np.argsort(-likeness, axis=1)[:, :MOMENTS_PER_VIDEO] // MOMENTS_PER_VIDEO
    assert (nearest == 10 * np.arange(len(nearest))[:, None]).mean() > 0.5


def test_the_collection_lies_as_the_docstring_says(moments):
    variance = np.linalg.eigvalsh(np.cov(moments.T))[::-1]
    shares = (variance / variance.sum())[[0, 1, 4, 9, 19]]
    np.testing.assert_allclose(shares, [0.18, 0.10, 0.06, 0.03, 0.01], atol=0.05)
    best = np.sort(Collection(7_200).texts(200, seed=1) @ moments.T, axis=1)[:, ::-1]
    np.testing.assert_allclose(best[:, [0, 9, 99]].mean(axis=0), [0.67, 0.59, 0.48], atol=0.05)


@pytest.mark.slow
def test_the_benchmark_runs_with_fewer_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.vectors.report", lambda name, figures: None)
    figures, ours = run(tmp_path, 6_000, lancedb="", kinds=())
    assert ours["recall"] == 1.0, "so few are compared one by one"
    assert sum(name.startswith("search, ") for name in figures) == 7
    assert figures["memory of its own"].endswith("MB of mapped files")
