"""The SHA-256 of every file of a data set, remembered with a stamp so that what has not changed is not read again."""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simclic import files
from simclic.data import folder
from simclic.data.listing import Listing
from simclic.data.splits import Splits

Stamp = str  # bytes, inode, nanoseconds at which the content and at which anything of a file last changed
Sums = dict[str, str]  # path below the data set's base -> SHA-256, with TURNED behind it if the image is turned upright
Known = dict[str, tuple[Stamp, str]]  # path below the data set's base -> stamp, SHA-256
TURNED = " upright"
UNKNOWN: Stamp = ""
TICKS = (20_000_000, 2_000_000_000)  # nanoseconds in which a file can change twice unseen; the second with times in whole seconds


def prepared_folder(root: Path) -> Path:
    """Return the folder of what is made from the data sets: --cache, else `prepared` under the root of all data sets."""
    cache = os.environ.get(files.CACHE)
    return Path(cache) if cache else root / "prepared"


def file_stem(name: str) -> str:
    """Return a data set's name in file names; for a folder, the last part of its path."""
    return re.sub(r"[^a-z0-9_]+", "-", folder.locate(name).resolve().name.lower()) if folder.is_path(name) else name


def file_stamp(path: Path | str) -> Stamp:
    """Return what changes when a file is written, moved or replaced, even by one of the same size and time.

    Return UNKNOWN if the file is missing, or so new that another change would leave no trace in it.
    """
    try:
        status = os.stat(path)
    except OSError:
        return UNKNOWN
    settled = time.time_ns() - status.st_ctime_ns >= TICKS[status.st_ctime_ns % 1_000_000_000 == 0]
    return f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}" if settled else UNKNOWN


def known_sums(name: str, root: Path, base: Path, paths: Iterable[str]) -> Sums:
    """Return the SHA-256 of each file that has the stamp with which it was last read. The others may have changed or not."""
    stored, place, sums = _read_stored_sums(name, root), str(base), Sums()
    for path in paths:
        entry, stamp = stored.get(path, ""), file_stamp(f"{place}/{path}")
        if entry.startswith(f"{stamp}\t"):
            sums[path] = entry[len(stamp) + 1 :]
    return sums


def store_sums(name: str, root: Path, known: Known) -> None:
    """Store the stamps and SHA-256 of these files. They only save time, so a folder that cannot be written is not an error."""
    _write_sums(name, root, _read_stored_sums(name, root) | {path: "\t".join(entry) for path, entry in known.items() if entry[0]})


def _write_sums(name: str, root: Path, entries: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        prepared_folder(root).mkdir(parents=True, exist_ok=True)
        files.write_bytes(_manifest_path(name, root), json.dumps(entries, sort_keys=True).encode())


def data_digest(listing: Listing, splits: Splits, sums: Sums) -> str:
    """Return sixteen hex digits over every image that is used: its name, content, label and part.

    Numbers with different digests were measured on different data. sums: SHA-256 of each file, by its path.
    """
    h, labels, paths = hashlib.sha256(), listing.labels.tolist(), listing.paths
    for holder in listing.holders:
        h.update(f"{holder}\t{sums[holder]}\n".encode())
    for part in ("train", "val", "test"):
        lines = (f"{part}\t{paths[i]}\t{sums.get(paths[i], '')}\t{labels[i]}\n" for i in getattr(splits, part).tolist())
        h.update("".join(lines).encode())
    return h.hexdigest()[:16]


def _read_stored_sums(name: str, root: Path) -> dict[str, str]:
    """Return stamp, tab and SHA-256 by path; nothing if nothing readable is there."""
    try:
        entries: dict[str, Any] = json.loads(_manifest_path(name, root).read_bytes())
        if isinstance(entries, list):  # before version 0.1.0
            return {}
        # Version 0.2.0 wrote [[four numbers], SHA-256], which takes five times as long to read.
        texts = {path: f"{' '.join(map(str, e[0]))}\t{e[1]}" for path, e in entries.items() if not isinstance(e, str)}
    except (OSError, ValueError, TypeError, AttributeError, IndexError):
        return {}
    if texts:
        _write_sums(name, root, entries := entries | texts)
    return entries


def _manifest_path(name: str, root: Path) -> Path:
    apart = hashlib.sha256(str(Path(name).expanduser().resolve()).encode()).hexdigest()[:6] if folder.is_path(name) else "files"
    return prepared_folder(root) / f"{file_stem(name)}-{apart}.json"
