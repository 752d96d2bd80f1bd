"""What is known of every data set, collected from the files in `sets`: a file more there is a data set more."""

import importlib
import pkgutil
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType

from simclic.data import folder, sets
from simclic.data.dataset import IMAGENET, Facts
from simclic.data.listing import Listing
from simclic.data.splits import OWN, OWN_FIFTH, PUBLISHED, UNLABELLED, divide
from simclic.errors import InputError

PAPER = (
    "aircraft", "caltech101", "cars", "cifar10", "cifar100", "dtd", "flowers", "food", "pets", "sun397", "voc2007",
)  # Table 1, in its order  # fmt: skip


def declaration(name: str) -> ModuleType:
    """Return the module in `sets` that declares a data set."""
    return importlib.import_module(f"{sets.__name__}.{name}")


def _collect_facts() -> dict[str, Facts]:
    """Return the facts by name: the paper's data sets in its order, then the others by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(sets.__path__))
    order = [*PAPER, *(name for name in names if name not in PAPER)]
    return {name: declaration(name).FACTS for name in order}


FACTS = _collect_facts()


def is_bundled(name: str) -> bool:
    """Return whether an installed library brings the images, so that no file is fetched, checked or decoded."""
    return name in FACTS and not FACTS[name].home


def facts(name: str) -> Facts:
    """Return the facts of a data set by name, or of a folder of images by its path. Raise InputError if it is neither."""
    if folder.is_path(name):
        return _facts_of_path(name, Path(name).expanduser().resolve())  # a relative path means another after chdir
    if name not in FACTS:
        near = [f"./{name}"] if Path(name).is_dir() else get_close_matches(name, FACTS, 1)
        own = "" if near else "; a folder of your own images is named by its path, such as ./birds"
        raise InputError(f"dataset={name!r} is not one of {', '.join(FACTS)}" + (f"; did you mean {near[0]!r}?" if near else own))
    return FACTS[name]


def distinct_title(name: str) -> str:
    """Return the printed name of a data set, but a folder's path: the folder may be called like a data set, or like another."""
    return FACTS[name].title if name in FACTS else name


def mean_and_std(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the mean and deviation of a data set, per channel; a folder's, which need not be there, are ImageNet's."""
    return IMAGENET if folder.is_path(name) else (facts(name).mean, facts(name).std)


def title(name: str) -> str:
    """Return the printed name of a data set, which need not be there. Raise InputError for an unknown name."""
    return folder.locate(name).resolve().name if folder.is_path(name) else facts(name).title


def folder_facts(name: str, listing: Listing) -> Facts:
    """Return the facts of a folder of images."""
    if not listing.classes:
        return Facts(title(name), 0, "top-1", (len(listing.paths), 0, 0), len(listing.paths), UNLABELLED)
    rule = PUBLISHED if "val" in listing.parts else OWN_FIFTH if "test" in listing.parts else OWN
    sizes = divide(listing, "ericsson", rule, 0).sizes
    return Facts(
        title(name), len(listing.classes), "top-1", (sizes["train"], sizes["val"], sizes["test"]), len(listing.paths), rule
    )


@cache
def _facts_of_path(name: str, place: Path) -> Facts:
    return folder_facts(name, folder.list_folder_images(name))
