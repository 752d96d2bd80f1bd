"""Linear evaluation (Section 4.2): frozen features, L-BFGS over 45 values of l2, chosen on val, refitted, scored once on test.

The problem is scikit-learn's: minimise sum_i -log softmax(W^T x_i + b)[y_i] + l2/2 |W|^2, b not penalised. Where an image
shows several classes (VOC2007) there is one such problem with two outcomes for each class, as in the cited baselines; one
l2 is chosen for all of them.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from simclic.data import Dataset
from simclic.data.images import Images
from simclic.metrics import METRICS
from simclic.spec import InputError, Linear, Tell
from simclic.store import Scored

Array = np.ndarray


@torch.no_grad()
def features(f: nn.Module, images: Images, index: Array) -> Array:
    """The frozen backbone's output, as it is. f: in eval mode. index: (n,). Returns (n, d) float64."""
    batches = torch.from_numpy(index).to(images.device).split(256)
    return torch.cat([f(images(batch)).float() for batch in batches]).cpu().double().numpy()


def probe(protocol: Linear, f: nn.Module, dataset: Dataset, images: Images, tell: Tell) -> Scored:
    """Fit on train for every l2, choose on val by the data set's metric, refit on train + val, score test once.

    On equal error the stronger l2 wins. Raises InputError if the features are not finite or only one class is to be learned.
    """
    started, splits, classes = time.monotonic(), dataset.splits, dataset.facts.classes
    metric = METRICS[dataset.facts.metric]
    parts = {name: getattr(splits, name) for name in ("train", "val", "test", "fit")}
    used = np.unique(np.concatenate(list(parts.values())))
    seen = features(f, images, used)  # each image once, whatever it is for
    x = {name: seen[np.searchsorted(used, index)] for name, index in parts.items()}
    y = {name: dataset.labels[index] for name, index in parts.items()}

    curve: list[dict[str, Any]] = []
    for fit in solutions(x["train"], y["train"], classes, protocol.l2[::-1], protocol):
        curve.append({"l2": fit.l2, "error": metric(y["val"], fit.scores(x["val"])), **fit.record})
        tell(len(curve) / (len(protocol.l2) + 1), f"l2 {fit.l2:.1e}")
    best = min(curve, key=lambda row: row["error"])  # the first of equals: the strongest

    (refit,) = solutions(x["fit"], y["fit"], classes, [best["l2"]], protocol)
    test = refit.scores(x["test"])
    record = {
        "error": metric(y["test"], test), "metric": dataset.facts.metric, "curve": curve, "sizes": splits.sizes,
        "chosen": {"l2": best["l2"], "val_error": best["error"], **refit.record}, "seconds": time.monotonic() - started,
    }  # fmt: skip
    return record, y["test"], test


@dataclass(frozen=True)
class Fit:
    """A solution at one l2. weights: (d, K). intercept: (K,), -inf for classes that training never saw."""

    l2: float
    weights: Array
    intercept: Array
    iterations: int
    objective: float  # sum of losses + l2/2 |W|^2
    converged: bool

    def scores(self, x: Array) -> Array:
        """Decision values. x: (n, d). Returns (n, K)."""
        return x @ self.weights + self.intercept

    @property
    def record(self) -> dict[str, Any]:
        """What a result keeps of how this was found."""
        return {"iterations": self.iterations, "objective": self.objective, "converged": self.converged}


def solutions(x: Array, y: Array, classes: int, values: Iterable[float], protocol: Linear) -> Iterator[Fit]:
    """One Fit for each l2. x: (n, d). y: (n,) class indices, or (n, K) with 1, 0 or -1 for each class."""
    return path(x, y, classes, values, protocol) if y.ndim == 1 else binary_path(x, y, values, protocol)


def path(x: Array, y: Array, classes: int, values: Iterable[float], protocol: Linear) -> Iterator[Fit]:
    """Solve for each l2 in turn, each from where the last one ended; best from strong to weak.

    x: (n, d). y: (n,) in [0, classes). Raises InputError if x is not finite or y holds one class only.
    """
    if len(np.unique(y)) < 2:
        raise InputError(f"all {len(y)} training images are of class {y[0]}; a classifier needs two classes")
    yield from _path(rotated(x), y, classes, values, protocol)


