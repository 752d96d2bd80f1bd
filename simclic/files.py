"""Files that are whole or not there: temporary name in the same folder, fsync, rename."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from simclic.spec import InputError


@contextmanager
def temporary(folder: Path, name: str) -> Iterator[BinaryIO]:
    """A file to write in `folder` under a name that nobody else uses; it is gone at the end unless `publish` renamed it."""
    path = folder / f".{name}.{uuid.uuid4().hex[:8]}"
    try:
        with open(path, "wb") as f:
            yield f
    finally:
        path.unlink(missing_ok=True)


def publish(f: BinaryIO, path: Path) -> None:
    """Give a temporary file its name, in the same folder, once what was written is on the disk."""
    f.flush()
    os.fsync(f.fileno())
    os.replace(f.name, path)


def write_bytes(path: Path, payload: bytes) -> None:
    """Write a file whole or not at all."""
    with temporary(path.parent, path.name) as f:
        f.write(payload)
        publish(f, path)


def writable(path: Path, flag: str) -> None:
    """Make a folder and see that files can be written there. Raises InputError naming the flag that chooses another."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with temporary(path, "probe"):
            pass
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror}); choose another place with {flag} DIR") from e


@contextmanager
def readable() -> Iterator[None]:
    """What cannot be read becomes an InputError, a line with its path and why."""
    try:
        yield
    except OSError as e:
        raise InputError(f"{e.filename}: cannot be read ({e.strerror})") from e
