"""The probe: scikit-learn's problem, solved; chosen on val; one score on test."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from simclic import InputError, Linear
from simclic.data.images import Images
from simclic.linear import binary_path, features, path, probe
from simclic.method import Pixels


def problem(kind):
    rng = np.random.default_rng(0)
    if kind == "tall":
        x, y = make_classification(400, 20, n_informative=10, n_classes=4, flip_y=0.2, random_state=0)
    elif kind == "wide":
        x, y = make_classification(60, 120, n_informative=20, n_classes=3, random_state=0)
    elif kind == "binary":
        x, y = make_classification(300, 10, flip_y=0.3, random_state=0)
    elif kind == "badly scaled":
        x, y = make_classification(300, 12, n_informative=8, n_classes=3, flip_y=0.2, random_state=0)
        x = x * 10.0 ** rng.uniform(-2, 2, 12) + 50
    else:  # two columns alike
        x, y = make_classification(300, 12, n_informative=8, n_classes=3, flip_y=0.2, random_state=0)
        x[:, 3] = x[:, 5]
    return x, y


@pytest.mark.parametrize("kind", ["tall", "wide", "binary", "badly scaled", "two columns alike"])
def test_the_objective_is_scikit_learns_and_its_minimum_too(kind):
    x, y = problem(kind)
    classes, tight = len(np.unique(y)), Linear(tolerance=1e-7, iterations=10_000)
    for fit in path(x, y, classes, (1e2, 1.0, 1e-2), tight):
        assert fit.converged
        # With two classes scikit-learn has one weight vector where we have two of half the length each: l2/2 there.
        sk = LogisticRegression(C=(2 if classes == 2 else 1) / fit.l2, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(
            x, y
        )
        loss = -sk.predict_log_proba(x)[np.arange(len(y)), y].sum()
        objective = loss + fit.l2 / (4 if classes == 2 else 2) * (sk.coef_**2).sum()
        assert fit.objective <= objective * (1 + 1e-6)
        scores = fit.scores(x)
        by_hand = -(
            scores - np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1, keepdims=True)) - scores.max(1, keepdims=True)
        )
        assert fit.objective == pytest.approx(by_hand[np.arange(len(y)), y].sum() + fit.l2 / 2 * (fit.weights**2).sum(), rel=1e-9)
        assert (scores.argmax(1) == sk.predict(x)).mean() > 0.99


def test_the_path_does_not_depend_on_where_it_came_from():
    x, y = problem("tall")
    tight = Linear(tolerance=1e-8, iterations=10_000)
    (alone,) = path(x, y, 4, [0.1], tight)
    last = list(path(x, y, 4, [1e4, 10.0, 0.1], tight))[-1]
    assert alone.objective == pytest.approx(last.objective, rel=1e-9)
    assert np.allclose(alone.scores(x), last.scores(x), atol=1e-3)


def test_a_problem_that_did_not_converge_says_so():
    x, y = problem("tall")
    (fit,) = path(x, y, 4, [1e-3], Linear(iterations=3))
    assert not fit.converged
    assert fit.iterations == 3


def test_a_class_that_training_never_saw_is_never_predicted():
    x, y = problem("tall")
    (fit,) = path(x, np.where(y == 3, 5, y), 7, [1.0], Linear())
    assert set(fit.scores(x).argmax(axis=1)) <= {0, 1, 2, 5}


def test_bad_features_are_one_line():
    x, y = problem("tall")
    with pytest.raises(InputError, match="all 400 training images are of class 0"):
        list(path(x, np.zeros(400, int), 4, [1.0], Linear()))
    x[3, 3] = np.nan
    with pytest.raises(InputError, match="features are not finite"):
        list(path(x, y, 4, [1.0], Linear()))


def test_probe_on_raw_digits(digits):
    images = Images(digits, 8, torch.device("cpu"))
    told = []
    protocol = Linear(l2_count=7, tolerance=1e-3)
    record, truth, scores = probe(protocol, Pixels(8).eval(), digits, images, lambda share, note: told.append(share))
    assert [row["l2"] for row in record["curve"]] == list(protocol.l2[::-1])
    best = min(row["error"] for row in record["curve"])
    strongest = max(row["l2"] for row in record["curve"] if row["error"] == best)
    assert (record["chosen"]["l2"], record["chosen"]["val_error"]) == (strongest, best)  # chosen on val, ties to the stronger
    assert record["error"] == pytest.approx(100 * (scores.argmax(1) != truth).mean())
    assert (truth == digits.labels[digits.splits.test]).all()
    assert record["error"] < 6
    assert told == sorted(told)
    assert len(told) == 7


def test_features_are_the_backbones_output_untouched(digits):
    images = Images(digits, 8, torch.device("cpu"))
    x = features(Pixels(8).eval(), images, np.array([5, 3]))
    assert x.dtype == np.float64
    assert np.allclose(x[0], images(torch.tensor([5])).flatten().numpy())


def test_several_classes_an_image_are_scikit_learns_binary_problems_at_twice_c():
    x, y = problem("tall")
    shown = np.stack([y == 0, y <= 1, y == 3], axis=1).astype(int)
    tight = Linear(tolerance=1e-8, iterations=10_000)
    for fit in binary_path(x, shown, (10.0, 0.1), tight):
        scores = fit.scores(x)
        for k in range(3):
            sk = LogisticRegression(C=2 / fit.l2, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(x, shown[:, k])
            assert np.allclose(scores[:, k], sk.decision_function(x), atol=1e-4)
        assert fit.converged


def test_an_image_that_is_not_to_be_judged_is_not_learned_from():
    x, y = problem("tall")
    shown = np.stack([y == 0, y <= 1], axis=1).astype(int)
    shown[:50, 0] = -1
    tight = Linear(tolerance=1e-8, iterations=10_000)
    (fit,) = binary_path(x, shown, [1.0], tight)
    (alone,) = binary_path(x[50:], shown[50:, :1], [1.0], tight)
    assert np.allclose(fit.scores(x)[:, 0], alone.scores(x)[:, 0], atol=1e-4)
    with pytest.raises(InputError, match="class 1: 400 training images and all show it, or none does"):
        list(binary_path(x, np.stack([y == 0, y < 9], axis=1).astype(int), [1.0], tight))
