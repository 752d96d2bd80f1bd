"""The eleven data sets as their makers publish them: torchvision's classes read them, what these lack is added here once.

Added: RGB whatever an image's mode (in `decoded`), an order that depends on no file system, Caltech101 without relying on
file numbers, SUN397's official partition, VOC2007's classes per image with objects marked `difficult`.
"""

import hashlib
import json
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from simclic.data.facts import FACTS
from simclic.data.listing import Listing
from simclic.errors import InputError

# What a file that is not what it should be makes these readers raise.
UNREADABLE = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, EOFError, ElementTree.ParseError,
    pickle.UnpicklingError, NotImplementedError, zlib.error, struct.error, MatReadError,
)  # fmt: skip


def listing(name: str, root: Path) -> Listing:
    """All images that the makers published. Raises InputError if the annotation files cannot be read or disagree."""
    home = root / FACTS[name].home
    try:
        found = LAYOUTS[name](root)
    except InputError:
        raise
    except UNREADABLE as e:
        raise InputError(_blame(name, root) or f"{home}: cannot be read ({_short(e)}); it is not as published") from e
    if not found.paths:
        raise InputError(f"{home}: no images are listed there")
    return found


def aircraft(root: Path) -> Listing:
    """100 variants of aircraft; the strip with the photographer's name at the bottom stays, as in the cited baselines."""
    from torchvision.datasets import FGVCAircraft

    return _joined(
        root, {p: FGVCAircraft(root, split=p, annotation_level="variant", loader=str) for p in ("train", "val", "test")}
    )


def caltech101(root: Path) -> Listing:
    """101 classes without the background class; torchvision would take any file for an image, numbered without a gap."""
    home = root / "caltech101" / "101_ObjectCategories"
    classes = sorted(p.name for p in home.iterdir() if p.is_dir() and p.name != "BACKGROUND_Google")
    images = [(path, label) for label, kind in enumerate(classes) for path in sorted((home / kind).glob("image_*.jpg"))]
    every = (p for kind in classes for p in (home / kind).iterdir() if not p.match("image_*.jpg"))
    others = sorted(p.relative_to(root).as_posix() for p in every)
    paths = tuple(path.relative_to(root).as_posix() for path, _ in images)
    return Listing(root, paths, _int([label for _, label in images]), ("",) * len(paths), tuple(classes), others=tuple(others))


def cars(root: Path) -> Listing:
    """196 models of cars."""
    from torchvision.datasets import StanfordCars

    return _joined(root, {part: StanfordCars(root, split=part, loader=str) for part in ("train", "test")})


def cifar10(root: Path) -> Listing:
    """Ten classes of 32 x 32 pixels."""
    from torchvision.datasets import CIFAR10

    return _cifar(root, CIFAR10)


def cifar100(root: Path) -> Listing:
    """A hundred classes of 32 x 32 pixels."""
    from torchvision.datasets import CIFAR100

    return _cifar(root, CIFAR100)


def dtd(root: Path) -> Listing:
    """47 textures; the first of ten partitions."""
    from torchvision.datasets import DTD

    return _joined(root, {part: DTD(root, split=part, partition=1, loader=str) for part in ("train", "val", "test")})


def flowers(root: Path) -> Listing:
    """102 flowers."""
    from torchvision.datasets import Flowers102

    return _joined(root, {part: Flowers102(root, split=part, loader=str) for part in ("train", "val", "test")})


def food(root: Path) -> Listing:
    """101 dishes, in the order of class names; torchvision's is that of the keys in a JSON file."""
    from torchvision.datasets import Food101

    found = _joined(root, {part: Food101(root, split=part, loader=str) for part in ("train", "test")})
    return _ordered(found, sorted(range(len(found.paths)), key=lambda i: (found.parts[i] != "train", found.labels[i])))


def pets(root: Path) -> Listing:
    """37 breeds of cats and dogs."""
    from torchvision.datasets import OxfordIIITPet

    sets = {part: OxfordIIITPet(root, split=split) for part, split in (("train", "trainval"), ("test", "test"))}
    # This class alone has no `loader`, so its lists are read where they are kept.
    return _joined(root, sets, lambda d: zip(d._images, d._labels, strict=True))


def sun397(root: Path) -> Listing:
    """397 scenes: the official partition 1, then all images that are in neither of its lists, by name."""
    from torchvision.datasets import SUN397

    home, data = root / "SUN397", SUN397(root, loader=str)
    labels = {Path(p).relative_to(home).as_posix(): label for p, label in (data[i] for i in range(len(data)))}
    listed: dict[str, str] = {}
    for part, file in (("train", "Training_01.txt"), ("test", "Testing_01.txt")):
        for line in filter(None, map(str.strip, (home / file).read_text().splitlines())):
            path = line.lstrip("/")
            if path in listed:
                raise InputError(f"{home / file}: {line} is listed twice")
            listed[path] = part
            if path not in labels:  # not on disk: named with all that is missing once images are looked at
                kind = "/".join(Path(path).parts[1:-1])
                if kind not in data.class_to_idx:
                    raise InputError(f"{home / file}: {line} is of no class in ClassName.txt")
                labels[path] = data.class_to_idx[kind]
    paths = [*listed, *sorted(labels.keys() - listed.keys())]
    parts = tuple(listed.get(path, "") for path in paths)
    return Listing(root, tuple(f"SUN397/{p}" for p in paths), _int([labels[p] for p in paths]), parts, tuple(data.classes))


