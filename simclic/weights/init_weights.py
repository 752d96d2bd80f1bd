"""Where an encoder begins if not with random weights, and whether that is still the file it was."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from simclic.experiment.baselines import IMPORTED, imported
from simclic.experiment.run import is_file
from simclic.files import Broken


def locate_init(init: str, runs: Path) -> Path | None:
    """Where a starting point lies that is a file, named by its path or by the method it was imported as; None for others."""
    if init in IMPORTED:
        return imported(runs, init)
    return Path(init).expanduser() if is_file(init) else None


def check_init_unchanged(init: str, record: Mapping[str, Any], folder: Path) -> None:
    """Raise Broken if the file to start from is another one by now than what is recorded of it in a Run's folder.

    A file that is gone, or not ours to read, is none that has changed: what it held is in the encoder.
    """
    path, recorded_sha256 = locate_init(init, folder.parent), record.get("init_sha256")
    if path and recorded_sha256 and hash_file(path) not in ("", recorded_sha256):
        raise Broken(f"init={init!r}: is another file than the one that {folder} started from; move that folder away")


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, read once as long as it is the same file, since every result of a Run asks for it; nothing if it
    cannot be read."""
    try:
        stat = path.stat()
        return _hash_content(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size))
    except OSError:
        return ""


@cache
def _hash_content(path: Path, stamp: tuple[int, ...]) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
