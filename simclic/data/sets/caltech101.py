"""Caltech101."""

from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import PER_CLASS

FACTS = Facts(
    title="Caltech101", classes=101, metric="mean per class", sizes=(2424, 606, 5647), images=8677, rule=PER_CLASS,
    home="caltech101",
    files=("101_ObjectCategories",),
    archives=(
        Archive("caltech-101.zip", into="caltech101", gives="caltech101/101_ObjectCategories",
                digest="md5:3138e1922a9193bfa496528edbbc45d0",
                url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                inner="caltech-101/101_ObjectCategories.tar.gz"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 101 classes, without the background class; torchvision would take any file for an image, numbered without a gap."""
    import numpy as np

    home = root / FACTS.home / FACTS.files[0]
    classes = sorted(p.name for p in home.iterdir() if p.is_dir() and p.name != "BACKGROUND_Google")
    images = [(path, label) for label, kind in enumerate(classes) for path in sorted((home / kind).glob("image_*.jpg"))]
    others = (p for kind in classes for p in (home / kind).iterdir() if not p.match("image_*.jpg"))
    return Listing(
        root, tuple(path.relative_to(root).as_posix() for path, _ in images),
        np.array([label for _, label in images], dtype=np.int64), ("",) * len(images), tuple(classes),
        others=tuple(sorted(p.relative_to(root).as_posix() for p in others)),
    )  # fmt: skip
