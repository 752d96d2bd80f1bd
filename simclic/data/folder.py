"""A folder of one's own images as a data set: class/image below it, or train, val and test with class/image below those."""

import os
from collections.abc import Iterator
from pathlib import Path

from simclic.data.listing import Listing
from simclic.errors import InputError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
PARTS = ("train", "val", "test")
LAYOUT = "a folder of images holds one folder per class, or train, test and perhaps val with one folder per class in each"


def is_path(name: str) -> bool:
    """Is a data set named by its path? Then there is a slash in it or it begins with a dot."""
    return "/" in name or os.sep in name or name.startswith(".")


def absent(name: str) -> str:
    """What is wrong with the folder at first sight, in one line; empty if nothing is."""
    return "" if Path(name).expanduser().is_dir() else f"{name}: no such folder; {LAYOUT}"


def scan(name: str) -> Listing:
    """Every image in the folder. Raises InputError if it has another layout."""
    import numpy as np

    if problem := absent(name):
        raise InputError(problem)
    base = Path(name).expanduser()
    present = [part for part in PARTS if (base / part).is_dir()]
    if present and not {"train", "test"} <= set(present):
        raise InputError(f"{name}: has {' and '.join(present)} alone; {LAYOUT}")
    found: dict[str, list[tuple[str, str]]] = {}  # part -> (class, path)
    others = []
    for part in present or [""]:
        images, rest = _images(base, part)
        found[part] = images
        others += rest
    classes = tuple(sorted({kind for kind, _ in found.get("train", found.get("", []))}))
    for part, images in found.items():
        if not images:
            raise InputError(f"{base / part}: no images in it ({', '.join(IMAGES)}); {LAYOUT}")
        if unknown := sorted({kind for kind, _ in images} - set(classes)):
            raise InputError(f"{base / part / unknown[0]}: a class that train does not have")
    if len(classes) < 2:
        raise InputError(f"{name}: all images are of one class, {classes[0]!r}; {LAYOUT}")
    flat = [(path, kind, part) for part, images in found.items() for kind, path in images]
    labels = np.array([classes.index(kind) for _, kind, _ in flat], dtype=np.int64)
    return Listing(base, tuple(p for p, _, _ in flat), labels, tuple(p for _, _, p in flat), classes, others=tuple(others))


def _images(base: Path, part: str) -> tuple[list[tuple[str, str]], list[str]]:
    """(class, path) of every image of one part, and the paths of all other files, sorted."""
    images, others = [], []
    for path in sorted(_files(base / part)):
        inside = path.relative_to(base / part)
        if len(inside.parts) > 1 and path.suffix.lower() in IMAGES and not any(p.startswith(".") for p in inside.parts):
            images.append((inside.parts[0], path.relative_to(base).as_posix()))
        else:
            others.append(path.relative_to(base).as_posix())
    return images, others


def _files(place: Path) -> Iterator[Path]:
    """Every file below a folder, links followed.

    Raises OSError for a folder that cannot be read, which Path.rglob would pass over, and InputError for one that is reached
    twice and for a name that is not UTF-8.
    """
    seen = set()

    def stop(e: OSError) -> None:
        raise e

    for above, _, names in os.walk(place, onerror=stop, followlinks=True):
        real = os.path.realpath(above)
        if real in seen:
            raise InputError(f"{above}: a link to a folder that is in the data set already; remove it")
        seen.add(real)
        for name in names:
            if any("\ud800" <= c <= "\udfff" for c in name):  # how Python holds bytes that are no UTF-8
                raise InputError(f"{os.path.join(above, name)!a}: a name that is not UTF-8; rename it")
            yield Path(above, name)
