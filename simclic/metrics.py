"""Error in percent, 0-100, lower is better: 100 minus each data set's own metric."""

from collections.abc import Callable

import numpy as np


def top_1(truth: np.ndarray, scores: np.ndarray) -> float:
    """Share of images whose highest score is not their class. truth: (N,) int. scores: (N, K)."""
    return float(100 * np.mean(scores.argmax(axis=1) != truth))


def mean_per_class(truth: np.ndarray, scores: np.ndarray) -> float:
    """Top-1 error of each class that occurs in truth, averaged over those classes. truth: (N,) int. scores: (N, K)."""
    wrong = scores.argmax(axis=1) != truth
    return float(100 * np.mean([wrong[truth == k].mean() for k in np.unique(truth)]))


def mean_average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """100 minus the 11-point mean average precision, computed as the cited baselines did.

    truth: (N, K) 0 or 1. scores: (N, K). The precision-recall curve ends in (recall 0, precision 1), which sets the term
    at recall 0 to 1; VOC's own definition has no such point and is lower by at most 1/11 per class.
    """
    from sklearn.metrics import precision_recall_curve

    def average_precision(t: np.ndarray, s: np.ndarray) -> float:
        precision, recall, _ = precision_recall_curve(t, s)
        return float(np.mean([precision[recall >= level].max() for level in np.linspace(0, 1, 11)]))

    return 100 - 100 * float(np.mean([average_precision(truth[:, k], scores[:, k]) for k in range(truth.shape[1])]))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "top-1": top_1,
    "mean per class": mean_per_class,
    "11-point mAP": mean_average_precision,
}
