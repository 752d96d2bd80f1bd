"""The probe as the cited baselines' source computed it [47], in scikit-learn: 100 iterations, wherever they lead.

One estimator goes through the path from weak to strong, each fit from where the last one ended, and through the refit after it;
with several classes an image, through one class after the other. So a number depends on the order, and with a weak l2 the limit
of iterations regularises more than l2 does. The tolerance holds for the summed loss, as it did before scikit-learn 1.4; what can
no longer be set is L-BFGS's limit on the fall of the objective (2.2e-9 of it then, 64 eps now) and on its line search (20, 50).
"""

import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from simclic.evaluate.linear.fit import Fit, check_learnable
from simclic.evaluate.linear.losses import loss_for_labels
from simclic.experiment import Linear

ITERATIONS = 100
TOLERANCE = 1e-4  # largest entry of the gradient of the summed loss


def solve_path(
    x: Tensor, y: np.ndarray, classes: int, values: Iterable[float], protocol: Linear, start: Fit | None = None
) -> Iterator[Fit]:
    """One fit for each l2, in the order given, on the CPU.

    x: (n, d) float32. y: (n,) class indices, or (n, K) with 1, 0 or -1 for each class. start: the fit before. protocol is not
    read: nothing is left to set. Raises InputError for what no classifier can be learned from.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    check_learnable(x, y, classes)
    features, several = x.cpu().double().numpy(), y.ndim == 2
    binary = several or classes == 2
    estimator = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    if start is not None:
        last = _to_sklearn_rows(start, several)[-1:] if binary else _to_sklearn_rows(start, several)
        estimator.coef_, estimator.intercept_ = last[:, :-1].copy(), last[:, -1].copy()

    def fit(rows: np.ndarray, labels: np.ndarray, l2: float) -> tuple[np.ndarray, int]:
        """Vectors (1 or K, d + 1), and the iterations they took."""
        # Two outcomes were a softmax of two vectors there; one vector with 2C is the same.
        estimator.set_params(C=(2 if binary else 1) / l2, tol=TOLERANCE / len(labels))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told as converged=False
            estimator.fit(features if rows.all() else features[rows], labels)
        return np.hstack([estimator.coef_, estimator.intercept_[:, None]]), int(estimator.n_iter_.max())

    for l2 in values:
        if several:
            fits = [fit(y[:, k] >= 0, y[y[:, k] >= 0, k], l2) for k in range(classes)]
        else:
            fits = [fit(np.ones(len(y), bool), y, l2)]
        vectors, iterations = np.vstack([v for v, _ in fits]), max(n for _, n in fits)
        if binary and not several:
            vectors = np.vstack([-vectors / 2, vectors / 2])
        weights, intercept = torch.from_numpy(vectors[:, :-1].T.copy()), torch.from_numpy(vectors[:, -1].copy())
        losses = loss_for_labels(torch.from_numpy(y))
        loss = losses.evaluate_at(torch.from_numpy(features) @ weights + intercept).loss.sum()
        objective = float(loss + l2 * losses.scale / 2 * weights.square().sum())
        yield Fit(l2, weights, intercept, iterations, objective, iterations < ITERATIONS)


def _to_sklearn_rows(fit: Fit, several: bool) -> np.ndarray:
    """What scikit-learn keeps, weights and intercept in rows: one row for two classes."""
    vectors = torch.cat([fit.weights, fit.intercept[None]]).T.cpu().numpy()
    return np.diff(vectors, axis=0) if len(vectors) == 2 and not several else vectors
