"""Things that may be deleted: a file, or a folder with all that is known in it; its age and what it frees."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class Kind(StrEnum):
    """Kinds of things that may be deleted, the safest first. Only with RUNS something is lost."""

    LEFTOVERS = "left-overs"
    DAMAGED = "damaged checkpoints"
    LAUNCHES = "launches"
    FEATURES = "features"
    DATA = "decoded data"
    RUNS = "runs"


REASONS = {
    Kind.LEFTOVERS: "temporary files of processes that have ended: nothing reads them",
    Kind.DAMAGED: "could not be read and were set aside: nothing reads them",
    Kind.LAUNCHES: "records and copies of code whose jobs are all done: nothing refers to them",
    Kind.FEATURES: "all evaluations of their run that read them are done; computed again in one pass over the images",
    Kind.DATA: "no given exhibit asks for them; decoded again when one does",
    Kind.RUNS: "no given exhibit asks for these runs and imported weights: their results are lost",
}


class FileStamp(NamedTuple):
    """What a file is at one moment. blocks: of 512 bytes, on the disk."""

    device: int
    inode: int
    nanoseconds: int
    bytes: int
    blocks: int


@dataclass(frozen=True)
class Item:
    """A file, or a folder with all that is known in it, which is deleted as a whole.

    place: the folder that is claimed and listed again before the item is deleted. files: in the order in which they are deleted.
    results: how many are lost with it.
    """

    path: Path
    kind: Kind
    place: Path
    files: Mapping[Path, FileStamp]
    results: int = 0


@dataclass
class Garbage:
    """items: what may be deleted. left_alone: by reason, what stays although it looks like garbage.

    feature_images: how many images the features are computed from.
    """

    items: list[Item] = field(default_factory=list)
    left_alone: dict[str, list[Path]] = field(default_factory=dict)
    feature_images: int = 0

    @property
    def safe_items(self) -> list[Item]:
        """Return the items with which nothing is lost."""
        return [item for item in self.items if item.kind != Kind.RUNS]

    def items_of_kind(self, kind: Kind) -> list[Item]:
        """Return the items of a kind, the largest first."""
        return sorted((item for item in self.items if item.kind == kind), key=lambda item: -bytes_on_disk(item.files.values()))

    def leave_alone(self, path: Path, reason: str) -> None:
        """Note that something stays, and why."""
        if path not in self.left_alone.setdefault(reason, []):
            self.left_alone[reason].append(path)


@dataclass
class Deletion:
    """The files that were deleted, a line for each that was left since it changed or is in use, and for each that resisted."""

    files: dict[Path, FileStamp] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def delete_file(self, path: Path, stamp: FileStamp) -> None:
        """Delete a file if its stamp is still the same."""
        try:
            if _read_stamp(path) == stamp:
                os.unlink(path)
                self.files[path] = stamp
        except OSError as e:
            self.problems.append(f"{path}: cannot be deleted ({e.strerror})")


def bytes_on_disk(stamps: Iterable[FileStamp]) -> int:
    """Return the bytes that files take on the disk. A file with several names counts once."""
    return 512 * sum({stamp[:2]: stamp.blocks for stamp in stamps}.values())


def count_files(items: Iterable[Item]) -> tuple[int, int]:
    """Return the number of files of items and their bytes on the disk."""
    stamps = [stamp for item in items for stamp in item.files.values()]
    return len(stamps), bytes_on_disk(stamps)


def make_item(path: Path, kind: Kind, place: Path, own: Iterable[Path] | None = None, results: int = 0) -> Item:
    """Return a file or link as it is now, or a folder with its `own` files. Raise FileNotFoundError if one is gone."""
    return Item(path, kind, place, {file: _read_stamp(file) for file in ((path,) if own is None else own)}, results)


def _read_stamp(path: Path) -> FileStamp:
    status = path.lstat()
    return FileStamp(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, status.st_blocks)


def files_below(folder: Path) -> list[Path]:
    """Return every file and link below a folder. No link is followed."""
    return [path for path in sorted(folder.rglob("*")) if not is_folder(path)]


def list_folder(folder: Path) -> list[Path]:
    """Return the paths in a folder, sorted; an empty list if it does not exist or is a file."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def is_old(path: Path, seconds: float = 600) -> bool:
    """Return whether nothing in a file or folder was written for so many seconds. Processes at work write all the time."""
    try:
        paths = [path, *path.rglob("*")] if is_folder(path) else [path]
        return time.time() - max(p.lstat().st_mtime for p in paths) > seconds
    except FileNotFoundError:
        return False
