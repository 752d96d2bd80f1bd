"""Describable Textures."""

from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import PUBLISHED

FACTS = Facts(
    title="DTD", classes=47, metric="top-1", sizes=(1880, 1880, 1880), images=5640, rule=PUBLISHED,
    home="dtd/dtd",
    files=("images", *(f"labels/{part}1.txt" for part in ("train", "val", "test"))),  # the first of ten partitions
    archives=(
        Archive("dtd-r1.0.1.tar.gz", into="dtd", gives="dtd/dtd", digest="md5:fff73e5086ae6bdbea199a49dfb8a4c1",
                url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 47 textures; the first of ten partitions."""
    from torchvision.datasets import DTD

    from simclic.data.published import join_parts

    return join_parts(root, {part: DTD(root, split=part, partition=1, loader=str) for part in ("train", "val", "test")})
