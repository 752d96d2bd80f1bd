"""What the published files say of a data set before any image is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Listing:
    """Every image, in an order that depends on names and published lists alone, never on the file system.

    paths: (N,) of the images, below `base`. labels: (N,) class index, or (N, K) with 1 for a class that is shown, 0 for one
    that is not, -1 for one of which only `difficult` objects are shown. parts: (N,) "train", "val" or "test" as the makers
    divide the images, "" where they do not. classes: (K,) names. pixels: (N, 3, H, W) uint8 if the images do not lie in files
    of their own but in `holders`, also below `base`. others: files beside the images that belong to no image;
    None if the reader did not look. remarks: what is worth knowing about the layout, a line each. upright: whether images are
    turned as their EXIF orientation says; the cited baselines did not turn the published ones.
    """

    base: Path
    paths: tuple[str, ...]
    labels: "np.ndarray"
    parts: tuple[str, ...]
    classes: tuple[str, ...]
    pixels: "np.ndarray | None" = None
    holders: tuple[str, ...] = ()
    others: tuple[str, ...] | None = None
    remarks: tuple[str, ...] = ()
    upright: bool = False
