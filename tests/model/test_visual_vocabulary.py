"""The visual vocabulary: against brute force, against scikit-learn, in double precision, and on disk."""

from __future__ import annotations

import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.errors import InputError, WeightsDamagedError, WeightsNotFoundError
from model.visual_vocabulary import VisualVocabulary


def _blobs(num: int, width: int = 6, centres: int = 30, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    means = 3 * torch.randn(centres, width, generator=generator)
    chosen = torch.randint(centres, (num,), generator=generator)
    return means[chosen] + torch.randn(num, width, generator=generator)


def _inertia(vocabulary: VisualVocabulary, features: torch.Tensor) -> float:
    return (features - vocabulary.centroid(vocabulary.words(features))).square().sum().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_words_of_one_level_are_those_of_the_nearest_centroid(dtype):
    features = _blobs(3000).to(dtype)
    vocabulary = VisualVocabulary.fit(features[:1500], 9, 1)
    assert vocabulary.levels[0].centroids.dtype == dtype
    centroids = vocabulary.centroid(torch.arange(9)).double()
    expected = (features.double()[:, None] - centroids).square().sum(dim=2).argmin(dim=1)
    assert torch.equal(vocabulary.words(features), expected)


def test_words_of_a_tree_follow_the_nearest_child_at_each_level():
    features = _blobs(1000)
    vocabulary = VisualVocabulary.fit(features, 3, 3)
    assert vocabulary.num_words == 27
    words = vocabulary.words(features).tolist()
    for feature, word in zip(features.double(), words, strict=True):
        node = 0
        for centroids, first_child in vocabulary.levels:
            children = range(int(first_child[node]), int(first_child[node + 1]))
            node = min(children, key=lambda child: float((centroids[child].double() - feature).square().sum()))
        assert word == node


def test_centroids_of_one_level_are_the_means_of_their_features():
    features = _blobs(800).double()
    vocabulary = VisualVocabulary.fit(features, 5, 1)
    words = vocabulary.words(features)
    for word in range(5):
        mean = features[words == word].mean(dim=0)
        assert (vocabulary.centroid(torch.tensor([word]))[0] - mean).norm() < 0.1  # the last iterations gain little


def test_inertia_is_that_of_scikit_learns_kmeans_within_five_per_cent():
    cluster = pytest.importorskip("sklearn.cluster")
    features = _blobs(2000)
    ours, theirs = [], []
    for seed in range(3):
        ours.append(_inertia(VisualVocabulary.fit(features, 12, 1, seed), features))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, which are not what is tested
            theirs.append(cluster.KMeans(12, n_init=1, random_state=seed).fit(features.numpy()).inertia_)
    assert sum(ours) < 1.05 * sum(theirs)


def test_inertia_falls_with_each_level():
    features = _blobs(2000)
    inertia = [_inertia(VisualVocabulary.fit(features, 4, levels), features) for levels in (1, 2, 3)]
    assert inertia[0] > inertia[1] > inertia[2]


def test_half_precision_features_give_the_vocabulary_of_the_same_numbers_in_single():
    features = _blobs(500).half()
    assert VisualVocabulary.fit(features, 4, 2).fingerprint == VisualVocabulary.fit(features.float(), 4, 2).fingerprint


def test_fit_is_the_same_under_the_same_seed_whatever_the_random_state():
    features = _blobs(500)
    torch.manual_seed(1)
    first = VisualVocabulary.fit(features, 4, 2, seed=3)
    torch.manual_seed(2)
    again, other = VisualVocabulary.fit(features, 4, 2, seed=3), VisualVocabulary.fit(features, 4, 2, seed=4)
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_every_different_feature_is_a_word_when_there_are_fewer_than_leaves():
    different = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    features = different[torch.arange(50) % 7]
    vocabulary = VisualVocabulary.fit(features, 4, 3)
    assert vocabulary.num_words == 7
    assert torch.equal(vocabulary.centroid(vocabulary.words(features)), features)


def test_one_feature_is_one_word():
    vocabulary = VisualVocabulary.fit(torch.ones(1, 3), 12, 4)
    assert (vocabulary.num_words, vocabulary.words(torch.randn(5, 3)).tolist()) == (1, [0] * 5)


def test_no_word_is_without_features_however_uneven_they_are():
    features = torch.cat([torch.zeros(900, 2), torch.randn(60, 2), 100 + torch.randn(40, 2)])
    vocabulary = VisualVocabulary.fit(features, 5, 2)
    assert vocabulary.words(features).bincount(minlength=vocabulary.num_words).min() > 0


def test_saved_vocabulary_gives_the_same_words(tmp_path):
    features = _blobs(300)
    vocabulary = VisualVocabulary.fit(features, 4, 2)
    vocabulary.save(tmp_path / "words.safetensors")
    loaded = VisualVocabulary.load(tmp_path / "words.safetensors")
    assert loaded.fingerprint == vocabulary.fingerprint
    assert torch.equal(loaded.words(features), vocabulary.words(features))


def test_load_refuses_what_is_no_vocabulary(tmp_path):
    path = tmp_path / "words.safetensors"
    with pytest.raises(WeightsNotFoundError, match="no visual vocabulary"):
        VisualVocabulary.load(path)
    VisualVocabulary.fit(_blobs(50), 3, 1).save(path)
    tensors, whole = load_file(path), path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(WeightsDamagedError, match="cut short"):
        VisualVocabulary.load(path)
    save_file(tensors, path, metadata={"format": "something"})
    with pytest.raises(WeightsDamagedError, match="must have the format 'videobert-vocabulary-1', got 'something'"):
        VisualVocabulary.load(path)
    path.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(WeightsDamagedError, match="not what was written"):
        VisualVocabulary.load(path)


@pytest.mark.parametrize(
    ("features", "branching", "num_levels", "text"),
    [
        (torch.zeros(0, 3), 2, 1, r"N at least 1, got torch.float32 \[0, 3\]"),
        (torch.zeros(3, dtype=torch.int64), 2, 1, "features must be float"),
        (torch.zeros(3, 2), 1, 1, "branching must be at least 2, got 1"),
        (torch.zeros(3, 2), 2, 0, "num_levels must be at least 1, got 0"),
        (torch.tensor([[0.0], [torch.nan]]), 2, 1, "row 1 is not"),
    ],
)
def test_fit_refuses_bad_input(features, branching, num_levels, text):
    with pytest.raises(InputError, match=text):
        VisualVocabulary.fit(features, branching, num_levels)


def test_words_refuses_features_of_another_length():
    with pytest.raises(InputError, match=r"must be \[N, 6\], got \[2, 5\]"):
        VisualVocabulary.fit(_blobs(50), 3, 1).words(torch.zeros(2, 5))
