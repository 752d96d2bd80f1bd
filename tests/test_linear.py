"""The probe: scikit-learn's problem, solved to a proven gap; as the baselines' source did; chosen on val, one score on test."""

import math
import os
import signal
import time
import warnings
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import compute_results, spawned, tiny
from scipy.optimize import minimize
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from simclic import InputError, Linear, Run, data
from simclic.data.images import Images
from simclic.evaluate.linear import SOLVERS, frozen_features, linear_probe, newton, published
from simclic.evaluate.linear.frozen import extract_features
from simclic.evaluate.linear.space import Preconditioner, split_rows
from simclic.files import Broken, write_json
from simclic.methods.backbones import Pixels, build_backbone
from simclic.store import results as store
from simclic.store.run_folder import RunFolder

CPU = torch.device("cpu")
VALUES = (1e4, 1e2, 1.0, 1e-1, 1e-2, 1e-3)
KINDS = ("digits", "tall", "wide", "unbalanced", "binary", "100 classes", "badly scaled", "two columns alike")


def problem(kind):
    """Features float32, labels, and how many of the first images are for training."""
    rng = np.random.default_rng(0)
    if kind == "digits":  # real images, separable
        digits = data.load("digits", "ericsson", None)
        return digits.images[:, 0].reshape(-1, 64)[:900].astype(np.float32) / 255, digits.labels[:900], 500
    if kind == "tall":  # not separable
        x, y = make_classification(1500, 20, n_informative=10, n_classes=4, flip_y=0.2, random_state=0)
    elif kind == "wide":  # fewer images than features: separable
        x, y = make_classification(400, 200, n_informative=20, n_classes=3, random_state=0)
    elif kind == "unbalanced":
        x, y = make_classification(900, 30, n_informative=8, n_classes=3, weights=[0.9, 0.07, 0.03], random_state=0)
    elif kind == "binary":
        x, y = make_classification(800, 10, flip_y=0.3, random_state=0)
    elif kind == "100 classes":
        y = np.arange(1000) % 100
        x = rng.normal(size=(100, 24))[y] + 0.7 * rng.normal(size=(1000, 24))
    elif kind == "badly scaled":
        x, y = make_classification(800, 12, n_informative=8, n_classes=3, flip_y=0.2, random_state=0)
        x = x * 10.0 ** rng.uniform(-2, 2, 12) + 50
    else:  # two columns alike
        x, y = make_classification(800, 12, n_informative=8, n_classes=3, flip_y=0.2, random_state=0)
        x[:, 3] = x[:, 5]
    return x.astype(np.float32), y, {"wide": 100, "100 classes": 600}.get(kind, len(y) // 2)


def by_hand(fit, x, y):
    """Objective of a fit, and how far above the minimum it is at most, in NumPy's float64 on the features as they came.

    For any probabilities a, by weak duality, F* >= sum of their entropies - |X^T (a - Y)|^2 / (2 l2) + <sum of (a - Y), b*>. With
    a = softmax(W^T x + b) and b best for W the last term is rounding (features are centred, so that b* is below 1e3), and
    F(W, b) less that bound is |dF/dW|^2 / (2 l2).
    """
    x = x.astype(np.float64)
    weights, b = fit.weights.cpu().numpy(), fit.intercept.cpu().numpy()
    b = b + x.mean(axis=0) @ weights
    x = x - x.mean(axis=0)

    def loss(b):
        """Summed loss, and a - Y with all its digits."""
        logits = x @ weights + b
        others = np.exp(logits - logits[np.arange(len(y)), y][:, None])
        others[np.arange(len(y)), y] = 0
        total = others.sum(axis=1, keepdims=True)
        residual = others / (1 + total)
        residual[np.arange(len(y)), y] = -(total / (1 + total))[:, 0]
        return np.log1p(total).sum(), residual

    objective, best = loss(b)[0] + fit.l2 / 2 * (weights**2).sum(), b.copy()
    for _ in range(30):
        residual = loss(best)[1]
        p = residual + np.eye(len(b))[y]
        best = best - np.linalg.lstsq(np.diag(p.sum(axis=0)) - p.T @ p, residual.sum(axis=0), rcond=1e-12)[0]
    least, residual = loss(best)
    least += fit.l2 / 2 * (weights**2).sum()
    proven = ((x.T @ residual + fit.l2 * weights) ** 2).sum() / (2 * fit.l2) + 1e3 * np.abs(residual.sum(axis=0)).sum()
    return objective, max(0.0, objective - least) + proven


def scikit_learns(x, y, l2, solver="lbfgs"):
    """scikit-learn in float64, to tolerance 1e-8, and the objective it reaches. Two classes: one vector, 2C."""
    binary = len(np.unique(y)) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sk = LogisticRegression(C=(2 if binary else 1) / l2, tol=1e-8, max_iter=20_000, solver=solver).fit(
            x.astype(np.float64), y
        )
    loss = -sk.predict_log_proba(x.astype(np.float64))[np.arange(len(y)), y].sum()
    return sk, loss + l2 / (4 if binary else 2) * (sk.coef_**2).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_parity_with_scikit_learn_and_a_proven_gap(kind, device):
    x, y, n = problem(kind)
    train, held, classes = x[:n], x[n:], len(np.unique(y))
    solver = "newton-cholesky" if kind == "badly scaled" else "lbfgs"  # L-BFGS does not get there
    ours, theirs, same = [], [], []
    for fit in newton.solve_path(torch.from_numpy(train).to(device), y[:n], classes, VALUES, Linear()):
        sk, objective = scikit_learns(train, y[:n], fit.l2, solver)
        value, gap = by_hand(fit, train, y[:n])
        assert fit.converged
        assert fit.objective == pytest.approx(value, rel=1e-9)
        assert gap <= 1.001e-6 * value + 1e-9
        assert fit.objective <= objective * (1 + 1e-6)
        predicted = fit.decision_values(torch.from_numpy(held).to(device)).argmax(axis=1)
        same.append(predicted == sk.predict(held.astype(np.float64)))
        ours.append((predicted != y[n:]).mean())
        theirs.append((sk.predict(held.astype(np.float64)) != y[n:]).mean())
    assert np.mean(same) >= 0.999
    assert VALUES[int(np.argmin(ours))] == VALUES[int(np.argmin(theirs))]


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e6])
def test_all_45_values_of_separable_problems_converge(scale):
    """Where every class is nearly sure the curvature is made of tiny numbers, which must keep their digits."""
    rng = np.random.default_rng(1)
    for n, d, classes in ((60, 80, 3), (150, 30, 5)):
        y = np.arange(n) % classes
        x = torch.from_numpy((scale * (rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d)))).astype(np.float32))
        fits = list(newton.solve_path(x, y, classes, Linear().order, Linear()))
        assert all(fit.converged for fit in fits)
        assert sum(fit.iterations for fit in fits) < 1000
        if scale < 1e6:  # as if l2 were 1e-18 there: too weak for NumPy's least squares
            value, gap = by_hand(fits[-1], x.numpy(), y)
            assert fits[-1].objective == pytest.approx(value, rel=1e-9)
            assert gap <= 1.001e-6 * value + 1e-9


