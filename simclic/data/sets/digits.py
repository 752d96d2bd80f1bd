"""scikit-learn's handwritten digits: small enough to run everything in miniature, and no data set of the paper's."""

import hashlib

from simclic.data.dataset import Dataset, Facts
from simclic.data.splits import OWN, Splits

FACTS = Facts(
    title="Digits", classes=10, metric="top-1", sizes=(1078, 359, 360), images=1797, rule=OWN, stored=8,
    mean=(0.3053,) * 3, std=(0.3764,) * 3,
)  # fmt: skip


def load_bundled(split: str) -> Dataset:
    """Return 1,797 digits, 8 x 8, grey in three equal channels; stratified 60/20/20 with a fixed seed."""
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
    images = np.repeat(grey[:, None], 3, axis=1)
    h = hashlib.sha256()
    for part in (images, labels, splits.train, splits.val, splits.test):
        h.update(str((part.shape, part.dtype)).encode() + part.tobytes())
    return Dataset(FACTS, images, labels, splits, h.hexdigest()[:16])
