"""What is declared of a data set before anything is read, and what a loaded one consists of."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simclic.data.splits import MAKERS_VAL, PUBLISHED, UNLABELLED, Splits

if TYPE_CHECKING:
    import numpy as np

    from simclic.data.decoded import FileImages
    from simclic.data.whole_images import WholeImages

BICUBIC = "bicubic"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def estimate_decoded_bytes(count: int, side: int, whole: bool = False) -> float:
    """Return what decoded images take. side: in pixels, the shorter one of whole images, a guess for 4:3."""
    return 3.0 * count * side**2 * (4 / 3 if whole else 1)


@dataclass(frozen=True)
class Archive:
    """A file to download, and what it leaves under the root of all data sets.

    digest: algorithm:hex as published, empty where nobody publishes one. into: the folder that it is unpacked or put in.
    gives: what is there afterwards, and comes from no other archive. inner: the archive inside the archive that holds the
    images; "*.tar" for one of each class. flat: whether its members go into the folder that it gives. url: empty if nobody offers
    it any more. where: what to do then, or if the address does not answer.
    """

    file: str
    into: str
    gives: str
    digest: str = ""
    url: str = ""
    inner: str = ""
    flat: bool = False
    where: str = ""


@dataclass(frozen=True)
class Facts:
    """What is particular to one data set.

    sizes: images in train, val and test under the `ericsson` rule. images: how many the makers published. metric: a key of
    simclic.data.metrics.METRICS. home, files: the folder that the reader expects, and what must be in it; nothing for a folder
    of one's own, or if the images come with an installed library. stored: pixels along each side if the images are kept as they
    are, None if they are made as large as a Run wants them. further: a key of metrics.FURTHER that is recorded beside, or none.
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
    further: str = ""
    per_class: int = 30  # training images a class, under PER_CLASS
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]

    @property
    def paper(self) -> tuple[int, int, int]:
        """Images in train, val and test under the `paper` rule, where val and test are the same."""
        train, val, test = self.sizes
        if self.rule == MAKERS_VAL:
            return train + val, test, test
        if self.rule not in (PUBLISHED, UNLABELLED):
            train, val = self.images - self.images // 5, self.images // 5
        return train, val, val


@dataclass(frozen=True)
class Dataset:
    """Decoded images and what is known of them.

    images: (N, 3, H, W) uint8, in a file or decoded as they are needed; whole ones have a method read_image. labels: (N,) int64
    in [0, classes); (N, classes) with several per image or none (N, 0), 1 shown, 0 not shown, -1 not to be judged. digest:
    sixteen hex digits; numbers with different digests are not comparable. files: (N,) where each image lies whole, nothing if
    `images` are all there is of them. names: (classes,) of the classes, nothing if they are numbers. remarks: what is worth
    knowing about a folder of images, a line each. upright: as in Listing. interpolation: "bicubic" or "bilinear", by which images
    are resized, `images` and what is made of them later.
    """

    facts: Facts
    images: "np.ndarray | WholeImages | FileImages"
    labels: "np.ndarray"
    splits: Splits
    digest: str
    files: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    upright: bool = False
    interpolation: str = BICUBIC