def test_blocks_solve_what_the_diagonal_does_not(monkeypatch):
    """Features of two dimensions bent into forty, as an untrained network does it."""
    rng = np.random.default_rng(0)
    hidden, y = rng.normal(size=(400, 2)), rng.integers(0, 4, 400)
    hidden += np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])[y]
    x = torch.from_numpy(np.tanh(hidden @ rng.normal(size=(2, 40)) + rng.normal(size=40)).astype(np.float32))
    made, inverted = [], Preconditioner.invert_blocks
    monkeypatch.setattr(Preconditioner, "invert_blocks", lambda *a: made.append(1) or inverted(*a))
    with_blocks = list(newton.solve_path(x, y, 4, Linear().order, Linear()))
    assert made
    assert all(fit.converged for fit in with_blocks)
    monkeypatch.setattr("simclic.evaluate.linear.space.total_memory", lambda device: 0)  # no room for them
    without = list(newton.solve_path(x, y, 4, Linear().order, Linear()))
    assert sum(fit.iterations for fit in without) > 3 * sum(fit.iterations for fit in with_blocks)
    for one, other in zip(with_blocks, without, strict=True):
        if other.converged:
            assert one.objective == pytest.approx(other.objective, rel=2e-6)


@pytest.mark.parametrize("kind", ["tall", "unbalanced", "binary"])
def test_however_early_it_stops_the_gap_that_it_tells_is_a_bound(kind):
    x, y, n = problem(kind)
    for l2 in (1e6, 1.0, 1e-2):  # the strongest leaves little but the intercept to find
        least = min(scikit_learns(x[:n], y[:n], l2)[1], by_hand_intercept(y[:n]))
        for iterations in (1, 3, 10, 30):
            protocol = Linear(iterations=iterations, tolerance=1e-12)
            (fit,) = newton.solve_path(torch.from_numpy(x[:n]), y[:n], len(np.unique(y)), (l2,), protocol)
            assert fit.objective * (1 - fit.gap) <= least * (1 + 1e-9)


