"""Oxford-IIIT Pet."""

from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import FIFTH

OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"

FACTS = Facts(
    title="Pets", classes=37, metric="mean per class", sizes=(2944, 736, 3669), images=7349, rule=FIFTH,
    home="oxford-iiit-pet",
    files=("images", "annotations/trainval.txt", "annotations/test.txt"),
    archives=(
        Archive("images.tar.gz", into="oxford-iiit-pet", gives="oxford-iiit-pet/images",
                digest="md5:5c4f3ee8e5d25df40f4fd59a7f44e54c", url=f"{OXFORD}/images.tar.gz"),
        Archive("annotations.tar.gz", into="oxford-iiit-pet", gives="oxford-iiit-pet/annotations",
                digest="md5:95a8c909bbe2e81eed6a22bccdf3f68f", url=f"{OXFORD}/annotations.tar.gz"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 37 breeds of cats and dogs."""
    from torchvision.datasets import OxfordIIITPet

    from simclic.data.published import join_parts

    sets = {part: OxfordIIITPet(root, split=split) for part, split in (("train", "trainval"), ("test", "test"))}
    # This class alone has no `loader`, so its lists are read where they are kept.
    return join_parts(root, sets, lambda d: zip(d._images, d._labels, strict=True))
