"""A file that may go, and what can be said of any file: how old it is, whether who claims with it lives, what it frees."""

import json
import os
import platform
import re
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from simclic.store import results as store
from simclic.store.claim import owner

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

YOUNG, HOUR, DAY = 600, 3600, 86_400  # seconds: what looks temporary and was written since may be at work
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}")  # how files.temporary names what becomes the file in the middle
CLAIM = re.compile(r"(owner(-(linear|finetune)-[0-9a-f]{10})?|submitting|local)\.json")


class Entry(NamedTuple):
    """A file, a link, or a folder that is empty once the entries before it are gone.

    kind: a key of KINDS. place: the folder that is claimed and looked at again before it goes. of: the folder that goes with all
    that is in it, or the file itself. stamp: device, inode, nanoseconds, bytes. size: bytes on the disk. links: its names.
    """

    path: Path
    kind: str
    place: Path
    of: Path
    stamp: tuple[int, int, int, int]
    size: int
    links: int
    folder: bool = False


@dataclass
class Garbage:
    """What may go; what stays although it looks like it, by reason; how many images the features are made of."""

    entries: list[Entry] = field(default_factory=list)
    left: dict[str, list[Path]] = field(default_factory=dict)
    images: int = 0

    def stays(self, path: Path, why: str) -> list[Entry]:
        """Note that something is left alone. Returns what may go of it, which is nothing."""
        if path not in self.left.setdefault(why, []):
            self.left[why].append(path)
        return []


def entry(path: Path, kind: str, place: Path, of: Path | None = None) -> Entry:
    """A file, link or folder as it is now. Raises FileNotFoundError if it is gone."""
    told = path.lstat()
    if stat.S_ISDIR(told.st_mode):  # its time and size change with what is deleted in it
        return Entry(path, kind, place, of or path, (told.st_dev, told.st_ino, 0, 0), 512 * told.st_blocks, 1, True)
    stamp = (told.st_dev, told.st_ino, told.st_mtime_ns, told.st_size)
    return Entry(path, kind, place, of or path, stamp, 512 * told.st_blocks, told.st_nlink)


def tree(top: Path, ours: Callable[[Path], bool], kind: str, place: Path) -> list[Entry]:
    """What is `ours` below a folder, with each folder that holds nothing else after its content. No link is followed."""
    return _tree(top, ours, kind, place, top)


def _tree(folder: Path, ours: Callable[[Path], bool], kind: str, place: Path, top: Path) -> list[Entry]:
    found, whole = list[Entry](), True
    for path in listed(folder):
        if is_folder(path):
            inside = _tree(path, ours, kind, place, top)
            whole &= bool(inside) and inside[-1].path == path
            found += inside
        elif ours(path):
            found.append(entry(path, kind, place, top))
        else:
            whole = False
    return found + ([entry(folder, kind, place, top)] if whole else [])


def freed(entries: Iterable[Entry]) -> int:
    """Bytes that the disk gets back: a file with several names once, and only if all of them go."""
    names: dict[tuple[int, int], list[Entry]] = {}
    for one in entries:
        names.setdefault(one.stamp[:2], []).append(one)
    return sum(those[0].size for those in names.values() if len(those) >= those[0].links)


def listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing if there is none or it is a file. Raises PermissionError."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_folder(path: Path) -> bool:
    """Is it a folder, and not a link to one?"""
    return path.is_dir() and not path.is_symlink()


def old(path: Path, seconds: float = YOUNG) -> bool:
    """Was nothing of a file or folder written for so many seconds?"""
    those = [path, *path.rglob("*")] if is_folder(path) else [path]
    try:
        return time.time() - max(p.lstat().st_mtime for p in those) > seconds
    except FileNotFoundError:
        return False  # it is being worked at


def unfinished(path: Path, names: re.Pattern[str], seconds: float = YOUNG) -> bool:
    """Was this begun by a process that is gone, to become a file with one of these names? Who lives writes all the time."""
    begun = TEMPORARY.fullmatch(path.name)
    return bool(begun and names.fullmatch(begun[1])) and not is_folder(path) and old(path, seconds)


def live(path: Path) -> bool:
    """Is another process than this one at work, whose claim a file is? Of one that cannot be read: yes."""
    if holder := owner(path.parent, path.stem):
        return (holder["pid"], holder["host"]) != (os.getpid(), platform.node())
    try:
        return not {"pid", "nonce"} <= json.loads(path.read_bytes()).keys()
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError):
        return True


def at_work(folder: Path) -> bool:
    """Is a process at work in a folder, as far as that can be known here? In one that may not be read: yes."""
    try:
        return any(live(path) for path in listed(folder) if CLAIM.fullmatch(path.name))
    except PermissionError:
        return True


def record(path: Path) -> dict[str, Any]:
    """What a file of ours holds; nothing if it is not there or not whole."""
    try:
        return store.read_json(path) or {}
    except store.Broken:
        return {}
