import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from indexer.training.classes import best_thresholds, none_threshold
from indexer.training.classes_report import draw_confusion
from indexer.training.metrics import average_precision, class_table, confusion_matrix, retrieval_metrics
from indexer.training.split import hold_out


def test_retrieval_metrics_are_those_of_a_list_ranked_by_hand():
    similarity = np.array([[0.9, 0.1, 0.5], [0.6, 0.2, 0.3], [0.1, 0.2, 0.3], [0.5, 0.5, 0.6]])
    metrics = retrieval_metrics(similarity, np.array([0, 1, 2, 0]))  # ranks 1, 3, 1, 2
    assert metrics["recall@1"] == 50
    assert metrics["recall@5"] == 100
    assert metrics["mrr"] == pytest.approx((1 + 1 / 3 + 1 + 1 / 2) / 4)
    assert metrics["median_rank"] == 1.5


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    truth = random.random(40) < 0.3
    truth[0] = True
    scores = random.integers(0, 12, 40) / 12  # with ties
    assert average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))


def test_average_precision_is_undefined_without_a_true_item():
    assert np.isnan(average_precision(np.ones(3), np.zeros(3, bool)))


def test_class_table_counts_right_and_wrong_answers():
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], bool)
    predicted = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], bool)
    one, two = class_table(predicted.astype(float), truth, predicted, ["one", "two"])
    assert (one["items"], one["predicted"], one["precision"], one["recall"]) == (2, 1, 1.0, 0.5)
    assert (two["precision"], two["recall"], two["f1"]) == (pytest.approx(2 / 3), 1.0, pytest.approx(0.8))


def test_confusion_matrix_has_the_true_class_in_rows():
    assert confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist() == [[1, 1], [0, 1]]


def test_confusion_picture_is_dark_where_answers_were_right():
    picture = draw_confusion(np.array([[9, 0], [0, 5]]), ["a", "b"])
    height, width, _ = picture.shape
    cells = picture[height - 78 : height - 22, width - 68 : width - 12]  # two by two cells of 28 px
    assert cells[24, 24].mean() < 150
    assert cells[24, 52].mean() > 240


def test_hold_out_never_parts_copies_and_takes_its_share_of_each_class():
    keys = [f"file {i // 2}" for i in range(80)]  # two copies of each
    classes = ["few" if i < 8 else "many" for i in range(80)]
    held_out = hold_out(keys, classes, 0.25, seed=0)
    assert (held_out[::2] == held_out[1::2]).all()
    assert (held_out[:8].sum(), held_out[8:].sum()) == (2, 18)
    assert (held_out == hold_out(keys, classes, 0.25, seed=0)).all()
    assert (held_out != hold_out(keys, classes, 0.25, seed=1)).any()


def test_hold_out_leaves_something_to_train_on():
    assert hold_out(["a", "b"], [0, 0], 0.1, 0).sum() == 1
    assert hold_out(["a", "a"], [0, 0], 0.9, 0).sum() == 0
    assert hold_out(["a", "b"], [0, 0], 0.0, 0).sum() == 0


def test_none_threshold_lets_nearly_all_right_answers_pass():
    scores = np.stack([np.linspace(0.6, 1, 101), 1 - np.linspace(0.6, 1, 101)], axis=1)
    threshold = none_threshold(scores, np.tile([True, False], (101, 1)))
    assert threshold == pytest.approx([0.62, 0.62])
    assert none_threshold(scores, np.tile([False, True], (101, 1))) == pytest.approx([0.5, 0.5])


def test_best_thresholds_part_true_from_false():
    scores = np.array([[0.1, 0.2], [0.3, 0.2], [0.35, 0.1], [0.9, 0.3]])
    truth = np.array([[0, 0], [0, 0], [1, 0], [1, 0]], bool)
    assert best_thresholds(scores, truth) == pytest.approx([0.325, 0.5])
