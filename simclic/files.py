"""Atomic files: written under a temporary name in the same folder, fsynced, renamed. JSON contains its own SHA-256."""

import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from simclic.errors import InputError

RUNS = Path("runs")  # the default folder of runs and results
DATA = Path("data")  # and that of the data sets
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CACHE = "SIMCLIC_CACHE"  # the environment variable by which --cache reaches every process


def place_options(runs: Path = RUNS, data: Path = DATA) -> list[str]:
    """Return the words of a command that name these folders, as far as they are not the default ones."""
    places = (("--runs", runs, RUNS), ("--data", data, DATA))
    return [word for option, path, default in places if path != default for word in (option, str(path))]


class Broken(InputError):
    """A file exists but is damaged or wrong."""


@contextmanager
def open_temporary(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Open a new file in `folder` under a unique temporary name. It is deleted at the end unless `publish_file` renamed it.

    An OSError of the file names the file that was to be written; a full disk otherwise leaves that open.
    """
    path = folder / f".{name}.{uuid.uuid4().hex[:8]}"
    try:
        with open(path, "wb") as f:
            yield f
    except OSError as e:
        if e.filename in (None, str(path)):
            e.filename = str(folder / name)
        raise
    finally:
        path.unlink(missing_ok=True)


def intended_name(path: Path) -> str:
    """Return the final name of a temporary file; "" for every other file."""
    match = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}", path.name)
    return match[1] if match else ""


def publish_file(f: BinaryIO, path: Path) -> None:
    """Sync a temporary file to disk and give it its final name in the same folder."""
    f.flush()
    os.fsync(f.fileno())
    os.replace(f.name, path)


def write_bytes(path: Path, payload: bytes) -> None:
    """Write a file atomically."""
    with open_temporary(path.parent, path.name) as f:
        f.write(payload)
        publish_file(f, path)


def check_writable(path: Path, flag: str) -> None:
    """Create a folder. Raise InputError, naming the flag that chooses another one, if no file can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with open_temporary(path, "probe"):
            pass
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror}); choose another place with {flag} DIR") from e


@contextmanager
def report_unreadable() -> Iterator[None]:
    """Turn an OSError into an InputError with the path and the reason."""
    try:
        yield
    except OSError as e:
        raise InputError(f"{e.filename}: cannot be read ({e.strerror})") from e


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write values as JSON, atomically, with the SHA-256 of the content. Raise ValueError for NaN and infinity."""
    write_bytes(path, pack_json(values))


def pack_json(values: dict[str, Any]) -> bytes:
    """Return values as JSON with the SHA-256 of the content. Raise ValueError for NaN and infinity."""
    return (json.dumps({**values, "sha256": _hash_values(values)}, indent=1, allow_nan=False) + "\n").encode()


def read_json(path: Path, verify: bool = True) -> dict[str, Any] | None:
    """Return what `write_json` wrote, or None if there is no file. Raise Broken if it is damaged.

    verify: also compare its SHA-256, which doubles the time.
    """
    try:
        values = json.loads(path.read_bytes())
        stated = values.pop("sha256")
        whole = not verify or stated == _hash_values(values)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise Broken(f"{path}: cannot be read ({e.strerror})") from e
    except (ValueError, AttributeError, KeyError, TypeError) as e:
        raise Broken(f"{path}: is not a whole JSON file; move it away to compute it again") from e
    if not whole:
        raise Broken(f"{path}: was altered after it was written (SHA-256 differs); move it away to compute it again")
    return dict(values)


def _hash_values(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()
