"""Oxford Flowers."""

from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import PUBLISHED

OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"

FACTS = Facts(
    title="Flowers", classes=102, metric="mean per class", sizes=(1020, 1020, 6149), images=8189, rule=PUBLISHED,
    home="flowers-102",
    files=("jpg", "imagelabels.mat", "setid.mat"),
    archives=(
        Archive("102flowers.tgz", into="flowers-102", gives="flowers-102/jpg", digest="md5:52808999861908f626f3c1f4e79d11fa",
                url=f"{OXFORD}/102flowers.tgz"),
        Archive("imagelabels.mat", into="flowers-102", gives="flowers-102/imagelabels.mat",
                digest="md5:e0620be6f572b9609742df49c70aed4d", url=f"{OXFORD}/imagelabels.mat"),
        Archive("setid.mat", into="flowers-102", gives="flowers-102/setid.mat",
                digest="md5:a5357ecc9cb78c4bef273ce3793fc85c", url=f"{OXFORD}/setid.mat"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 102 flowers."""
    from torchvision.datasets import Flowers102

    from simclic.data.published import join_parts

    return join_parts(root, {part: Flowers102(root, split=part, loader=str) for part in ("train", "val", "test")})
