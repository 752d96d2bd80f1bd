"""Things that may be deleted: a file, or a folder with all that is known in it; how old it is and what it frees."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

LEFTOVERS, DAMAGED, LAUNCHES, FEATURES, DATA, RUNS = (
    "left-overs",
    "damaged checkpoints",
    "launches",
    "features",
    "decoded data",
    "runs",
)
KINDS = {  # the safest first; the last alone loses something
    LEFTOVERS: "of processes that were killed, or of what is finished by now: nothing reads them",
    DAMAGED: "were set aside: nothing reads them",
    LAUNCHES: "records and copies of code whose jobs are all done: nothing refers to them",
    FEATURES: "each linear protocol asked of their run is done; computed again in one pass over the images",
    DATA: "no exhibit given asks for them; decoded again when one does",
    RUNS: "no exhibit given asks for these runs and imported weights: their results are lost",
}
TEN_MINUTES, HOUR, DAY = 600, 3600, 86_400  # seconds: what looks temporary and was written since may be in use


class FileStamp(NamedTuple):
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
    files: Mapping[Path, FileStamp]
    results: int = 0


@dataclass
class Garbage:
    """What may go; what stays although it looks like it, by reason; how many images the features are computed from."""

    items: list[Item] = field(default_factory=list)
    left_alone: dict[str, list[Path]] = field(default_factory=dict)
    feature_images: int = 0

    @property
    def safe_items(self) -> list[Item]:
        """What loses nothing."""
        return [item for item in self.items if item.kind != RUNS]

    @property
    def lossy_items(self) -> list[Item]:
        """What is lost for ever."""
        return self.items_of_kind(RUNS)

    def items_of_kind(self, kind: str) -> list[Item]:
        """Return the items of a kind, the largest first."""
        return sorted((item for item in self.items if item.kind == kind), key=lambda item: -bytes_on_disk(item.files.values()))

    def leave_alone(self, path: Path, why: str) -> None:
        """Note that something is left alone."""
        if path not in self.left_alone.setdefault(why, []):
            self.left_alone[why].append(path)


def bytes_on_disk(stamps: Iterable[FileStamp]) -> int:
    """Return the bytes that files take on the disk; one with several names counts once."""
    return 512 * sum({stamp[:2]: stamp.blocks for stamp in stamps}.values())


def count_files(items: Iterable[Item]) -> tuple[int, int]:
    """Return how many files items have, and the bytes that these take on the disk."""
    stamps = [stamp for item in items for stamp in item.files.values()]
    return len(stamps), bytes_on_disk(stamps)


def make_item(path: Path, kind: str, place: Path, own: Iterable[Path] | None = None, results: int = 0) -> Item:
    """Return a file or link as it is now, or a folder with its `own` files. Raise FileNotFoundError if one is gone."""
    return Item(path, kind, place, {file: read_stamp(file) for file in ((path,) if own is None else own)}, results)


def read_stamp(path: Path) -> FileStamp:
    status = path.lstat()
    return FileStamp(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, status.st_blocks)


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


def is_old(path: Path, seconds: float = TEN_MINUTES) -> bool:
    """Return whether nothing of a file or folder was written for so many seconds. Who is at work writes all the time."""
    try:
        paths = [path, *path.rglob("*")] if is_folder(path) else [path]
        return time.time() - max(p.lstat().st_mtime for p in paths) > seconds
    except FileNotFoundError:
        return False
