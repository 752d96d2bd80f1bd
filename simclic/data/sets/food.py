"""Food-101."""

from dataclasses import replace
from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import FIFTH

FACTS = Facts(
    title="Food", classes=101, metric="top-1", sizes=(60_600, 15_150, 25_250), images=101_000, rule=FIFTH,
    home="food-101",
    files=("images", "meta/train.json", "meta/test.json"),
    archives=(
        Archive("food-101.tar.gz", into="", gives="food-101", digest="md5:85eeb15f3717b99a5da872d97d918f87",
                url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 101 dishes, in the order of class names; torchvision's is that of the keys in a JSON file."""
    from torchvision.datasets import Food101

    from simclic.data.published import join_parts

    listing = join_parts(root, {part: Food101(root, split=part, loader=str) for part in ("train", "test")})
    order = sorted(range(len(listing.paths)), key=lambda i: (listing.parts[i] != "train", listing.labels[i]))
    paths, parts = (tuple(values[i] for i in order) for values in (listing.paths, listing.parts))
    return replace(listing, paths=paths, labels=listing.labels[order], parts=parts)