def binary_path(x: Array, y: Array, values: Iterable[float], protocol: Linear) -> Iterator[Fit]:
    """As `path`, with one problem per class: is it shown or not?

    x: (n, d). y: (n, K) 1 shown, 0 not shown, -1 left out of this class's problem. Each has two weight vectors, as a softmax
    over two outcomes: their difference is what plain logistic regression finds with half the l2. Raises InputError if x is
    not finite or a class is shown by none or all of the images.
    """
    space, problems, values = rotated(x), [], list(values)
    for k in range(y.shape[1]):
        judged = y[:, k] >= 0
        if len(np.unique(y[judged, k])) < 2:
            raise InputError(f"class {k}: {judged.sum()} training images and all show it, or none does; both are needed")
        problems.append(_path(space.of(judged), y[judged, k], 2, values, protocol))
    for fits in zip(*problems, strict=True):
        weights = np.stack([f.weights[:, 1] - f.weights[:, 0] for f in fits], axis=1)
        intercept = np.array([f.intercept[1] - f.intercept[0] for f in fits])
        iterations, objective = max(f.iterations for f in fits), sum(f.objective for f in fits)
        yield Fit(fits[0].l2, weights, intercept, iterations, objective, all(f.converged for f in fits))


@dataclass(frozen=True)
class Space:
    """Features as the solver sees them: centred, in the eigenbasis of their covariance, and a column of ones.

    mean: (d,). basis: (d, d), orthogonal, so that |W| stays what it is. z: (n, d + 1).
    """

    mean: Array
    basis: Array
    z: Array

    def of(self, rows: Array) -> "Space":
        """The same space with some of the images. rows: (n,) bool."""
        return self if rows.all() else Space(self.mean, self.basis, self.z[rows])


def rotated(x: Array) -> Space:
    """The space of features x, (n, d). Raises InputError if they are not finite."""
    if not np.isfinite(x).all():
        raise InputError("the backbone's features are not finite; train it again with a smaller base_lr")
    mean = x.mean(axis=0)
    basis = np.linalg.eigh((x - mean).T @ (x - mean)).eigenvectors
    return Space(mean, basis, np.hstack([(x - mean) @ basis, np.ones((len(x), 1))]))


def _path(space: Space, y: Array, classes: int, values: Iterable[float], protocol: Linear) -> Iterator[Fit]:
    """Each variable is divided by the root of its curvature (mean of p (1 - p) z^2, plus l2/n): the problem is the same,
    L-BFGS needs a fraction of the steps."""
    seen, target = np.unique(y, return_inverse=True)
    z, n, shape = space.z, len(y), (space.z.shape[1], len(seen))
    one_hot = np.eye(len(seen))[target]
    theta = np.zeros(shape)  # weights in the eigenbasis, and in the last row the intercept

    for l2 in values:
        penalty = np.r_[np.full(shape[0] - 1, l2 / n), 0.0][:, None]
        p = softmax(z @ theta)[0]
        scale = 1 / np.sqrt((z**2).T @ (p * (1 - p)) / n + penalty + 1e-12)

        def objective(v: Array, scale: Array = scale, penalty: Array = penalty) -> tuple[float, Array]:
            w = v.reshape(shape) * scale
            logits = z @ w
            p, log_sum = softmax(logits)
            shrunk = penalty * w
            value = (log_sum.sum() - np.vdot(one_hot, logits)) / n + np.vdot(shrunk, w) / 2
            p -= one_hot
            return value, ((z.T @ p / n + shrunk) * scale).ravel()

        limits = {
            "maxiter": protocol.iterations,
            "maxfun": 2 * protocol.iterations,
            "maxcor": 20,
            "ftol": 0.0,
            "gtol": protocol.tolerance,
        }
        found = minimize(objective, (theta / scale).ravel(), jac=True, method="L-BFGS-B", options=limits)
        theta = found.x.reshape(shape) * scale
        converged = bool(np.abs(found.jac).max() <= protocol.tolerance)
        yield Fit(l2, *_full(theta, space, seen, classes), int(found.nit), float(found.fun * n), converged)


def softmax(logits: Array) -> tuple[Array, Array]:
    """Probabilities (n, K), and the logarithm of the sum of exponentials (n,), of logits (n, K)."""
    highest = logits.max(axis=1, keepdims=True)
    p = np.exp(logits - highest)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    return p, (np.log(total) + highest)[:, 0]


def _full(theta: Array, space: Space, seen: Array, classes: int) -> tuple[Array, Array]:
    """Weights (d, K) and intercept (K,) for the features as they came."""
    weights, intercept = np.zeros((len(space.mean), classes)), np.full(classes, -np.inf)
    weights[:, seen] = space.basis @ theta[:-1]
    intercept[seen] = theta[-1] - space.mean @ weights[:, seen]
    return weights, intercept