def by_hand_intercept(y):
    """The objective of the best intercept alone."""
    return -np.log(np.bincount(y) / len(y))[y].sum()


def test_a_step_that_is_not_finite_is_not_taken(monkeypatch):
    direction, spoilt = newton._NewtonSolver.newton_direction, []

    def spoil(self, state, precision):
        v, along, count = direction(self, state, precision)
        if precision == torch.float32:
            spoilt.append(1)
            v = v * math.nan
        return v, along, count

    monkeypatch.setattr(newton._NewtonSolver, "newton_direction", spoil)
    x, y, n = problem("tall")
    (fit,) = newton.solve_path(torch.from_numpy(x[:n]), y[:n], 4, [1.0], Linear())
    assert spoilt
    assert fit.converged  # in float64


def test_the_iterations_are_a_limit():
    x, y, n = problem("badly scaled")
    for limit in range(1, 9):
        (fit,) = newton.solve_path(torch.from_numpy(x[:n]), y[:n], 3, [1e-4], Linear(iterations=limit))
        assert fit.iterations <= limit
        assert not fit.converged


def test_the_proof_sees_what_is_not_solved():
    x, y, n = problem("tall")
    (fit,) = newton.solve_path(torch.from_numpy(x[:n]), y[:n], 4, [1e-3], Linear(iterations=3))
    assert not fit.converged
    assert fit.iterations == 3
    assert fit.gap > 1e-6
    value, gap = by_hand(fit, x[:n], y[:n])
    assert gap == pytest.approx(fit.gap * value, rel=0.01)
    (best,) = newton.solve_path(torch.from_numpy(x[:n]), y[:n], 4, [1e-3], Linear(tolerance=1e-10))
    assert best.objective < fit.objective <= best.objective + gap  # as far off as it may be, and no further


def test_a_small_gradient_is_no_proof_when_l2_is_weak():
    x, y, n = problem("wide")
    l2 = 1e-6
    (fit,) = newton.solve_path(torch.from_numpy(x[:n]), y[:n], 3, [l2], Linear())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sk = LogisticRegression(C=1 / l2, tol=1e-4, max_iter=10_000).fit(x[:n].astype(np.float64), y[:n])
    assert sk.n_iter_[0] < 10_000  # it says that it has converged
    loss = -sk.predict_log_proba(x[:n].astype(np.float64))[np.arange(n), y[:n]].sum()
    assert loss + l2 / 2 * (sk.coef_**2).sum() > 10 * fit.objective


def test_the_order_of_the_values_does_not_matter():
    same = []
    for kind in ("tall", "digits"):
        x, y, n = problem(kind)
        x, y, classes = torch.from_numpy(x[:n]), y[:n], len(np.unique(y))
        down = list(newton.solve_path(x, y, classes, VALUES, Linear()))
        up = list(newton.solve_path(x, y, classes, VALUES[::-1], Linear()))[::-1]
        alone = [next(newton.solve_path(x, y, classes, [l2], Linear())) for l2 in VALUES]
        for fits in zip(down, up, alone, strict=True):
            objectives = [fit.objective for fit in fits]
            assert max(objectives) <= min(objectives) * (1 + 1e-6)
            same += [(fit.decision_values(x).argmax(1) == fits[0].decision_values(x).argmax(1)).mean() for fit in fits[1:]]
    assert np.mean(same) > 0.999


