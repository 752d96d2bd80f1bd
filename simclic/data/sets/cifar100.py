"""CIFAR-100."""

from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import FIFTH

FACTS = Facts(
    title="CIFAR100", classes=100, metric="top-1", sizes=(40_000, 10_000, 10_000), images=60_000, rule=FIFTH, stored=32,
    home="cifar-100-python",
    files=("train", "test", "meta"),
    archives=(
        Archive("cifar-100-python.tar.gz", into="", gives="cifar-100-python", digest="md5:eb9058c3a382ffc7106e4002c42a8d85",
                url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List a hundred classes of 32 x 32 pixels."""
    from torchvision.datasets import CIFAR100

    from simclic.data.published import read_cifar

    return read_cifar(root, CIFAR100)