def voc2007(root: Path) -> Listing:
    """20 classes, several per image: 1 if an object of the class is not `difficult`, -1 if all of them are, else 0."""
    from torchvision.datasets import VOCDetection

    paths, parts, objects = list[str](), list[str](), list[dict[str, int]]()
    for part in ("train", "val", "test"):
        data = VOCDetection(root, year="2007", image_set=part)
        paths += _below(root, data.images)
        parts += [part] * len(data)
        objects += map(_shown, data.annotations)
    classes = sorted({kind for shown in objects for kind in shown})
    labels = np.array([[shown.get(kind, 0) for kind in classes] for shown in objects], dtype=np.int64)
    return Listing(root, tuple(paths), labels, tuple(parts), tuple(classes))


LAYOUTS: dict[str, Callable[[Path], Listing]] = {
    "aircraft": aircraft, "caltech101": caltech101, "cars": cars, "cifar10": cifar10, "cifar100": cifar100, "dtd": dtd,
    "flowers": flowers, "food": food, "pets": pets, "sun397": sun397, "voc2007": voc2007,
}  # fmt: skip


def _shown(annotation: str) -> dict[str, int]:
    """Class -> 1 or -1 of the objects that a VOC annotation file lists."""
    shown: dict[str, int] = {}
    try:
        for item in ElementTree.parse(annotation).getroot().iter("object"):
            kind = item.findtext("name", "").strip()
            shown[kind] = max(shown.get(kind, -1), -1 if item.findtext("difficult", "0").strip() == "1" else 1)
    except (ElementTree.ParseError, ValueError) as e:
        raise InputError(f"{annotation}: is no annotation in XML ({e})") from e
    return shown


def _items(data: Any) -> Any:
    return (data[i] for i in range(len(data)))


def _joined(root: Path, sets: dict[str, Any], items: Callable[[Any], Any] = _items) -> Listing:
    """One listing from torchvision's data set per part, which must agree on the classes. Their images load as paths."""
    names = {part: tuple(data.classes) for part, data in sets.items()}
    if len(set(names.values())) > 1:
        odd = ", ".join(sorted(set.union(*map(set, names.values())) - set.intersection(*map(set, names.values())))[:5])
        raise InputError(f"{root}: the lists of {' and '.join(names)} name different classes ({odd}); they are not as published")
    rows = [(str(path), int(label), part) for part, data in sets.items() for path, label in items(data)]
    paths = _below(root, [path for path, _, _ in rows])
    return Listing(root, tuple(paths), _int([y for _, y, _ in rows]), tuple(p for _, _, p in rows), next(iter(names.values())))


def _cifar(root: Path, kind: Any) -> Listing:
    """torchvision compares the MD5 of every file before it unpickles any, so that nothing unknown is executed."""
    sets = {"train": kind(root, train=True), "test": kind(root, train=False)}
    pixels = np.concatenate([data.data for data in sets.values()]).transpose(0, 3, 1, 2)
    labels = _int([y for data in sets.values() for y in data.targets])
    parts = tuple(part for part, data in sets.items() for _ in range(len(data)))
    paths = tuple(f"{part}/{i:05d}" for part, data in sets.items() for i in range(len(data)))
    holders = tuple(f"{kind.base_folder}/{file}" for file, _ in kind.train_list + kind.test_list)
    return Listing(root, paths, labels, parts, tuple(sets["train"].classes), np.ascontiguousarray(pixels), holders)


def _ordered(found: Listing, order: list[int]) -> Listing:
    paths, parts = (tuple(values[i] for i in order) for values in (found.paths, found.parts))
    return Listing(found.base, paths, found.labels[order], parts, found.classes)


def _below(root: Path, paths: list[str]) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in paths]


def _int(labels: list[int]) -> np.ndarray:
    return np.array(labels, dtype=np.int64)


def _blame(name: str, root: Path) -> str:
    """Which of the expected files cannot be read or is not the published one, in a line each."""
    digests, told = _digests(name), []
    for file in FACTS[name].files:
        path = root / FACTS[name].home / file
        reader: Callable[[Any], Any] = {".mat": loadmat, ".json": _json, ".txt": _text}.get(path.suffix, lambda _: None)
        try:
            reader(path)
        except UNREADABLE as e:
            told.append(f"{path}: cannot be read ({_short(e)}); it is not as published")
            continue
        expected = digests.get(Path(FACTS[name].home, file), "")
        if expected and path.is_file() and not same(path, expected):
            told.append(f"{path}: is not the published file ({expected.replace(':', ' ')} is)")
    return "\n".join(told)


def _digests(name: str) -> dict[Path, str]:
    """The published digest of each file that has one, by its path below the root."""
    from torchvision import datasets

    known = {Path(a.gives): a.digest for a in FACTS[name].archives if a.digest and Path(a.gives).name == a.file}
    if name.startswith("cifar"):
        kind = getattr(datasets, name.upper())
        files = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
        known |= {Path(kind.base_folder, file): f"md5:{md5}" for file, md5 in files}
    return known


def same(path: Path, digest: str) -> bool:
    """Has the file this digest, written as algorithm:hex?"""
    algorithm, _, expected = digest.partition(":")
    with open(path, "rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest() == expected


def _json(path: Path) -> None:
    json.loads(path.read_bytes())


def _text(path: Path) -> None:
    path.read_text()


def _short(e: BaseException) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0][:200]
