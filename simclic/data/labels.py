"""Check that labels can be learned from, and that results on them can be judged."""

from collections.abc import Sequence

import numpy as np

from simclic.data.dataset import Dataset
from simclic.errors import InputError


def check_labels(y: np.ndarray, classes: int) -> None:
    """Raise InputError unless labels are of `classes` classes, or 1, 0 or -1 where an image shows several.

    y: (n,) class indices, or (n, K) with 1, 0 or -1 for each class.
    """
    if y.ndim not in (1, 2) or y.dtype.kind not in "iu":
        raise InputError(f"labels of shape {y.shape} and type {y.dtype}: they are whole numbers, one or K for each image")
    if y.ndim == 2 and y.shape[1] != classes:
        raise InputError(f"labels of {y.shape[1]} classes, but there are {classes}")
    low, high = (0, classes - 1) if y.ndim == 1 else (-1, 1)
    wrong = np.argwhere((y < low) | (y > high))
    if len(wrong):
        rule = f"{classes} classes are 0 to {high}" if y.ndim == 1 else "1 is shown, 0 is not, -1 is not to be judged"
        raise InputError(f"label {y[tuple(wrong[0])]} of image {wrong[0][0]} is out of range: {rule}")


def check_learnable(y: np.ndarray, classes: int, names: Sequence[str] = ()) -> None:
    """Raise InputError unless a classifier of `classes` classes can be learned from training images with these labels.

    names: of the classes, if they have any.
    """
    if y.ndim == 2:
        for k in range(y.shape[1]):
            judged = y[y[:, k] >= 0, k]
            if len(np.unique(judged)) < 2:
                shown = "all show it" if judged.any() else "none shows it"
                raise InputError(
                    f"{_format_class(k, names)}: of {len(judged)} training images {shown}; its problem needs both kinds"
                )
        return
    counts = np.bincount(y, minlength=classes)
    if (counts > 0).sum() < 2:
        raise InputError(
            f"all {len(y)} training images are of {_format_class(int(counts.argmax()), names)}; a classifier needs two classes"
        )
    absent = np.flatnonzero(counts == 0)
    if len(absent):
        none = f"{_format_class(absent[0], names)} has no training image{_format_others(absent)}"
        if len(y) < classes:
            raise InputError(f"{len(y)} training images for {classes} classes: {none}; each class needs one")
        raise InputError(f"{none}; add one or leave the class out")


def check_judgeable(dataset: Dataset) -> None:
    """Raise InputError if a class that images show beside others (VOC2007) is shown by none of val or of test.

    Its average precision is then undefined. Top-1 error and its mean over the classes that are there always exist.
    """
    for part in ("val", "test") if dataset.labels.ndim == 2 else ():
        absent = np.flatnonzero(~(dataset.labels[getattr(dataset.splits, part)] == 1).any(axis=0))
        if len(absent):
            none = f"{_format_class(absent[0], dataset.names)} is shown by no {part} image{_format_others(absent)}"
            raise InputError(f"{none}, so that its average precision cannot be computed; add one or leave the class out")


def _format_class(k: int, names: Sequence[str]) -> str:
    return f"class {names[k]!r}" if names else f"class {k}"


def _format_others(absent: np.ndarray) -> str:
    """Return how many further classes are absent, as text."""
    return f" (nor have {len(absent) - 1} others)" if len(absent) > 1 else ""
