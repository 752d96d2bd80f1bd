"""The one table of facts: everything that is particular to a data set and no code."""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from simclic.data import folder
from simclic.data.listing import Listing
from simclic.data.splits import FIFTH, OWN, PER_CLASS, PUBLISHED, divide
from simclic.errors import InputError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Archive:
    """A file to download, and what it leaves under the root of all data sets.

    digest: algorithm:hex as published, empty where nobody publishes one. into: the folder that it is unpacked or put in.
    gives: what is there afterwards, and comes from no other archive. inner: the archive inside the archive that holds the
    images. url: empty if nobody offers it any more; `where` then says what to do.
    """

    file: str
    into: str
    gives: str
    digest: str = ""
    url: str = ""
    inner: str = ""
    where: str = ""


@dataclass(frozen=True)
class Facts:
    """What is particular to one data set.

    sizes: images in train, val and test under the `ericsson` rule. images: how many the makers published. metric: a key of
    simclic.metrics.METRICS. home, files: the folder that torchvision's class expects, and what must be in it.
    stored: pixels along each side if the images are kept as they are, None if they are made as large as a Run wants them.
    mean, std: per channel, of pixels in [0, 1].
    """

    title: str  # as the paper's tables print it
    classes: int
    metric: str
    sizes: tuple[int, int, int]
    images: int
    rule: str
    home: str = ""
    files: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    stored: int | None = None
    per_class: int = 30  # training images a class, under PER_CLASS
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]

    @property
    def paper(self) -> tuple[int, int, int]:
        """Images in train, val and test under the `paper` rule, where val and test are the same."""
        train, val = self.sizes[:2] if self.rule == PUBLISHED else (self.images - self.images // 5, self.images // 5)
        return train, val, val


_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_PASCAL = "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007"
_SUN = "https://vision.princeton.edu/projects/2010/SUN"
_NO_CARS = "its makers' page is gone and torchvision cannot download it; from a mirror, with 8,144 and 8,041 images"

FACTS: dict[str, Facts] = {
    "aircraft": Facts(
        "Aircraft", 100, "mean per class", (3334, 3333, 3333), 10_000, PUBLISHED, "fgvc-aircraft-2013b/data",
        ("variants.txt", "images", *(f"images_variant_{part}.txt" for part in ("train", "val", "test"))),
        (Archive("fgvc-aircraft-2013b.tar.gz", "", "fgvc-aircraft-2013b",
                 url=f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"),),
    ),
    "caltech101": Facts(
        "Caltech101", 101, "mean per class", (2424, 606, 5647), 8677, PER_CLASS, "caltech101", ("101_ObjectCategories",),
        (Archive("caltech-101.zip", "caltech101", "caltech101/101_ObjectCategories", "md5:3138e1922a9193bfa496528edbbc45d0",
                 "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                 inner="caltech-101/101_ObjectCategories.tar.gz"),),
    ),
    "cars": Facts(
        "Cars", 196, "top-1", (6516, 1628, 8041), 16_185, FIFTH, "stanford_cars",
        ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat", "cars_train", "cars_test"),
        (Archive("car_devkit.tgz", "stanford_cars", "stanford_cars/devkit", "md5:c3b158d763b6e2245038c8ad08e45376",
                 where=_NO_CARS),
         Archive("cars_train.tgz", "stanford_cars", "stanford_cars/cars_train", "md5:065e5b463ae28d29e77c1b4b166cfe61",
                 where=_NO_CARS),
         Archive("cars_test.tgz", "stanford_cars", "stanford_cars/cars_test", "md5:4ce7ebf6a94d07f1952d94dd34c4d501",
                 where=_NO_CARS),
         Archive("cars_test_annos_withlabels.mat", "stanford_cars", "stanford_cars/cars_test_annos_withlabels.mat",
                 "md5:b0a2b23655a3edd16d84508592a98d10", where=_NO_CARS)),
    ),
    "cifar10": Facts(
        "CIFAR10", 10, "top-1", (40_000, 10_000, 10_000), 60_000, FIFTH, "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
        (Archive("cifar-10-python.tar.gz", "", "cifar-10-batches-py", "md5:c58f30108f718f92721af3b95e74349a",
                 "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),),
        stored=32,
    ),
    "cifar100": Facts(
        "CIFAR100", 100, "top-1", (40_000, 10_000, 10_000), 60_000, FIFTH, "cifar-100-python", ("train", "test", "meta"),
        (Archive("cifar-100-python.tar.gz", "", "cifar-100-python", "md5:eb9058c3a382ffc7106e4002c42a8d85",
                 "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"),),
        stored=32,
    ),
    "dtd": Facts(
        "DTD", 47, "top-1", (1880, 1880, 1880), 5640, PUBLISHED, "dtd/dtd",
        ("images", *(f"labels/{part}1.txt" for part in ("train", "val", "test"))),  # the first of ten partitions
        (Archive("dtd-r1.0.1.tar.gz", "dtd", "dtd/dtd", "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
                 f"{_OXFORD}/dtd/download/dtd-r1.0.1.tar.gz"),),
    ),
    "flowers": Facts(
        "Flowers", 102, "mean per class", (1020, 1020, 6149), 8189, PUBLISHED, "flowers-102",
        ("jpg", "imagelabels.mat", "setid.mat"),
        (Archive("102flowers.tgz", "flowers-102", "flowers-102/jpg", "md5:52808999861908f626f3c1f4e79d11fa",
                 f"{_OXFORD}/flowers/102/102flowers.tgz"),
         Archive("imagelabels.mat", "flowers-102", "flowers-102/imagelabels.mat", "md5:e0620be6f572b9609742df49c70aed4d",
                 f"{_OXFORD}/flowers/102/imagelabels.mat"),
         Archive("setid.mat", "flowers-102", "flowers-102/setid.mat", "md5:a5357ecc9cb78c4bef273ce3793fc85c",
                 f"{_OXFORD}/flowers/102/setid.mat")),
    ),
    "food": Facts(
        "Food", 101, "top-1", (60_600, 15_150, 25_250), 101_000, FIFTH, "food-101",
        ("images", "meta/train.json", "meta/test.json"),
        (Archive("food-101.tar.gz", "", "food-101", "md5:85eeb15f3717b99a5da872d97d918f87",
                 "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"),),
    ),
    "pets": Facts(
        "Pets", 37, "mean per class", (2944, 736, 3669), 7349, FIFTH, "oxford-iiit-pet",
        ("images", "annotations/trainval.txt", "annotations/test.txt"),
        (Archive("images.tar.gz", "oxford-iiit-pet", "oxford-iiit-pet/images", "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
                 f"{_OXFORD}/pets/data/images.tar.gz"),
         Archive("annotations.tar.gz", "oxford-iiit-pet", "oxford-iiit-pet/annotations", "md5:95a8c909bbe2e81eed6a22bccdf3f68f",
                 f"{_OXFORD}/pets/data/annotations.tar.gz")),
    ),
    "sun397": Facts(
        "SUN397", 397, "top-1", (15_880, 3970, 19_850), 108_754, FIFTH, "SUN397",
        ("ClassName.txt", "Training_01.txt", "Testing_01.txt"),  # the first of ten partitions
        (Archive("SUN397.tar.gz", "", "SUN397/a", "md5:8ca2778205c41d23104230ba66911c7a", f"{_SUN}/SUN397.tar.gz"),
         Archive("Partitions.zip", "SUN397", "SUN397/Training_01.txt",
                 "sha256:e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9",
                 where=f"torchvision does not offer the partitions; from {_SUN}/download/Partitions.zip")),
    ),
    "voc2007": Facts(
        "VOC2007", 20, "11-point mAP", (2501, 2510, 4952), 9963, PUBLISHED, "VOCdevkit/VOC2007",
        ("JPEGImages", "Annotations", *(f"ImageSets/Main/{part}.txt" for part in ("train", "val", "test"))),
        (Archive("VOCtrainval_06-Nov-2007.tar", "", "VOCdevkit/VOC2007/ImageSets/Main/train.txt",
                 "md5:c52e279531787c972589f7e41ab4ae64", f"{_PASCAL}/VOCtrainval_06-Nov-2007.tar"),
         Archive("VOCtest_06-Nov-2007.tar", "", "VOCdevkit/VOC2007/ImageSets/Main/test.txt",
                 "md5:b6e924de25625d8de591ea690078ad9f", f"{_PASCAL}/VOCtest_06-Nov-2007.tar")),
    ),
    "digits": Facts(
        "Digits", 10, "top-1", (1078, 359, 360), 1797, OWN, stored=8, mean=(0.3053,) * 3, std=(0.3764,) * 3,
    ),
}  # fmt: skip

PAPER = tuple(name for name in FACTS if name != "digits")  # Table 1, in its order


def facts(name: str) -> Facts:
    """The facts of one data set by name, or of a folder of images by its path. Raises InputError if it is neither."""
    if folder.is_path(name):
        return _of_path(name)
    if name not in FACTS:
        near = get_close_matches(name, FACTS, 1)
        own = "" if near else "; a folder of your own images is named by its path, such as ./birds"
        raise InputError(f"dataset={name!r} is not one of {', '.join(FACTS)}" + (f"; did you mean {near[0]!r}?" if near else own))
    return FACTS[name]


def title(name: str) -> str:
    """What a data set is called in print; it need not be there. Raises InputError for an unknown name."""
    return Path(name).expanduser().resolve().name if folder.is_path(name) else facts(name).title


def of_folder(name: str, listing: Listing) -> Facts:
    """The facts of a folder of images, from what lies in it."""
    rule = PUBLISHED if "val" in listing.parts else FIFTH if "test" in listing.parts else OWN
    sizes = divide(listing, "ericsson", rule, 0).sizes
    return Facts(
        title(name), len(listing.classes), "top-1", (sizes["train"], sizes["val"], sizes["test"]), len(listing.paths), rule
    )


@cache
def _of_path(name: str) -> Facts:
    return of_folder(name, folder.scan(name))
