"""Error in percent, 0-100, lower is better: 100 minus each data set's own metric."""

from collections.abc import Callable

import numpy as np

from simclic.data.dataset import Facts
from simclic.errors import InputError


def top_1(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the percentage of images whose highest score is not their class. truth: (N,) int. scores: (N, K)."""
    return float(100 * np.mean(scores.argmax(axis=1) != truth))


def top_5(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the percentage of images whose class is not among the five highest scores. truth: (N,) int. scores: (N, K)."""
    five = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return float(100 * np.mean((five != truth[:, None]).all(axis=1)))


def mean_per_class(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the top-1 error of each class in truth, averaged over these classes. truth: (N,) int. scores: (N, K)."""
    wrong = scores.argmax(axis=1) != truth
    return float(100 * np.mean([wrong[truth == k].mean() for k in np.unique(truth)]))


def mean_average_precision(truth: np.ndarray, scores: np.ndarray, as_baselines: bool = True) -> float:
    """Return 100 minus the 11-point mean average precision over the classes that some image shows.

    truth: (N, K) 1 shown, 0 not shown, -1 left out for that class. scores: (N, K). The cited baselines append a point at
    recall 0 and precision 1, which sets the term at recall 0 to 1. VOC's own definition (`as_baselines=False`) has no such
    point: its average precision is lower by (1 - highest precision) / 11 per class, and its error higher by as much.
    Raises InputError if no image shows any class.
    """
    from sklearn.metrics import precision_recall_curve

    precisions = []
    for k in np.flatnonzero((truth == 1).any(axis=0)):
        judged = truth[:, k] >= 0
        precision, recall, _ = precision_recall_curve(truth[judged, k], scores[judged, k])
        if not as_baselines:
            precision, recall = precision[:-1], recall[:-1]
        precisions.append(np.mean([precision[recall >= level].max() for level in np.linspace(0, 1, 11)]))
    if not precisions:
        raise InputError(f"none of {len(truth)} images shows any class; average precision needs one that does")
    return 100 - 100 * float(np.mean(precisions))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "top-1": top_1,
    "mean per class": mean_per_class,
    "11-point mAP": mean_average_precision,
}
FURTHER = {"top-5": top_5}


def score_test(facts: Facts, truth: np.ndarray, scores: np.ndarray) -> dict[str, float | str]:
    """Return the error on test by the data set's metric, that metric's name, and any further error that the data set has."""
    further = {facts.further: FURTHER[facts.further](truth, scores)} if facts.further else {}
    return {"error": METRICS[facts.metric](truth, scores), "metric": facts.metric, **further}
