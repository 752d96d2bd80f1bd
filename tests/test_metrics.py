"""Each metric against scikit-learn or by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from simclic import InputError
from simclic.data.metrics import METRICS, mean_average_precision, mean_per_class, top_1


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


def test_the_baselines_11_points_differ_from_vocs_by_the_point_at_recall_0():
    truth, scores = np.array([[0], [1], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.1]])
    # precision is at most 2/3, at recall 1: VOC has 11 points of 2/3, the baselines have one of 1 at recall 0
    baselines = mean_average_precision(truth, scores)
    voc = mean_average_precision(truth, scores, as_baselines=False)
    assert voc == pytest.approx(100 - 100 * 2 / 3)
    assert baselines == pytest.approx(100 - 100 * (1 + 10 * 2 / 3) / 11)
    assert voc - baselines == pytest.approx(100 * (1 - 2 / 3) / 11)


def test_what_is_not_to_be_judged_and_what_nobody_shows_is_left_out():
    truth = np.array([[1, 0, 0], [-1, 0, 0], [1, 0, 1], [0, 0, 0]])
    scores = np.array([[0.9, 0.5, 0.1], [0.8, 0.5, 0.1], [0.7, 0.1, 0.9], [0.1, 0.5, 0.1]])
    assert mean_average_precision(truth, scores) == 0  # the second image counts neither way, the second class not at all
    assert mean_average_precision(np.maximum(truth, 0), scores) > 0
    with pytest.raises(InputError, match="none of 2 images shows any class"):
        mean_average_precision(np.zeros((2, 3)), np.zeros((2, 3)))


def test_average_precision_of_random_scores_is_scikit_learns_interpolated(scored):
    truth, scores = np.eye(5)[scored[0]].astype(int), scored[1]
    by_hand = []
    for k in range(5):
        order = np.argsort(-scores[:, k], kind="stable")
        hits = truth[order, k].cumsum()
        precision, recall = hits / np.arange(1, 201), hits / hits[-1]
        by_hand.append(np.mean([precision[recall >= r].max() for r in np.linspace(0, 1, 11)]))
    assert mean_average_precision(truth, scores, as_baselines=False) == pytest.approx(100 - 100 * np.mean(by_hand))


def test_perfect_scores_have_no_error(scored):
    truth = scored[0]
    one_hot = np.eye(5)[truth]
    assert top_1(truth, one_hot) == mean_per_class(truth, one_hot) == mean_average_precision(one_hot, one_hot) == 0
    assert set(METRICS) == {"top-1", "mean per class", "11-point mAP"}
