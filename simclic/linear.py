"""Linear evaluation (Section 4.2): frozen features, L-BFGS over 45 values of l2, chosen on val, refitted, scored once on test.

The problem is scikit-learn's: minimise sum_i -log softmax(W^T x_i + b)[y_i] + l2/2 |W|^2, b not penalised.
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
    batches = torch.from_numpy(index).to(images.uint8.device).split(256)
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
    for fit in path(x["train"], y["train"], classes, protocol.l2[::-1], protocol):
        curve.append({"l2": fit.l2, "error": metric(y["val"], fit.scores(x["val"])), **fit.record})
        tell(len(curve) / (len(protocol.l2) + 1), f"l2 {fit.l2:.1e}")
    best = min(curve, key=lambda row: row["error"])  # the first of equals: the strongest

    (refit,) = path(x["fit"], y["fit"], classes, [best["l2"]], protocol)
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


def path(x: Array, y: Array, classes: int, values: Iterable[float], protocol: Linear) -> Iterator[Fit]:
    """Solve for each l2 in turn, each from where the last one ended; best from strong to weak.

    x: (n, d). y: (n,) in [0, classes). Raises InputError if x is not finite or y holds one class only.

    The solver sees centred features in the eigenbasis of their covariance, each variable divided by the root of its
    curvature there (mean of p (1 - p) x^2, plus l2/n): the problem is the same, L-BFGS needs a fraction of the steps.
    """
    if not np.isfinite(x).all():
        raise InputError("the backbone's features are not finite; train it again with a smaller base_lr")
    seen, target = np.unique(y, return_inverse=True)
    if len(seen) < 2:
        raise InputError(f"all {len(y)} training images are of class {y[0]}; a classifier needs two classes")
    mean = x.mean(axis=0)
    basis = np.linalg.eigh((x - mean).T @ (x - mean)).eigenvectors  # (d, d); orthogonal, so |W| stays what it is
    n, shape = len(x), (x.shape[1] + 1, len(seen))
    z = np.hstack([(x - mean) @ basis, np.ones((n, 1))])
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
        yield Fit(l2, *_full(theta, basis, mean, seen, classes), int(found.nit), float(found.fun * n), converged)


def softmax(logits: Array) -> tuple[Array, Array]:
    """Probabilities (n, K), and the logarithm of the sum of exponentials (n,), of logits (n, K)."""
    highest = logits.max(axis=1, keepdims=True)
    p = np.exp(logits - highest)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    return p, (np.log(total) + highest)[:, 0]


def _full(theta: Array, basis: Array, mean: Array, seen: Array, classes: int) -> tuple[Array, Array]:
    """Weights (d, K) and intercept (K,) for the features as they came."""
    weights, intercept = np.zeros((len(mean), classes)), np.full(classes, -np.inf)
    weights[:, seen] = basis @ theta[:-1]
    intercept[seen] = theta[-1] - mean @ weights[:, seen]
    return weights, intercept
