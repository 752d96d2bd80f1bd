"""Things that may be deleted: a file, or a folder with all that is known in it; how old it is and what it frees."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

LEFT, DAMAGED, LAUNCHES, FEATURES, DATA, RUNS = (
    "left-overs",
    "damaged checkpoints",
    "launches",
    "features",
    "decoded data",
    "runs",
)
KINDS = {  # the safest first; the last alone loses something
    LEFT: "of processes that were killed, or of what is finished by now: nothing reads them",
    DAMAGED: "were set aside: nothing reads them",
    LAUNCHES: "records and copies of code whose jobs are all done: nothing refers to them",
    FEATURES: "each linear protocol asked of their run is done; computed again in one pass over the images",
    DATA: "no exhibit given asks for them; decoded again when one does",
    RUNS: "no exhibit given asks for these runs and imported weights: their results are lost",
}
YOUNG, HOUR, DAY = 600, 3600, 86_400  # seconds: what looks temporary and was written since may be in use


class Stamp(NamedTuple):
    """What a file is at one moment. blocks: of 512 bytes, on the disk."""

    device: int
    inode: int
    nanoseconds: int
    bytes: int
    blocks: int


@dataclass(frozen=True)
class Item:
    """A file, or a folder with all that is known in it, which goes as a whole.

    kind: a key of KINDS. place: the folder that is claimed and looked at again before it goes. files: in the order in which they
    are deleted. results: how many are lost with it.
    """

    path: Path
    kind: str
    place: Path
    files: Mapping[Path, Stamp]
    results: int = 0


@dataclass
class Garbage:
    """What may go; what stays although it looks like it, by reason; how many images the features are computed from."""

    items: list[Item] = field(default_factory=list)
    left: dict[str, list[Path]] = field(default_factory=dict)
    images: int = 0

    @property
    def safe(self) -> list[Item]:
        """What loses nothing."""
        return [item for item in self.items if item.kind != RUNS]

    @property
    def lost(self) -> list[Item]:
        """What is lost for ever."""
        return self.of_kind(RUNS)

    def of_kind(self, kind: str) -> list[Item]:
        """Return the items of a kind, the largest first."""
        return sorted((item for item in self.items if item.kind == kind), key=lambda item: -freed(item.files.values()))

    def keep(self, path: Path, why: str) -> None:
        """Note that something is left alone."""
        if path not in self.left.setdefault(why, []):
            self.left[why].append(path)


def freed(stamps: Iterable[Stamp]) -> int:
    """Return the bytes that files take on the disk; one with several names counts once."""
    return 512 * sum({stamp[:2]: stamp.blocks for stamp in stamps}.values())


def count_files(items: Iterable[Item]) -> tuple[int, int]:
    """Return how many files items have, and the bytes that these take on the disk."""
    stamps = [stamp for item in items for stamp in item.files.values()]
    return len(stamps), freed(stamps)


def make_item(path: Path, kind: str, place: Path, own: Iterable[Path] | None = None, results: int = 0) -> Item:
    """Return a file or link as it is now, or a folder with its `own` files. Raise FileNotFoundError if one is gone."""
    return Item(path, kind, place, {file: stamp_of(file) for file in ((path,) if own is None else own)}, results)


def stamp_of(path: Path) -> Stamp:
    status = path.lstat()
    return Stamp(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, status.st_blocks)


def files_below(folder: Path) -> list[Path]:
    """Return every file and link below a folder. No link is followed."""
    return [path for path in sorted(folder.rglob("*")) if not is_folder(path)]


def list_folder(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; nothing if there is none or it is a file. Raise PermissionError."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def is_old(path: Path, seconds: float = YOUNG) -> bool:
    """Return whether nothing of a file or folder was written for so many seconds. Who is at work writes all the time."""
    try:
        paths = [path, *path.rglob("*")] if is_folder(path) else [path]
        return time.time() - max(p.lstat().st_mtime for p in paths) > seconds
    except FileNotFoundError:
        return False
