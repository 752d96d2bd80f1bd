"""Linear evaluation (Section 4.2): frozen features, 45 values of l2; the best on val is refitted on train + val and tested once.

Two solvers of the same problem: `converged` to a proven gap, `as-published` as the cited baselines' source did.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simclic.data import Dataset, labels
from simclic.data.metrics import METRICS, score_test
from simclic.evaluate.linear import newton, published
from simclic.evaluate.linear.fit import Fit
from simclic.evaluate.linear.frozen import frozen_features
from simclic.experiment import Linear
from simclic.progress import Tell
from simclic.store.result_file import Scored

__all__ = ["Fit", "frozen_features", "linear_probe"]

SOLVERS = {"converged": newton.solve_path, "as-published": published.solve_path}


def linear_probe(protocol: Linear, x: Tensor, dataset: Dataset, on_progress: Tell = lambda share, note: None) -> Scored:
    """Fit on train for every l2, choose on val by the data set's metric, refit on train + val, score test once.

    x: (N, d) float32, the features of all images of the data set, on the device that computes. Of equal errors the first in the
    protocol's order wins: the stronger l2; as published, the weaker. Raises InputError for unusable labels or features.
    """
    started, splits, classes = time.monotonic(), dataset.splits, dataset.facts.classes
    metric, solve = METRICS[dataset.facts.metric], SOLVERS[protocol.solver]
    labels.check_labels(dataset.labels, classes)
    labels.check_learnable(dataset.labels[splits.train], classes, dataset.names)
    labels.check_judgeable(dataset)

    def select_split(name: str) -> tuple[Tensor, np.ndarray]:
        index = getattr(splits, name)
        return x[torch.from_numpy(index).to(x.device)], dataset.labels[index]

    val, val_truth = select_split("val")
    curve: list[dict[str, Any]] = []
    best: tuple[float, Fit] | None = None
    for last in solve(*select_split("train"), classes, protocol.order, protocol):
        error = metric(val_truth, last.decision_values(val))
        if best is None or error < best[0]:
            best = error, last
        curve.append({"l2": last.l2, "error": error, **last.convergence})
        on_progress(len(curve) / (len(protocol.l2) + 1), f"l2 {last.l2:.1e}")
    assert best is not None

    lowest, chosen = best
    start = chosen if protocol.solver == "converged" else last  # as published, the refit starts from the last fit
    (refit,) = solve(*select_split("fit"), classes, [chosen.l2], protocol, start)
    x_test, truth = select_split("test")
    test = refit.decision_values(x_test)
    record = {
        **score_test(dataset.facts, truth, test), "curve": curve, "sizes": splits.sizes,
        "chosen": {"l2": chosen.l2, "val_error": lowest, **refit.convergence},
        "unconverged": sum(not row["converged"] for row in curve) + (not refit.converged),
        "seconds": time.monotonic() - started,
    }  # fmt: skip
    if protocol.solver == "as-published":
        record["lbfgs"] = published.OPTIONS
    return record, truth, test
