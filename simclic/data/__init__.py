"""The data sets: one table of facts, one loader, one check. Reading facts needs neither torch nor the data."""

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.spec import InputError

if TYPE_CHECKING:
    import numpy as np

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Facts:
    """What is particular to one data set.

    sizes: images in train, val and test under the `ericsson` rule. metric: a key of simclic.metrics.METRICS.
    mean, std: per channel, of pixels in [0, 1].
    """

    title: str  # as the paper's tables print it
    classes: int
    metric: str
    sizes: tuple[int, int, int]
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]


FACTS: dict[str, Facts] = {
    "aircraft": Facts("Aircraft", 100, "mean per class", (3334, 3333, 3333)),
    "caltech101": Facts("Caltech101", 101, "mean per class", (2424, 606, 5647)),
    "cars": Facts("Cars", 196, "top-1", (6516, 1628, 8041)),
    "cifar10": Facts("CIFAR10", 10, "top-1", (40000, 10000, 10000)),
    "cifar100": Facts("CIFAR100", 100, "top-1", (40000, 10000, 10000)),
    "dtd": Facts("DTD", 47, "top-1", (1880, 1880, 1880)),
    "flowers": Facts("Flowers", 102, "mean per class", (1020, 1020, 6149)),
    "food": Facts("Food", 101, "top-1", (60600, 15150, 25250)),
    "pets": Facts("Pets", 37, "mean per class", (2944, 736, 3669)),
    "sun397": Facts("SUN397", 397, "top-1", (15880, 3970, 19850)),
    "voc2007": Facts("VOC2007", 20, "11-point mAP", (2501, 2510, 4952)),
    "digits": Facts("Digits", 10, "top-1", (1078, 359, 360), (0.3053,) * 3, (0.3764,) * 3),
}

PAPER = tuple(name for name in FACTS if name != "digits")  # Table 1, in its order


@dataclass(frozen=True)
class Splits:
    """Which images are for what: arrays of indices. Under the `paper` rule val and test are the same images."""

    train: "np.ndarray"
    val: "np.ndarray"
    test: "np.ndarray"

    @property
    def fit(self) -> "np.ndarray":
        """All images that may be learned from once nothing is left to choose: train and val, never test."""
        import numpy as np

        return np.setdiff1d(np.union1d(self.train, self.val), self.test)

    @property
    def sizes(self) -> dict[str, int]:
        """Images per split, and how many the final fit sees."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test), "fit": len(self.fit)}


@dataclass(frozen=True)
class Dataset:
    """Decoded images and what is known of them. images: (N, 3, H, W) uint8. labels: (N,) int64 in [0, classes)."""

    facts: Facts
    images: "np.ndarray"
    labels: "np.ndarray"
    splits: Splits

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits over pixels, labels and splits: numbers with different digests are not comparable."""
        h = hashlib.sha256()
        for part in (self.images, self.labels, self.splits.train, self.splits.val, self.splits.test):
            h.update(str((part.shape, part.dtype)).encode() + part.tobytes())
        return h.hexdigest()[:16]


def facts(name: str) -> Facts:
    """The facts of one data set. Raises InputError for an unknown name."""
    if name not in FACTS:
        near = get_close_matches(name, FACTS, 1)
        raise InputError(f"dataset={name!r} is not one of {', '.join(FACTS)}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return FACTS[name]


def missing(name: str, root: Path) -> str:
    """What of the data set is not there, in one line; empty if it can be loaded. Raises InputError for an unknown name."""
    title = facts(name).title
    return "" if name == "digits" else f"{root / name}: {title} is not there yet; this version reads digits only"


def load(name: str, split: str, root: Path) -> Dataset:
    """All images of a data set and its splits under the rule `split` ("ericsson" or "paper").

    Raises InputError if the data set is unknown or not there.
    """
    if problem := missing(name, root):
        raise InputError(problem)
    return _digits(split)


def _digits(split: str) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, grey in three equal channels; stratified 60/20/20 with a fixed seed."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 0..16 as published
    rest, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    if split == "paper":
        splits = Splits(np.sort(rest), np.sort(test), np.sort(test))
    else:
        train, val = train_test_split(rest, test_size=359, stratify=labels[rest], random_state=0)
        splits = Splits(np.sort(train), np.sort(val), np.sort(test))
    return Dataset(FACTS["digits"], np.repeat(grey[:, None], 3, axis=1), labels, splits)
