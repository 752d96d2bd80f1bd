"""SUN397."""

from pathlib import Path

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import FIFTH
from simclic.errors import InputError

PRINCETON = "https://vision.princeton.edu/projects/2010/SUN"

FACTS = Facts(
    title="SUN397", classes=397, metric="top-1", sizes=(15_880, 3970, 19_850), images=108_754, rule=FIFTH,
    home="SUN397",
    files=("ClassName.txt", "Training_01.txt", "Testing_01.txt"),  # the first of ten partitions
    archives=(
        Archive("SUN397.tar.gz", into="", gives="SUN397/a", digest="md5:8ca2778205c41d23104230ba66911c7a",
                url=f"{PRINCETON}/SUN397.tar.gz"),
        Archive("Partitions.zip", into="SUN397", gives="SUN397/Training_01.txt",
                digest="sha256:e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9",
                where=f"torchvision does not offer the partitions; from {PRINCETON}/download/Partitions.zip"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 397 scenes: the official partition 1, then all images that are in neither of its lists, by name."""
    import numpy as np
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
    return Listing(
        root, tuple(f"SUN397/{p}" for p in paths), np.array([labels[p] for p in paths], dtype=np.int64),
        tuple(listed.get(path, "") for path in paths), tuple(data.classes),
    )  # fmt: skip
