"""The data sets: a file of facts and a reader each, one loader, one check. Reading facts needs neither torch nor the data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simclic import files
from simclic.data import folder
from simclic.data.dataset import BICUBIC, Dataset, Facts
from simclic.data.facts import FACTS, PAPER, declaration, distinct_title, facts, folder_facts, is_bundled, mean_and_std, title
from simclic.data.listing import Listing
from simclic.data.splits import UNLABELLED, Splits, divide
from simclic.errors import InputError
from simclic.progress import Tell
from simclic.text import format_data_command

__all__ = [
    "FACTS",
    "PAPER",
    "Dataset",
    "Facts",
    "Splits",
    "check_has_whole",
    "distinct_title",
    "explain_missing",
    "facts",
    "is_bundled",
    "lies_in_files",
    "list_images",
    "load",
    "mean_and_std",
    "title",
]

SPLITS = ("ericsson", "paper")  # the split rules


@files.report_unreadable()
def explain_missing(name: str, root: Path) -> str:
    """Return what is missing of a data set at first sight, in one line with the way out; "" if nothing is.

    Of a folder of images, also why its layout is not understood. Raises InputError for an unknown name.
    """
    if folder.is_path(name):
        return folder.explain_absent(name) or _explain_layout(name)
    known = facts(name)
    home = root / known.home
    gone = [file for file in known.files if not (home / file).exists()]
    if not gone:
        return ""
    for above in (*root.parents, root.absolute().parent)[:2]:  # a root one or two folders too deep
        if (above / known.home / known.files[0]).exists():
            return f"{home}: {known.title} is not there, but it is in {above}; say --data {above}"
    what = f"{known.title} is not there" if len(gone) == len(known.files) else f"{', '.join(gone)} missing"
    prepare = format_data_command("prepare", name, root)
    if nowhere := [a for a in known.archives if not a.url and not (root / a.gives).exists()]:
        archives = ", ".join(a.file for a in nowhere)
        return f"{home}: {what}; {nowhere[0].where}, put {archives} into {root}, then run: {prepare}"
    return f"{home}: {what}; run: {prepare}"


def _explain_layout(name: str) -> str:
    try:
        facts(name)
    except InputError as e:
        return str(e)
    return ""


def list_remarks(name: str) -> list[str]:
    """Return what is worth knowing about a folder of images, a line each; nothing for other data sets."""
    return _remarks(folder.list_folder_images(name)) if folder.is_path(name) else []


def _remarks(listing: Listing) -> list[str]:
    return [*listing.remarks, *filter(None, [folder.explain_unused(listing)])]


@files.report_unreadable()
def list_images(name: str, root: Path) -> tuple[Facts, Listing]:
    """Return the facts of a data set and all its images with their labels, before any image is opened.

    Raises InputError if files are missing or cannot be read.
    """
    if folder.is_path(name):
        listing = folder.list_folder_images(name)
        return folder_facts(name, listing), listing
    if problem := explain_missing(name, root):
        raise InputError(problem)
    from simclic.data import published

    return FACTS[name], published.list_published(name, root)


def compare_with_published(name: str, known: Facts, listing: Listing, root: Path, rules: Sequence[str] = SPLITS) -> list[str]:
    """Return a line for each difference from the published numbers, and for each part of these splits that is empty."""
    if known.rule == UNLABELLED:
        return []
    place = listing.base if folder.is_path(name) else root / known.home
    sizes = {rule: divide(listing, rule, known.rule, known.per_class).sizes for rule in SPLITS}
    shown = set(listing.labels.tolist()) if listing.labels.ndim == 1 else set(range(listing.labels.shape[1]))
    numbers = {
        "images": (len(listing.paths), known.images),
        "classes": (len(shown), known.classes),
        **{
            f"{part} images": (sizes["ericsson"][part], size)
            for part, size in zip(("train", "val", "test"), known.sizes, strict=True)
        },
    }
    differences = [f"{place}: {n:,} {what}, published are {m:,}" for what, (n, m) in numbers.items() if n != m]
    if "ericsson" in rules and not has_test(listing):
        way_out = "add one, or take the split paper: it trains on train, chooses on val and reports the error on val"
        return [f"{place}: there is no test, so that the split ericsson has no error to report; {way_out}"]
    empty = [f"{part} of the split {rule}" for rule in rules for part, n in sizes[rule].items() if not n]
    return differences + [f"{place}: too few images, none are left for {part}" for part in empty]


def has_test(listing: Listing) -> bool:
    """Return whether the split "ericsson" has test images. Your own images have none if they lie in train and val only."""
    return "test" in listing.parts or "val" not in listing.parts


def lies_in_files(name: str) -> bool:
    """Return whether each image of a data set is a file, to be decoded. Raise InputError if there is no data set of this name."""
    return folder.is_path(name) or not (facts(name).stored or is_bundled(name))


def check_has_whole(name: str) -> None:
    """Raise InputError if the images of a data set are kept as they are, or if there is no data set of this name."""
    if not lies_in_files(name):
        raise InputError(f"{title(name)}: its images are kept as they are, square, so that there are no whole ones")


def load(
    name: str, split: str, root: Path, size: int = 224, difficult: str = "negative", tell: Tell = lambda share, note: None,
    interpolation: str = BICUBIC, decode: str = "once", whole: bool = False,
) -> Dataset:  # fmt: skip
    """Return all images of a data set that the split rule ("ericsson" or "paper") uses.

    size: pixels along each side, unless the data set keeps its images as they are (CIFAR, digits). difficult: "negative"
    counts a class of which an image shows `difficult` objects alone as not shown, "ignore" leaves it out (VOC2007).
    interpolation: as in Dataset. decode: "once" into a file, or "as-needed" whenever images are asked for, to the same pixels.
    whole: images are whole, with their shorter side at `size`, and not centre squares. Raises InputError if the data set is
    unknown, not there or not whole.
    """
    if whole:
        check_has_whole(name)
    if is_bundled(name):
        bundled: Dataset = declaration(name).load_bundled(split)
        return replace(bundled, interpolation=interpolation)
    import numpy as np

    from simclic.data import decoded, manifest

    known, listing = list_images(name, root)
    if wrong := compare_with_published(name, known, listing, root, [split]):
        raise InputError("\n".join(wrong))
    splits = divide(listing, split, known.rule, known.per_class)
    used = np.unique(np.concatenate([splits.fit, splits.test]))
    open_images = decoded.open_images if decode == "once" else decoded.open_files
    images, sums = open_images(decoded.Selection(name, listing, used, root, known.stored or size, interpolation, whole), tell)
    remarks = []
    if folder.is_path(name):
        problem, remark = folder.compare_copies(listing, splits, sums)
        if problem:
            raise InputError(problem)
        remarks = [*_remarks(listing), *filter(None, [remark])]
    labels = listing.labels[used]
    if difficult == "negative":
        labels = np.maximum(labels, 0)
    where = Splits(*(np.searchsorted(used, part) for part in (splits.train, splits.val, splits.test)))
    place = str(listing.base)
    paths = () if listing.holders else tuple(f"{place}/{listing.paths[i]}" for i in used.tolist())
    digest = manifest.data_digest(listing, splits, sums)
    return Dataset(known, images, labels, where, digest, paths, listing.classes, tuple(remarks), listing.upright, interpolation)
