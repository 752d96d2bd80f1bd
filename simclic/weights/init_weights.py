"""The file that an encoder starts from, and whether it is still the same file."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from simclic.experiment.baselines import IMPORTED, imported_path
from simclic.experiment.names import is_file, split_part
from simclic.files import Broken


def locate_init(init: str, runs: Path) -> Path | None:
    """Return the file that init names, by its path or by the method it was imported as; None if init is not a file."""
    if init in IMPORTED:
        return imported_path(runs, init)
    return Path(split_part(init)[0]).expanduser() if is_file(init) else None


def check_init_unchanged(init: str, record: Mapping[str, Any], folder: Path) -> None:
    """Raise Broken if the file of init has another SHA-256 than the record of the Run in `folder`.

    A missing or unreadable file is not an error: its content is in the encoder.
    """
    path, recorded_sha256 = locate_init(init, folder.parent), record.get("init_sha256")
    if path and recorded_sha256 and hash_file(path) not in ("", recorded_sha256):
        raise Broken(f"init={init!r}: is not the file that {folder} started from; move that folder away")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, cached until the file changes; an empty text if it cannot be read."""
    try:
        stat = path.stat()
        return _hash_content(path, (stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size))
    except OSError:
        return ""


@cache
def _hash_content(path: Path, stamp: tuple[int, ...]) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
