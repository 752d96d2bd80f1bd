"""k nearest neighbours (Wu et al., 2018, Section 3.4): the images nearest by cosine vote for their classes."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simclic.data import Dataset, labels
from simclic.data.metrics import METRICS, score_test
from simclic.errors import InputError
from simclic.experiment import Knn
from simclic.progress import Tell
from simclic.store.result_file import Scored
from simclic.train.neighbours import one_hot, sum_votes


def evaluate_neighbours(protocol: Knn, x: Tensor, dataset: Dataset, on_progress: Tell = lambda share, note: None) -> Scored:
    """Score val with train as the bank, then test with train + val as the bank. Both by the data set's metric.

    x: (N, d) float32, the features of all images of the data set, on the device that computes. Raises InputError for unusable
    labels, or if k is larger than the bank.
    """
    started, splits = time.monotonic(), dataset.splits
    metric = METRICS[dataset.facts.metric]
    check_bank(protocol, len(splits.train))
    labels.check_labels(dataset.labels, dataset.facts.classes)
    labels.check_judgeable(dataset)

    def score_split(bank: np.ndarray, queries: np.ndarray) -> np.ndarray:
        shown = one_hot(dataset.labels[bank], dataset.facts.classes).to(x.device)
        x_bank, x_queries = (x[torch.from_numpy(index).to(x.device)] for index in (bank, queries))
        return sum_votes(x_bank, shown, x_queries, protocol.k, protocol.temperature).cpu().numpy()

    val_error = metric(dataset.labels[splits.val], score_split(splits.train, splits.val))
    on_progress(0.5, "neighbours of val")
    truth, test = dataset.labels[splits.test], score_split(splits.fit, splits.test)
    record: dict[str, Any] = {
        **score_test(dataset.facts, truth, test), "curve": [], "sizes": splits.sizes,
        "chosen": {"k": protocol.k, "temperature": protocol.temperature, "val_error": val_error},
        "seconds": time.monotonic() - started,
    }  # fmt: skip
    return record, truth, test


def check_bank(protocol: Knn, images: int) -> None:
    """Raise InputError if fewer images than k can vote. images: in train."""
    if protocol.k > images:
        smaller = f"k=20, or any k up to {images}" if images > 20 else f"a k up to {images}"
        raise InputError(f"k={protocol.k} is more than the {images:,} training images that can vote; use {smaller}")
