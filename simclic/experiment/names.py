"""How a starting point and a data set are named: in a table, and in the name of a folder."""

import re

from simclic.experiment.baselines import IMPORTED

ALL_INSIDE = "/**"  # behind the path of a folder: all images in it, at any depth, without labels
FILES = (".safetensors", ".pth", ".pt", ".bin")


def is_file(init: str) -> bool:
    """Return whether a starting point is a file: named by its path, perhaps with ::PART of what it holds."""
    return "/" in init or split_part(init)[0].endswith(FILES)


def split_part(init: str) -> tuple[str, str]:
    """Return the path of a starting point, and which of its backbones is meant ("FILE::teacher"); "" for the only one."""
    path, _, part = init.partition("::")
    return path, part


def _last_part(name: str) -> str:
    """Return the last part of a path."""
    return name.rstrip("/").rsplit("/", 1)[-1]


def is_unlabelled(dataset: str) -> bool:
    """Return whether a data set is a folder of images without labels, which can only be pre-trained on."""
    return dataset.endswith(ALL_INSIDE)


def start_title(init: str) -> str:
    """Return the name of a starting point in tables: a published method's name, or the file's."""
    if init in IMPORTED:
        return IMPORTED[init]
    name = _last_part(init).rsplit(".", 1)[0] if is_file(init) else _last_part(init)
    return f"{name} (a file)" if name in IMPORTED.values() else name  # it is not what the paper prints


def make_slug(name: str) -> str:
    """Return a name, or the last part of a path, in at most 100 characters that are safe in a file name of at most 255."""
    return re.sub("[^a-z0-9_.]+", "-", _last_part(name.removesuffix(ALL_INSIDE)).lower()).strip("-.")[:100] or "folder"
