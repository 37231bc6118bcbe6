from __future__ import annotations

import numpy as np
import pytest

from indexer.ingest.twins import TwinFinder, block_means, sharpness


@pytest.fixture
def scene():
    """uint8 [224, 224, 3] with large shapes and fine detail."""
    random = np.random.default_rng(0)
    coarse = random.integers(40, 216, (8, 8, 3)).repeat(28, 0).repeat(28, 1)
    return (coarse + random.integers(-20, 20, (224, 224, 3))).astype(np.uint8)


def twins(*pictures):
    """For each picture the number of the one whose features it takes."""
    finder = TwinFinder()
    return [finder.twin_of(i, picture) for i, picture in enumerate(pictures)]


def blurred(picture):
    padded = np.pad(picture.astype(np.float32), ((2, 2), (2, 2), (0, 0)), mode="edge")
    shifted = [padded[y : y + 224, x : x + 224] for y in range(5) for x in range(5)]
    return np.mean(shifted, axis=0).astype(np.uint8)


def test_same_picture_is_a_twin(scene):
    assert twins(scene, scene.copy(), scene.copy()) == [0, 0, 0]


def test_noise_of_a_codec_makes_no_difference(scene):
    noisy = (scene.astype(int) + np.random.default_rng(1).integers(-2, 3, scene.shape)).clip(0, 255).astype(np.uint8)

    assert twins(scene, noisy) == [0, 0]


def test_small_thing_that_appears_makes_a_difference(scene):
    changed = scene.copy()
    changed[100:114, 60:74] = 255

    assert twins(scene, changed) == [0, 1]


def test_blurred_picture_is_no_twin_of_the_sharp_one(scene):
    assert np.abs(block_means(scene) - block_means(blurred(scene))).mean() < 8
    assert sharpness(blurred(scene)) < sharpness(scene) / 10
    assert twins(scene, blurred(scene)) == [0, 1]


def test_slow_change_does_not_add_up_unseen(scene):
    pictures = [(scene * (1 - 0.01 * i)).astype(np.uint8) for i in range(30)]

    found = twins(*pictures)

    for number, twin in enumerate(found):
        difference = np.abs(block_means(pictures[number]) - block_means(pictures[twin])).max()
        assert difference < 8
    assert 1 < len(set(found)) < 30


def test_black_between_scenes_is_encoded_once(scene):
    black = np.zeros_like(scene)

    assert twins(black, scene, black, scene[::-1], black + np.uint8(3)) == [0, 1, 0, 3, 0]


def test_scene_that_comes_back_is_encoded_again(scene):
    assert twins(scene, scene[::-1], scene) == [0, 1, 2]


def test_black_and_white_are_no_twins(scene):
    assert twins(np.zeros_like(scene), np.full_like(scene, 255)) == [0, 1]


@pytest.mark.parametrize("size", [16, 33, 64, 224])
def test_block_means_are_means_of_blocks_of_any_size(size):
    picture = np.random.default_rng(2).integers(0, 256, (size, size, 3), np.uint8)

    means = block_means(picture)

    edges = [b * size // 32 for b in range(33)]
    rows = [edges[b] for b in range(32) if edges[b] < edges[b + 1] or size < 32]
    assert means.shape == ((32, 32, 3) if size >= 32 else (size, size, 3))
    if size >= 32:
        block = picture[rows[3] : edges[4], rows[5] : edges[6]].reshape(-1, 3).mean(0)
        np.testing.assert_allclose(means[3, 5], block, rtol=1e-5)
    assert twins(picture, picture) == [0, 0]
