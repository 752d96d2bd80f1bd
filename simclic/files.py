"""Files that are whole or not there: temporary name in the same folder, fsync, rename; JSON with a SHA-256 of itself inside."""

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

RUNS = Path("runs")  # where runs and results lie, unless somebody says otherwise


class Broken(InputError):
    """A file that is there but not what it should be."""


@contextmanager
def open_temporary(folder: Path, name: str) -> Iterator[BinaryIO]:
    """A file to write in `folder` under a name that nobody else uses; it is gone at the end unless `publish` renamed it."""
    path = folder / f".{name}.{uuid.uuid4().hex[:8]}"
    try:
        with open(path, "wb") as f:
            yield f
    finally:
        path.unlink(missing_ok=True)


def intended_name(path: Path) -> str:
    """Return the name of the file that a temporary one was to become; empty for every other file."""
    match = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}", path.name)
    return match[1] if match else ""


def publish_file(f: BinaryIO, path: Path) -> None:
    """Give a temporary file its name, in the same folder, once what was written is on the disk."""
    f.flush()
    os.fsync(f.fileno())
    os.replace(f.name, path)


def write_bytes(path: Path, payload: bytes) -> None:
    """Write a file whole or not at all."""
    with open_temporary(path.parent, path.name) as f:
        f.write(payload)
        publish_file(f, path)


def check_writable(path: Path, flag: str) -> None:
    """Make a folder and see that files can be written there. Raises InputError naming the flag that chooses another."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with open_temporary(path, "probe"):
            pass
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror}); choose another place with {flag} DIR") from e


@contextmanager
def report_unreadable() -> Iterator[None]:
    """What cannot be read becomes an InputError, a line with its path and why."""
    try:
        yield
    except OSError as e:
        raise InputError(f"{e.filename}: cannot be read ({e.strerror})") from e


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write atomically, with a SHA-256 of the content inside. NaN and infinity are refused."""
    text = json.dumps({**values, "sha256": _hash_values(values)}, indent=1, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, verify: bool = True) -> dict[str, Any] | None:
    """What `write_json` wrote, or None if there is no such file. Raises Broken if it is not whole.

    verify: compare its SHA-256, too, which takes as long as all the rest.
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
