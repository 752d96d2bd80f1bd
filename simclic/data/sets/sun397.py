"""SUN397."""

import os
from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import FIFTH
from simclic.errors import InputError

PRINCETON = "https://vision.princeton.edu/projects/2010/SUN"

GONE = "its makers' host is gone (torchvision issue 9348); from a mirror, such as opendatalab.com/OpenDataLab/SUN397"

FACTS = Facts(
    title="SUN397", classes=397, metric="top-1", sizes=(15_880, 3970, 19_850), images=108_754, rule=FIFTH,
    home="SUN397",
    files=("ClassName.txt", "Training_01.txt", "Testing_01.txt"),  # the first of ten partitions
    archives=(
        Archive("SUN397.tar.gz", into="", gives="SUN397/a", digest="md5:8ca2778205c41d23104230ba66911c7a",
                url=f"{PRINCETON}/SUN397.tar.gz", where=GONE),
        Archive("Partitions.zip", into="SUN397", gives="SUN397/Training_01.txt",
                digest="sha256:e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9",
                url=f"{PRINCETON}/download/Partitions.zip", where=GONE),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 397 scenes: the official partition 1, then all images that are in neither of its lists, by name."""
    import numpy as np

    home = root / FACTS.home
    folders = {line.lstrip("/"): label for label, line in enumerate((home / "ClassName.txt").read_text().split())}
    listed: dict[str, str] = {}
    for part, file in (("train", "Training_01.txt"), ("test", "Testing_01.txt")):
        for line in (home / file).read_text().split():
            path = line.lstrip("/")
            if path in listed:
                raise InputError(f"{home / file}: {line} is listed twice")
            if path.rpartition("/")[0] not in folders:
                raise InputError(f"{home / file}: {line} is of no class in ClassName.txt")
            listed[path] = part
    places = (folder for folder in folders if (home / folder).is_dir())
    on_disk = {
        f"{place}/{name}"
        for place in places for name in os.listdir(home / place) if name.startswith("sun_") and name.endswith(".jpg")
    }  # fmt: skip
    paths = [*listed, *sorted(on_disk - listed.keys())]
    return Listing(
        root, tuple(f"{FACTS.home}/{path}" for path in paths),
        np.array([folders[path.rpartition("/")[0]] for path in paths], dtype=np.int64),
        tuple(listed.get(path, "") for path in paths), tuple(folder.partition("/")[2] for folder in folders),
    )  # fmt: skip
