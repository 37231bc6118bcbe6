import numpy as np
import pytest

from indexer.config import IndexConfig
from indexer.store.tuning import recall, text_queries, tune
from model.weights import load_text_encoder, model_facts


def config_of(fingerprint):
    return IndexConfig(model="tiny_test", model_fingerprint=fingerprint, embedding_dim=8, feature_shape=(1, 4))


def test_recall_is_the_share_that_was_found():
    assert recall(np.array([[1, 2, -1], [7, 8, 9]]), np.array([[2, 1, 3], [9, 8, 7]])) == pytest.approx(5 / 6)


def test_tuning_finds_the_first_setting_that_reaches_the_target():
    """Twenty queries; setting s finds the neighbours of the first s."""
    exact = np.arange(20)[:, None] + np.zeros(10, np.int64)
    asked = []

    def search(queries, setting):
        asked.append(setting)
        return np.where(np.arange(20)[:, None] < setting, exact, -1)

    assert 20 <= tune(search, exact, exact, 64) == asked[-1] <= 25
    assert all(setting < 20 for setting in asked[:-1])
    assert tune(lambda queries, setting: -exact - 1, exact, exact, 64) == 64, "nothing reaches it"


def test_texts_are_those_of_the_model_that_made_the_index():
    texts = text_queries(config_of(model_facts("tiny_test").fingerprint))
    assert len(texts) > 200
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    assert np.asarray(load_text_encoder("tiny_test").encode(["x"])).shape[1] == texts.shape[1]


def test_there_are_no_texts_where_another_model_is_installed():
    assert text_queries(config_of("0" * 64)) is None
