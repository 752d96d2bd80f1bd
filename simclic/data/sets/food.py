"""Food-101."""

import json
from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import FIFTH

FACTS = Facts(
    title="Food", classes=101, metric="top-1", sizes=(60_600, 15_150, 25_250), images=101_000, rule=FIFTH,
    home="food-101",
    files=("images", "meta/classes.txt", "meta/train.json", "meta/test.json"),
    archives=(
        Archive("food-101.tar.gz", into="", gives="food-101", digest="md5:85eeb15f3717b99a5da872d97d918f87",
                url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 101 dishes in the order of classes.txt, as the cited baselines do; in ASCII `cheese_plate` is before `cheesecake`."""
    import numpy as np

    home = root / FACTS.home
    classes = (home / "meta/classes.txt").read_text().split()
    listed = {part: json.loads((home / f"meta/{part}.json").read_bytes()) for part in ("train", "test")}
    rows = [
        (f"{FACTS.home}/images/{name}.jpg", label, part)
        for part, names in listed.items() for label, kind in enumerate(classes) for name in names[kind]
    ]  # fmt: skip
    paths, labels, parts = zip(*rows, strict=True)
    return Listing(root, paths, np.array(labels, dtype=np.int64), parts, tuple(classes))
