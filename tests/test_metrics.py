"""Each metric against scikit-learn or by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from simclic.metrics import METRICS, mean_average_precision, mean_per_class, top_1


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    truth = rng.choice(5, 200, p=(0.6, 0.2, 0.1, 0.07, 0.03))
    return truth, rng.normal(size=(200, 5)) + 1.5 * np.eye(5)[truth]


def test_top_1(scored):
    truth, scores = scored
    assert top_1(truth, scores) == pytest.approx(100 - 100 * accuracy_score(truth, scores.argmax(1)))


def test_mean_per_class(scored):
    truth, scores = scored
    assert mean_per_class(truth, scores) == pytest.approx(100 - 100 * balanced_accuracy_score(truth, scores.argmax(1)))
    assert abs(mean_per_class(truth, scores) - top_1(truth, scores)) > 0.5  # the classes are unbalanced, so they differ


def test_mean_per_class_leaves_out_classes_absent_from_the_truth():
    truth, scores = np.array([0, 0, 1]), np.eye(3)[[0, 2, 1]]  # class 2 is predicted but never true
    assert mean_per_class(truth, scores) == pytest.approx(25.0)


def test_11_point_map_by_hand():
    truth, scores = np.array([[1], [0], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.1]])
    # precision is 1 up to recall 0.5 and 2/3 beyond: six points of 1, five of 2/3
    assert mean_average_precision(truth, scores) == pytest.approx(100 - 100 * (6 + 5 * 2 / 3) / 11)


def test_perfect_scores_have_no_error(scored):
    truth = scored[0]
    one_hot = np.eye(5)[truth]
    assert top_1(truth, one_hot) == mean_per_class(truth, one_hot) == mean_average_precision(one_hot, one_hot) == 0
    assert set(METRICS) == {"top-1", "mean per class", "11-point mAP"}
