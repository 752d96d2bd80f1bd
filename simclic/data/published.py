"""Data sets as their makers publish them: what their readers in `sets` share, and why one of them cannot be read."""

import hashlib
import json
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from simclic.data.facts import FACTS, declaration
from simclic.data.listing import Listing
from simclic.errors import InputError


def list_published(name: str, root: Path) -> Listing:
    """Return all images that the makers published. Raise InputError if the annotation files cannot be read or disagree."""
    home = root / FACTS[name].home
    try:
        listing: Listing = declaration(name).read_listing(root)
    except InputError:
        raise
    except _unreadable() as e:
        raise InputError(
            _explain_unreadable(name, root) or f"{home}: cannot be read ({_first_line(e)}); it is not as published"
        ) from e
    if not listing.paths:
        raise InputError(f"{home}: no images are listed there")
    return listing


def _unreadable() -> tuple[type[Exception], ...]:
    """Return what a file that is not what it should be makes these readers raise."""
    from scipy.io.matlab import MatReadError

    return (
        OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, EOFError, ElementTree.ParseError,
        pickle.UnpicklingError, NotImplementedError, zlib.error, struct.error, MatReadError,
    )  # fmt: skip


def _items(data: Any) -> Any:
    return (data[i] for i in range(len(data)))


def join_parts(root: Path, sets: dict[str, Any], items: Callable[[Any], Any] = _items) -> Listing:
    """Return one listing from torchvision's data set per part, which must agree on the classes. Their images load as paths."""
    names = {part: tuple(data.classes) for part, data in sets.items()}
    if len(set(names.values())) > 1:
        odd = ", ".join(sorted(set.union(*map(set, names.values())) - set.intersection(*map(set, names.values())))[:5])
        raise InputError(f"{root}: the lists of {' and '.join(names)} name different classes ({odd}); they are not as published")
    rows = [(str(path), int(label), part) for part, data in sets.items() for path, label in items(data)]
    paths = tuple(Path(path).relative_to(root).as_posix() for path, _, _ in rows)
    labels = _integer_array([label for _, label, _ in rows])
    return Listing(root, paths, labels, tuple(part for _, _, part in rows), next(iter(names.values())))


def read_cifar(root: Path, kind: Any) -> Listing:
    """Return the listing of torchvision's CIFAR, which compares every file's MD5 first, so that nothing unknown is executed.

    Raises InputError naming the files that are not the published ones.
    """
    files = [*kind.train_list, *kind.test_list]
    digests = {f"{kind.base_folder}/{file}": f"md5:{md5}" for file, md5 in [*files, (kind.meta["filename"], kind.meta["md5"])]}
    if altered := list(_altered_files(root, digests)):
        raise InputError("\n".join(altered))
    sets = {"train": kind(root, train=True), "test": kind(root, train=False)}
    pixels = np.concatenate([data.data for data in sets.values()]).transpose(0, 3, 1, 2)
    labels = _integer_array([y for data in sets.values() for y in data.targets])
    parts = tuple(part for part, data in sets.items() for _ in range(len(data)))
    paths = tuple(f"{part}/{i:05d}" for part, data in sets.items() for i in range(len(data)))
    holders = tuple(f"{kind.base_folder}/{file}" for file, _ in files)
    return Listing(root, paths, labels, parts, tuple(sets["train"].classes), np.ascontiguousarray(pixels), holders)


def _integer_array(labels: list[int]) -> np.ndarray:
    return np.array(labels, dtype=np.int64)


def _explain_unreadable(name: str, root: Path) -> str:
    """Return a line for each expected file that cannot be read or is not the published one."""
    from scipy.io import loadmat

    known, problems = FACTS[name], []
    digests = {a.gives: a.digest for a in known.archives if a.digest and Path(a.gives).name == a.file}
    for file in known.files:
        path = root / known.home / file
        reader: Callable[[Any], Any] = {".mat": loadmat, ".json": _check_json, ".txt": _check_text}.get(
            path.suffix, lambda _: None
        )
        try:
            reader(path)
        except _unreadable() as e:
            problems.append(f"{path}: cannot be read ({_first_line(e)}); it is not as published")
            continue
        place = f"{known.home}/{file}"
        problems += _altered_files(root, {place: digests[place]} if place in digests else {})
    return "\n".join(problems)


def _altered_files(root: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each file that has another digest than the published one. digests: by its path below the root."""
    for place, expected in digests.items():
        if (root / place).is_file() and not has_digest(root / place, expected):
            yield f"{root / place}: is not the published file ({expected.replace(':', ' ')} is)"


def has_digest(path: Path, digest: str) -> bool:
    """Return whether a file has this digest, written as algorithm:hex."""
    algorithm, _, expected = digest.partition(":")
    with open(path, "rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest() == expected


def _check_json(path: Path) -> None:
    json.loads(path.read_bytes())


def _check_text(path: Path) -> None:
    path.read_text()


def _first_line(e: BaseException) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0][:200]
