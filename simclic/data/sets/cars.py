"""Stanford Cars."""

from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import FIFTH

GONE = "its makers' page is gone and torchvision cannot download it; from a mirror, with 8,144 and 8,041 images"

FACTS = Facts(
    title="Cars", classes=196, metric="top-1", sizes=(6516, 1628, 8041), images=16_185, rule=FIFTH,
    home="stanford_cars",
    files=("devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat", "cars_train", "cars_test"),
    archives=(
        Archive("car_devkit.tgz", into="stanford_cars", gives="stanford_cars/devkit",
                digest="md5:c3b158d763b6e2245038c8ad08e45376", where=GONE),
        Archive("cars_train.tgz", into="stanford_cars", gives="stanford_cars/cars_train",
                digest="md5:065e5b463ae28d29e77c1b4b166cfe61", where=GONE),
        Archive("cars_test.tgz", into="stanford_cars", gives="stanford_cars/cars_test",
                digest="md5:4ce7ebf6a94d07f1952d94dd34c4d501", where=GONE),
        Archive("cars_test_annos_withlabels.mat", into="stanford_cars", gives="stanford_cars/cars_test_annos_withlabels.mat",
                digest="md5:b0a2b23655a3edd16d84508592a98d10", where=GONE),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 196 models of cars."""
    from torchvision.datasets import StanfordCars

    from simclic.data.published import join_parts

    return join_parts(root, {part: StanfordCars(root, split=part, loader=str) for part in ("train", "test")})
