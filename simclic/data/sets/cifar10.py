"""CIFAR-10."""

from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import FIFTH

FACTS = Facts(
    title="CIFAR10", classes=10, metric="top-1", sizes=(40_000, 10_000, 10_000), images=60_000, rule=FIFTH, stored=32,
    home="cifar-10-batches-py",
    files=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    archives=(
        Archive("cifar-10-python.tar.gz", into="", gives="cifar-10-batches-py", digest="md5:c58f30108f718f92721af3b95e74349a",
                url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List ten classes of 32 x 32 pixels."""
    from torchvision.datasets import CIFAR10

    from simclic.data.published import read_cifar

    return read_cifar(root, CIFAR10)
