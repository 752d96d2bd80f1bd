"""FGVC-Aircraft."""

from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import PUBLISHED

FACTS = Facts(
    title="Aircraft", classes=100, metric="mean per class", sizes=(3334, 3333, 3333), images=10_000, rule=PUBLISHED,
    home="fgvc-aircraft-2013b/data",
    files=("variants.txt", "images", *(f"images_variant_{part}.txt" for part in ("train", "val", "test"))),
    archives=(
        Archive("fgvc-aircraft-2013b.tar.gz", into="", gives="fgvc-aircraft-2013b",
                url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 100 variants; the strip with the photographer's name at the bottom stays, as in the cited baselines."""
    from torchvision.datasets import FGVCAircraft

    from simclic.data.published import join_parts

    parts = ("train", "val", "test")
    return join_parts(root, {p: FGVCAircraft(root, split=p, annotation_level="variant", loader=str) for p in parts})
