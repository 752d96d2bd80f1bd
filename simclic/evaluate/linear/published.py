"""The probe as the cited baselines' source computed it [47]: L-BFGS stopped after 100 iterations, wherever they lead.

The source called scikit-learn 0.22. Its objective and options stand below, because scikit-learn stops by another rule since 1.4.
One array of parameters goes through the path from weak to strong, each fit from where the last one ended, and through the refit
after it; with several classes an image, through one class after the other. So an error depends on that order, and with a weak l2
the limit of iterations regularises more than l2 does. Where the path is not converged, it depends on the last bits, too: with
its training images in another order the source itself moves by 2 to 7 points at single values of l2.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from simclic.evaluate.linear.fit import Fit, check_learnable
from simclic.evaluate.linear.losses import loss_for_labels
from simclic.experiment import Linear

# gtol: largest entry of the summed loss's gradient. The source left the last three to SciPy, whose defaults they still are.
OPTIONS = {"maxiter": 100, "gtol": 1e-4, "ftol": 1e7 * 2.0**-52, "maxls": 20, "maxcor": 10}


def solve_path(
    x: Tensor, y: np.ndarray, classes: int, values: Iterable[float], protocol: Linear, start: Fit | None = None
) -> Iterator[Fit]:
    """Yield one fit for each l2, in the order given, on the CPU.

    x: (n, d) float32. y: (n,) class indices, or (n, K) with 1, 0 or -1 for each class. start: the fit before. protocol has no
    effect: nothing is left to set. Raises InputError if no classifier can be learned from these images.
    """
    check_learnable(x, y, classes)
    several, losses = y.ndim == 2, loss_for_labels(torch.from_numpy(y))
    features = np.ones((len(x), x.shape[1] + 1))
    features[:, :-1] = x.cpu().numpy()
    problems = [(features if (k >= 0).all() else features[k >= 0], k[k >= 0]) for k in (y.T if several else y[None])]
    w = np.zeros((2 if several else classes, features.shape[1]))
    if start is not None:
        last = torch.cat([start.weights, start.intercept[None]]).T.cpu().numpy()
        w = np.stack([-last[-1], last[-1]]) / 2 if several else last
    for l2 in values:
        vectors, iterations, converged = [], 0, True
        for rows, truth in problems:
            result = minimize(evaluate_objective, w.ravel(), (rows, truth, l2), "L-BFGS-B", jac=True, options=OPTIONS)
            w = result.x.reshape(w.shape)
            if len(w) == 2:
                w[0] = -w[1]  # of two vectors scikit-learn keeps the second
            vectors += [w[1] - w[0]] if several else [*w]
            iterations, converged = max(iterations, result.nit), converged and bool(result.success)
        theta = torch.from_numpy(np.stack(vectors, axis=1))
        loss = losses.evaluate_at(torch.from_numpy(features) @ theta).loss.sum()
        penalty = l2 * losses.scale / 2 * theta[:-1].square().sum()
        yield Fit(l2, theta[:-1], theta[-1], iterations, float(loss + penalty), converged)


def evaluate_objective(w: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
    """Return a softmax's summed log loss + l2/2 |W|^2, the intercepts not penalised, and its gradient.

    w: (C (d + 1),), a row for each class, its intercept last. x: (n, d + 1) float64, its last column ones. y: (n,) class indices.
    """
    w, rows = w.reshape(-1, x.shape[1]), np.arange(len(y))
    p = x @ w.T
    p -= p.max(axis=1, keepdims=True)
    true = p[rows, y].sum()
    sums = np.exp(p, out=p).sum(axis=1, keepdims=True)
    p /= sums
    p[rows, y] -= 1
    gradient = p.T @ x
    gradient[:, :-1] += l2 * w[:, :-1]
    return float(np.log(sums).sum() - true + l2 / 2 * np.square(w[:, :-1]).sum()), gradient.ravel()