def test_where_float32_does_not_reach_float64_takes_over(monkeypatch):
    used = []
    direction = newton._NewtonSolver.newton_direction
    monkeypatch.setattr(
        newton._NewtonSolver,
        "newton_direction",
        lambda self, s, precision: used.append(precision) or direction(self, s, precision),
    )
    x, y, n = problem("100 classes")
    (fit,) = newton.solve_path(torch.from_numpy(x[:n]), y[:n], 100, [0.01], Linear(tolerance=1e-8))
    assert fit.converged
    assert {torch.float32, torch.float64} == set(used)
    value, gap = by_hand(fit, x[:n], y[:n])
    assert gap <= 1.001e-8 * value + 1e-9


def test_a_solution_to_begin_at_saves_most_of_the_work():
    x, y, n = problem("digits")
    x, y = torch.from_numpy(x), y
    (cold,) = newton.solve_path(x[:n], y[:n], 10, [1e-3], Linear())
    (warm,) = newton.solve_path(x[:n], y[:n], 10, [1e-3], Linear(), start=cold)
    assert warm.iterations == 1  # its gap is looked at, and that is all
    assert warm.objective == pytest.approx(cold.objective, rel=1e-9)


def test_bad_features_and_labels_are_one_line():
    x, y, _ = problem("tall")
    x = torch.from_numpy(x)
    several = np.stack([y == 0, y <= 1], axis=1).astype(int)
    for labels, classes, told in (
        (np.zeros(1500, int), 4, "all 1500 training images are of class 0; a classifier needs two classes"),
        (np.where(y == 3, 5, y), 7, "class 3 has no training image (nor have 2 others); add one"),
        (np.where(y == 3, 2, y), 4, "class 3 has no training image; add one"),
        (np.where(y == 3, 4, y), 4, "is out of range: 4 classes are 0 to 3"),
        (np.where(y == 3, -1, y), 4, "label -1 of image"),
        (several * 2, 2, "is out of range: 1 is shown, 0 is not, -1 is not to be judged"),
        (
            np.stack([y == 0, y < 9], axis=1).astype(int),
            2,
            "class 1: of 1500 training images all show it; its problem needs both",
        ),
        (np.stack([y == 0, y > 9], axis=1).astype(int), 2, "class 1: of 1500 training images none shows it; its problem"),
        (
            np.stack([y == 0, np.full(1500, -1)], axis=1).astype(int),
            2,
            "class 1: of 0 training images none shows it; its problem",
        ),
    ):
        for solve in (newton.solve_path, published.solve_path):
            with pytest.raises(InputError) as e:
                next(solve(x, labels, classes, [1.0], Linear()))
            assert told in str(e.value)
            assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="3 training images for 4 classes: class 1 has no training image; each class needs one"):
        next(newton.solve_path(x[:3], np.array([0, 2, 3]), 4, [1.0], Linear()))
    for bad in (math.nan, math.inf):
        x[3, 3] = bad
        with pytest.raises(InputError, match="features are not finite for 1 of 1,500 images"):
            next(newton.solve_path(x, y, 4, [1.0], Linear()))


def shown(y):
    return np.stack([y == 0, y <= 1, y == 3], axis=1).astype(int)


