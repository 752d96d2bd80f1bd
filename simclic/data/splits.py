"""Which images are for what. A split depends on names and published lists, never on the order of a directory."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simclic.data.listing import Listing

if TYPE_CHECKING:
    import numpy as np

# How the `ericsson` rule comes to train, val and test.
PUBLISHED = "published"
FIFTH = "20 % for val"
PER_CLASS = "30 a class"
OWN = "60/20/20"
OWN_FIFTH = "20 % a class"
UNLABELLED = "no labels"
MAKERS_VAL = "makers' val is test"
RULES = {
    PUBLISHED: "the makers' own train, val and test",
    FIFTH: "a random 20 % of the makers' train is val; test is theirs",
    PER_CLASS: "30 random images a class, none twice, 20 % of them for val; the rest is test",
    OWN: "in each class, at random",
    UNLABELLED: "all images are trained on, none can be evaluated on",
    MAKERS_VAL: "a random 20 % of the makers' train is val; test is their val, since their test has no published labels",
    OWN_FIFTH: "your own train and test; a random 20 % of each class of train is val",
}


@dataclass(frozen=True)
class Splits:
    """Arrays of indices of images. Under the `paper` rule val and test are the same images."""

    train: "np.ndarray"
    val: "np.ndarray"
    test: "np.ndarray"

    @property
    def fit(self) -> "np.ndarray":
        """All images that may be learned from once nothing is left to choose: train and val, never test."""
        import numpy as np

        fit = np.zeros(1 + max(part.max(initial=-1) for part in (self.train, self.val, self.test)), dtype=bool)
        fit[self.train] = fit[self.val] = True
        fit[self.test] = False
        return np.flatnonzero(fit)

    @property
    def sizes(self) -> dict[str, int]:
        """Images per split, and how many the final fit sees."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test), "fit": len(self.fit)}


def divide(listing: Listing, split: str, rule: str, per_class: int) -> Splits:
    """Return the images of a listing under a split rule.

    "ericsson": the makers' train, val and test; without a val of theirs, 20 % of train. "paper": the makers' train and val;
    without a val of theirs, 80 % and 20 % of all images (Section 4.1). For your own images the 20 % are of each class.
    """
    import numpy as np

    if rule == UNLABELLED:
        nothing = np.zeros(0, dtype=np.int64)
        return Splits(np.arange(len(listing.paths)), nothing, nothing)
    parts = np.array(listing.parts)
    train, val, test = (np.flatnonzero(parts == part) for part in ("train", "val", "test"))
    if split == "paper":
        if rule == MAKERS_VAL:
            return Splits(train, test, test)
        if rule in (OWN, OWN_FIFTH):
            train, val = fifth_of_each_class(listing, range(len(parts)))
        elif not len(val):
            by_name = np.array(sorted(range(len(parts)), key=listing.paths.__getitem__))
            train, val = draw_fifth(by_name)
        return Splits(train, val, val)
    if rule == OWN:
        return split_each_class(listing)
    if rule == OWN_FIFTH:
        return Splits(*fifth_of_each_class(listing, train.tolist()), test)
    if rule == PER_CLASS:
        train, test = take_few_per_class(listing, per_class)
    return Splits(train, val, test) if len(val) else Splits(*draw_fifth(train), test)


def draw_fifth(index: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """Return the rest and a random fifth of `index`, drawn as the cited baselines did: NumPy's legacy stream with seed 0."""
    import numpy as np

    order = np.random.RandomState(0).permutation(len(index))
    count = len(index) // 5
    return np.sort(index[order[count:]]), np.sort(index[order[:count]])


def fifth_of_each_class(listing: Listing, index: Iterable[int]) -> "tuple[np.ndarray, np.ndarray]":
    """Return the rest and a random fifth of each class in `index`, to the nearest image: at least one image of two or more."""
    classes = _group_by_class(listing, index)
    counts = [max(round(len(members) / 5), int(len(members) > 1)) for members in classes]
    rest = _sorted_array(i for members, n in zip(classes, counts, strict=True) for i in members[n:])
    return rest, _sorted_array(i for members, n in zip(classes, counts, strict=True) for i in members[:n])


def take_few_per_class(listing: Listing, count: int) -> "tuple[np.ndarray, np.ndarray]":
    """Return `count` images of each class, none of them twice, and the rest."""
    classes = _group_by_class(listing)
    return _sorted_array(i for members in classes for i in members[:count]), _sorted_array(
        i for members in classes for i in members[count:]
    )


def split_each_class(listing: Listing) -> Splits:
    """Return a fifth of each class for val and a fifth for test, to the nearest image. A class of one or two is all train."""
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for members in _group_by_class(listing):
        n = round(len(members) / 5)
        for part, members_of_part in zip(parts, (members[2 * n :], members[n : 2 * n], members[:n]), strict=True):
            part += members_of_part
    return Splits(*map(_sorted_array, parts))


def _group_by_class(listing: Listing, index: Iterable[int] | None = None) -> list[list[int]]:
    """Return the images of each class, all or those in `index`, in a random order that depends on each one's name alone."""
    classes: dict[int, list[int]] = defaultdict(list)
    labels = listing.labels.tolist()
    for i in range(len(labels)) if index is None else index:
        classes[labels[i]].append(i)
    return [sorted(m, key=lambda i: hashlib.sha256(listing.paths[i].encode()).digest()) for _, m in sorted(classes.items())]


def _sorted_array(index: Iterable[int]) -> "np.ndarray":
    import numpy as np

    return np.array(sorted(index), dtype=np.int64)
