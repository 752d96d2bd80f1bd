"""The solution of a linear probe at one l2, and the checks of what it is learned from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simclic.data import labels
from simclic.errors import InputError

CHUNK_ROWS = 4096  # images whose decision values are computed at a time


@dataclass(frozen=True)
class Fit:
    """A solution at one l2. weights: (d, K) float64. intercept: (K,) float64.

    iterations: gradients and products with the Hessian, two passes over the features each; as published, L-BFGS's iterations.
    objective: sum of losses + l2/2 |W|^2. gap: a bound on (objective - minimum) / objective; None if unknown. converged: whether
    the solver reached its tolerance.
    """

    l2: float
    weights: Tensor
    intercept: Tensor
    iterations: int
    objective: float
    converged: bool
    gap: float | None = None

    def decision_values(self, x: Tensor) -> np.ndarray:
        """Return decision values, (n, K) float64. x: (n, d) float32 on any device."""
        rows = x.split(CHUNK_ROWS)
        return torch.cat([torch.addmm(self.intercept, part.to(self.weights), self.weights) for part in rows]).cpu().numpy()

    @property
    def convergence(self) -> dict[str, Any]:
        """The fields that a result stores of each fit."""
        return {k: getattr(self, k) for k in ("iterations", "objective", "gap", "converged")}


def check_learnable(x: Tensor, y: np.ndarray, classes: int) -> None:
    """Raise InputError unless a classifier of `classes` classes can be learned from these training images.

    x: (n, d). y: (n,) class indices, or (n, K) with 1, 0 or -1 for each class.
    """
    check_finite(x)
    labels.check_labels(y, classes)
    labels.check_learnable(y, classes)


def check_finite(x: Tensor) -> None:
    """Raise InputError if a feature is NaN or infinite. x: (n, d)."""
    bad = (~torch.isfinite(x)).any(dim=1).nonzero()
    if len(bad):
        raise InputError(
            f"the backbone's features are not finite for {len(bad):,} of {len(x):,} images; "
            "train it again with a smaller base_lr, or use features='float32' if bf16 overflows"
        )