def test_several_classes_an_image_are_scikit_learns_binary_problems_at_twice_c():
    x, y, n = problem("tall")
    x, y, tight = x[:n], shown(y[:n]), Linear(tolerance=1e-10)
    for fit in newton.solve_path(torch.from_numpy(x), y, 3, (10.0, 0.1), tight):
        assert fit.converged
        objective = 0.0
        for k in range(3):
            w, b = fit.weights[:, k : k + 1] / 2, fit.intercept[k : k + 1] / 2  # as the two opposite vectors that it stands for
            pair = replace(fit, weights=torch.cat([-w, w], dim=1), intercept=torch.cat([-b, b]))
            value, gap = by_hand(pair, x, y[:, k])
            assert gap <= 1.001e-10 * value + 1e-9
            sk, least = scikit_learns(x, y[:, k], fit.l2)
            objective += least
            assert np.allclose(
                fit.decision_values(torch.from_numpy(x))[:, k], sk.decision_function(x.astype(np.float64)), atol=1e-3
            )
        assert fit.objective <= objective * (1 + 1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_images_are_computed_in_parts_where_all_would_not_fit_into_memory(several, monkeypatch):
    """several: whether an image shows several classes."""
    x, y, n = problem("tall")
    x, (y, classes) = torch.from_numpy(x[:n]), (shown(y[:n]), 3) if several else (y[:n], 4)
    whole = list(newton.solve_path(x, y, classes, VALUES, Linear()))
    monkeypatch.setattr("simclic.evaluate.linear.space.MAX_PART_SIZE", 1000)
    assert len(split_rows(n, classes)) > 2
    in_parts = newton.solve_path(x, y, classes, VALUES, Linear(), whole[-1])
    for fit, expected in zip(in_parts, whole, strict=True):
        assert fit.converged
        assert fit.objective == pytest.approx(expected.objective, rel=1e-6)
        assert np.allclose(fit.decision_values(x), expected.decision_values(x), atol=0.05)


def test_an_image_that_is_not_to_be_judged_is_not_learned_from():
    x, y, n = problem("tall")
    x, y, tight = torch.from_numpy(x[:n]), shown(y[:n])[:, :2], Linear(tolerance=1e-10)
    y[:50, 0] = -1
    for solve, near in ((newton.solve_path, 1e-3), (published.solve_path, 1e-6)):
        protocol = tight if solve is newton.solve_path else Linear(solver="as-published")
        (fit,) = solve(x, y, 2, [1.0], protocol)
        (alone,) = solve(x[50:], y[50:, :1], 1, [1.0], protocol)
        assert np.allclose(fit.decision_values(x)[:, 0], alone.decision_values(x)[:, 0], atol=near)


def two_vectors(y):
    """The softmax problems of some labels, and how many outcomes each has: several classes an image are two outcomes each."""
    return ([y], int(y.max()) + 1) if y.ndim == 1 else (list(y.T), 2)


def by_the_source(x, y, values, w, options):
    """The baselines' loop with autograd's gradients. w: (outcomes, d + 1), changed from fit to fit. Yields scores."""
    x = torch.cat([torch.from_numpy(x).double(), torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    problems, outcomes = two_vectors(y)

    def value(flat, truth, l2):
        w = torch.from_numpy(flat).reshape(outcomes, -1).requires_grad_()
        loss = torch.nn.functional.cross_entropy(x @ w.T, torch.from_numpy(truth), reduction="sum")
        loss = loss + l2 / 2 * w[:, :-1].square().sum()
        loss.backward()
        return loss.item(), w.grad.flatten().numpy()

    for l2 in values:
        scores = []
        for truth in problems:
            w[:] = minimize(value, w.ravel(), (truth, l2), "L-BFGS-B", jac=True, options=options).x.reshape(w.shape)
            scores.append((x @ torch.from_numpy(w).T).numpy())
        yield scores[0] if y.ndim == 1 else np.stack([np.diff(s, axis=1)[:, 0] for s in scores], axis=1)


@pytest.mark.parametrize("kind", ["tall", "binary", "several"])
def test_as_published_is_the_loop_of_the_baselines_source(kind, monkeypatch):
    """Warm-started from value to value, from class to class and into the refit. After a few steps rounding is still small."""
    x, y, n = problem("binary" if kind == "binary" else "tall")
    x, y = x[:n], shown(y[:n]) if kind == "several" else y[:n]
    monkeypatch.setitem(published.OPTIONS, "maxiter", 3)
    outcomes, values = two_vectors(y)[1], (1e-6, 1.0, 1e3)
    w, classes, last = np.zeros((outcomes, x.shape[1] + 1)), y.shape[1] if y.ndim == 2 else outcomes, None
    for part in (values, [1e-2]):  # the search, and the refit
        for fit in published.solve_path(torch.from_numpy(x), y, classes, part, Linear(solver="as-published"), last):
            (expected,) = by_the_source(x, y, [fit.l2], w, {"maxiter": 3, "gtol": 1e-4})
            assert np.allclose(fit.decision_values(torch.from_numpy(x)), expected, rtol=1e-6, atol=1e-6)
            assert (fit.iterations, fit.converged) == (3, False)
            last = fit


def test_as_published_stops_by_the_rules_of_the_baselines_source(monkeypatch):
    """scikit-learn 0.22 set two options and left the others to SciPy; scikit-learn 1.4 and later set other ones."""
    assert published.OPTIONS == {"maxiter": 100, "gtol": 1e-4, "ftol": 2.220446049250313e-09, "maxls": 20, "maxcor": 10}
    x, y, n = problem("badly scaled")
    x, protocol, asked = torch.from_numpy(x[:n]), Linear(solver="as-published"), []
    assert protocol.order == protocol.l2  # from weak to strong
    monkeypatch.setattr(published, "minimize", lambda *a, **more: asked.append(more) or minimize(*a, **more))
    weak, strong = published.solve_path(x, y[:n], 3, (1e-6, 1e7), protocol)
    assert (weak.iterations, weak.converged) == (100, False)
    assert strong.converged
    assert [more["options"] for more in asked] == [published.OPTIONS] * 2
    (again,) = published.solve_path(x, y[:n], 3, [1e7], protocol, start=strong)
    assert again.iterations <= 1


@pytest.mark.parametrize("outcomes", [2, 5])
def test_the_gradient_of_the_published_objective_is_autograds(outcomes):
    rng = np.random.default_rng(0)
    x, y = np.hstack([rng.normal(size=(40, 7)), np.ones((40, 1))]), rng.integers(0, outcomes, 40)
    w = torch.from_numpy(rng.normal(size=outcomes * 8)).requires_grad_()
    rows = w.reshape(outcomes, 8)
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(x) @ rows.T, torch.from_numpy(y), reduction="sum")
    loss = loss + 0.3 / 2 * rows[:, :-1].square().sum()
    loss.backward()
    value, gradient = published.evaluate_objective(w.detach().numpy(), x, y, 0.3)
    assert value == pytest.approx(loss.item(), rel=1e-12)
    assert np.allclose(gradient, w.grad.numpy(), rtol=1e-10, atol=1e-10)
    far = published.evaluate_objective(1e4 * w.detach().numpy(), x, y, 0.3)  # no exponential overflows
    assert np.isfinite(far[0])
    assert np.isfinite(far[1]).all()


@pytest.mark.parametrize("kind", ["tall", "binary"])
def test_where_as_published_converges_it_is_at_scikit_learns_minimum(kind):
    x, y, n = problem(kind)
    x, y, classes, protocol = x[:n], y[:n], len(np.unique(y)), Linear(solver="as-published")
    sk, least = scikit_learns(x, y, 10.0)
    (fit,) = published.solve_path(torch.from_numpy(x), y, classes, [10.0], protocol)
    scores, theirs = fit.decision_values(torch.from_numpy(x)), sk.decision_function(x.astype(np.float64))
    assert fit.converged
    assert fit.objective == pytest.approx(least, rel=1e-7)
    if kind == "tall":
        assert np.allclose(scores - scores.mean(axis=1, keepdims=True), theirs - theirs.mean(axis=1, keepdims=True), atol=1e-2)
        return
    assert np.array_equal(scores[:, 0], -scores[:, 1])  # two outcomes are two vectors, opposite ones
    assert np.allclose(scores[:, 1] - scores[:, 0], theirs, atol=1e-2)
    (several,) = published.solve_path(torch.from_numpy(x), y[:, None], 1, [10.0], protocol)
    assert np.allclose(several.decision_values(torch.from_numpy(x))[:, 0], scores[:, 1] - scores[:, 0], atol=1e-9)
    assert several.objective == pytest.approx(fit.objective, rel=1e-12)


@pytest.fixture
def pixels(digits):
    return extract_features(Linear(), Pixels(8).eval(), Images(digits, 8, CPU))


@pytest.mark.parametrize(("precision", "apart"), [("float32", 1e-3), ("bf16", 0.05)])
def test_features_are_those_of_the_cpu_in_float32(digits, device, precision, apart):
    torch.manual_seed(0)
    f = build_backbone(tiny()).eval().requires_grad_(False)
    there = extract_features(Linear(), f, Images(digits, 16, CPU))
    here = extract_features(Linear(features=precision), f.to(device), Images(digits, 16, torch.device(device)))
    assert here.dtype == torch.float32
    assert (here.cpu() - there).norm() <= apart * there.norm()


@pytest.mark.parametrize("solver", ["converged", "as-published"])
def test_probe_on_raw_digits(digits, pixels, solver, device):
    told, protocol = [], Linear(l2_count=12, solver=solver)
    record, truth, scores = linear_probe(protocol, pixels.to(device), digits, lambda share, note: told.append(share))
    assert [row["l2"] for row in record["curve"]] == list(protocol.order)
    best = min(row["error"] for row in record["curve"])
    ties = [row["l2"] for row in record["curve"] if row["error"] == best]
    wanted = max(ties) if solver == "converged" else min(ties)
    assert (record["chosen"]["l2"], record["chosen"]["val_error"]) == (wanted, best)
    assert record["error"] == pytest.approx(100 * (scores.argmax(1) != truth).mean())
    assert (truth == digits.labels[digits.splits.test]).all()
    assert record["error"] < 6
    assert told == sorted(told)
    assert len(told) == 12
    assert record["curve"][-1 if solver == "as-published" else 0]["converged"]  # the strongest is easy for both
    stopped = sum(not row["converged"] for row in [*record["curve"], record["chosen"]])
    assert (record["unconverged"], stopped > 0) == (stopped, solver == "as-published")


@pytest.mark.parametrize("solver", ["converged", "as-published"])
def test_the_refit_sees_train_and_val_and_begins_where_its_protocol_says(digits, pixels, solver, monkeypatch):
    asked, given = [], []
    solve = SOLVERS[solver]

    def seen(x, y, classes, values, protocol, start=None):
        asked.append((x, y, list(values), start))
        for fit in solve(x, y, classes, values, protocol, start):
            given.append(fit)
            yield fit

    monkeypatch.setitem(SOLVERS, solver, seen)
    record, _, scores = linear_probe(Linear(l2_count=5, solver=solver), pixels, digits)
    (x, _, values, start), (x_fit, y_fit, chosen, start_fit) = asked
    assert start is None
    assert values == list(Linear(l2_count=5, solver=solver).order)
    assert x.equal(pixels[digits.splits.train])
    assert x_fit.equal(pixels[digits.splits.fit])
    assert (y_fit == digits.labels[digits.splits.fit]).all()
    assert chosen == [record["chosen"]["l2"]]
    best = next(fit for fit in given if fit.l2 == chosen[0])
    assert best is not given[-2]  # so that the two protocols differ here
    assert start_fit is (best if solver == "converged" else given[-2])
    assert np.array_equal(scores, given[-1].decision_values(pixels[digits.splits.test]))


def test_on_equal_error_the_stronger_l2_wins(digits):
    """Features of the true class and nothing else: every l2 that is not too strong is right everywhere."""
    x = torch.nn.functional.one_hot(torch.from_numpy(digits.labels), 10).float()
    record, _, _ = linear_probe(Linear(l2_count=12), x, digits)
    assert sum(row["error"] == 0 for row in record["curve"]) > 3
    assert record["chosen"]["l2"] == max(row["l2"] for row in record["curve"] if row["error"] == 0)


def test_labels_that_no_class_has_are_refused_before_anything_is_fitted(digits, pixels, monkeypatch):
    wrong = digits.labels.copy()
    wrong[digits.splits.test[0]] = 10
    monkeypatch.setattr("simclic.evaluate.linear.SOLVERS", {"converged": None})
    with pytest.raises(InputError, match=r"label 10 of image \d+ is out of range: 10 classes are 0 to 9"):
        linear_probe(Linear(), pixels, data.Dataset(digits.facts, digits.images, wrong, digits.splits, ""))


def test_features_are_the_backbones_output_untouched(digits, pixels):
    images = Images(digits, 8, CPU)
    assert pixels.dtype == torch.float32
    assert pixels[5].equal(images(torch.tensor([5])).flatten())
    half = extract_features(Linear(features="bf16"), torch.nn.Sequential(Pixels(8), torch.nn.Linear(192, 3)).eval(), images)
    assert half.dtype == torch.float32
    assert half.equal(half.bfloat16().float())


def wait_policy(pipe):
    pipe.send(os.environ["OMP_WAIT_POLICY"])


def test_the_threads_of_a_worker_wait_without_spinning():
    """On a shared node a thread that spins keeps the core from the one that it waits for. OpenMP reads this when torch starts."""
    process, ours = spawned(wait_policy)
    assert ours.recv() == os.environ.get("OMP_WAIT_POLICY", "passive")
    process.join()


UNTRAINED = {"dataset": "digits", "backbone": "test_resnet", "image_size": 16, "perturbation": "none", "epochs": 0}


def test_features_are_computed_once_and_read_by_every_protocol(tmp_path, monkeypatch):
    from simclic import Run

    run, passes = Run(**UNTRAINED), []
    monkeypatch.setattr("simclic.evaluate.linear.frozen.extract_features", lambda *a: passes.append(1) or extract_features(*a))
    protocols = (Linear(l2_count=2), Linear(l2_count=2, solver="as-published"))
    for protocol in protocols:
        compute_results(run, (protocol,), tmp_path)
    assert len(passes) == 1
    for protocol in protocols:
        found = RunFolder(tmp_path, run).read_result(protocol)
        assert found["protocol"]["solver"] == protocol.solver
        truth, scores = RunFolder(tmp_path, run.name).read_predictions(protocol.name)
        assert scores.shape == (len(truth), 10)  # decision values are kept
    path = RunFolder(tmp_path, run).path / "features-float32.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(Broken, match=r"features-float32.safetensors: was changed .*; delete it to compute it again"):
        compute_results(run, (Linear(l2_count=3),), tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Broken, match="is not a complete file of features; delete it"):
        compute_results(run, (Linear(l2_count=3),), tmp_path)
    path.unlink()
    compute_results(run, (Linear(l2_count=3),), tmp_path)
    assert len(passes) == 2


def test_features_of_other_weights_or_data_are_not_taken(tmp_path, digits):
    images = Images(digits, 8, CPU)
    for width, (digest, sha256) in enumerate((("d1", "a"), ("d1", "b"), ("d2", "b")), 1):
        path = RunFolder(tmp_path, tiny()).path
        path.mkdir(exist_ok=True)
        write_json(path / "run.json", {"data": digest})
        write_json(path / "pretrain.json", {"backbone_sha256": sha256})
        f = torch.nn.Sequential(Pixels(8), torch.nn.Linear(192, width)).eval()
        assert frozen_features(Linear(), tiny(), f, images, tmp_path).shape == (1797, width)


def test_features_that_are_not_finite_are_not_kept(tmp_path, digits):
    class Bad(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1) / 0

    RunFolder(tmp_path, tiny()).create_folder("d1")
    with pytest.raises(InputError, match=r"features are not finite for 1,797 of 1,797 images"):
        frozen_features(Linear(), tiny(), Bad(), Images(digits, 8, CPU), tmp_path)
    assert not list(RunFolder(tmp_path, tiny()).path.glob("features*"))


def at_work(runs, pipe):
    """A long path, and every word of how far it is."""
    run = Run(dataset="digits", backbone="pixels", image_size=16, perturbation="none", epochs=0)
    compute_results(run, (Linear(solver="as-published", l2_count=12),), runs, tell=lambda share, note: pipe.send((share, note)))


def told(pipe):
    """What it says, to its end."""
    with suppress(EOFError):
        while True:
            yield pipe.recv()


def test_a_killed_probe_leaves_no_half_result_and_starts_again_from_its_features(tmp_path):
    process, ours = spawned(at_work, tmp_path)
    assert any("l2 " in note and share > 0.6 for share, note in told(ours))  # in the middle of the path
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (folder,) = tmp_path.iterdir()
    assert not [p for p in folder.iterdir() if p.name.startswith("linear-")]
    kept = (folder / "features-float32.safetensors").stat()
    time.sleep(0.01)
    process, ours = spawned(at_work, tmp_path)
    notes = [note for _, note in told(ours)]
    process.join()
    assert process.exitcode == 0
    assert notes
    assert not [note for note in notes if "features of" in note]
    assert (folder / "features-float32.safetensors").stat().st_mtime_ns == kept.st_mtime_ns
    assert store.results(tmp_path)["problem"].tolist() == [""]
