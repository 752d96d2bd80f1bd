"""The SHA-256 of every file of a data set, remembered with size and time so that what has not changed is not read again."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from simclic import files
from simclic.data import folder
from simclic.data.listing import Listing
from simclic.data.splits import Splits

Stamp = tuple[int, int]  # bytes, and nanoseconds at which a file was last written
Sums = dict[str, str]  # path below the data set's base -> SHA-256
Known = dict[str, tuple[Stamp, str]]  # path below the data set's base -> stamp, SHA-256


def place(root: Path) -> Path:
    """Where under the root of all data sets lies what is made from them."""
    return root / "prepared"


def stem(name: str) -> str:
    """A data set's name in file names; for a folder, the last part of its path."""
    return re.sub(r"[^a-z0-9_]+", "-", Path(name).expanduser().resolve().name.lower()) if folder.is_path(name) else name


def stamp(path: Path) -> Stamp | None:
    """Size and time of a file, or None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def unchanged(name: str, root: Path, base: Path, paths: Iterable[str]) -> Sums:
    """The SHA-256 of those files that are as they were when they were last read."""
    known = _remembered(name, root)
    return {p: known[p][1] for p in paths if p in known and known[p][0] == stamp(base / p)}


def remember(name: str, root: Path, known: Known) -> None:
    """Keep what is known of these files. It only saves time, so that a folder which cannot be written is no error."""
    rows = [[path, *stamped, sha256] for path, (stamped, sha256) in sorted((_remembered(name, root) | known).items())]
    with contextlib.suppress(OSError):
        place(root).mkdir(parents=True, exist_ok=True)
        files.write_bytes(_path(name, root), json.dumps(rows).encode())


def digest(listing: Listing, splits: Splits, sums: Sums) -> str:
    """Sixteen hex digits over every image that is used: name, content, label, and what it is for.

    Numbers with different digests were measured on different data. sums: SHA-256 of each file, by its path.
    """
    h = hashlib.sha256()
    for holder in listing.holders:
        h.update(f"{holder}\t{sums[holder]}\n".encode())
    for part in ("train", "val", "test"):
        for i in getattr(splits, part).tolist():
            path = listing.paths[i]
            h.update(f"{part}\t{path}\t{sums.get(path, '')}\t{listing.labels[i].tolist()}\n".encode())
    return h.hexdigest()[:16]


def _remembered(name: str, root: Path) -> Known:
    """What is known of a data set's files; nothing if nothing readable is there."""
    try:
        return {path: ((size, time), sha256) for path, size, time, sha256 in json.loads(_path(name, root).read_bytes())}
    except (OSError, ValueError, TypeError):
        return {}


def _path(name: str, root: Path) -> Path:
    apart = hashlib.sha256(str(Path(name).expanduser().resolve()).encode()).hexdigest()[:6] if folder.is_path(name) else "files"
    return place(root) / f"{stem(name)}-{apart}.json"
