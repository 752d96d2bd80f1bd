"""Checkpoints: whole or not used. A SHA-256 stands in front, since torch.load would not notice a flipped byte."""

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch

from simclic import files
from simclic.errors import InputError
from simclic.text import format_bytes

SCHEMA = 2


def save(path: Path, content: dict[str, Any]) -> None:
    """Write atomically; the checkpoint before stays as `.previous` until the next one.

    Raises InputError if it cannot be written; the one before is then untouched.
    """
    try:
        with files.temporary(path.parent, path.name) as f:
            f.write(bytes(32))  # where the digest will stand
            hashed = _HashingWriter(f)
            torch.save({"schema": SCHEMA, **content}, hashed)  # type: ignore[arg-type]
            f.seek(0)
            f.write(hashed.sha256.digest())
            f.flush()
            os.fsync(f.fileno())
            if path.exists():
                os.replace(path, path.with_suffix(".previous"))
            files.publish(f, path)
    except (OSError, RuntimeError) as e:  # torch wraps what its writer meets
        os_error = (
            e if isinstance(e, OSError) else next((c for c in (e.__cause__, e.__context__) if isinstance(c, OSError)), None)
        )
        if os_error is None:
            raise
        free = format_bytes(shutil.disk_usage(path.parent).free)
        problem = f"cannot be written ({os_error.strerror}; {free} are free)"
        before = "the checkpoint before is kept, and the same command goes on from there"
        way_out = before if path.exists() else "free some, and the same command begins again; there is no checkpoint yet"
        raise InputError(f"{path}: {problem}; {way_out}") from e


class _HashingWriter:
    """A file to write to in one go, and the SHA-256 of what went in: no second copy of the state in memory."""

    def __init__(self, f: BinaryIO):
        self.f, self.sha256 = f, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return self.f.write(content)

    def flush(self) -> None:
        self.f.flush()


class _AfterDigest:
    """A file to read from behind the digest: its content need not be in memory twice."""

    def __init__(self, f: BinaryIO):
        self.f = f
        f.seek(32)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.f.seek(offset + 32 * (whence == os.SEEK_SET), whence) - 32

    def tell(self) -> int:
        return self.f.tell() - 32

    def read(self, count: int = -1) -> bytes:
        return self.f.read(count)

    def readline(self) -> bytes:
        return self.f.readline()

    def readinto(self, buffer: Any) -> int:
        return self.f.readinto(buffer)  # type: ignore[attr-defined]


def load(path: Path, run: str) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, in the CPU's memory, or None.

    One that is not whole is set aside as `.damaged`, with a warning. Raises InputError if it is of another Run or version.
    """
    for file in (path, path.with_suffix(".previous")):
        if not file.is_file():
            continue
        with open(file, "rb") as f:
            digest = f.read(32)
            is_intact = hashlib.file_digest(f, "sha256").digest() == digest
            content: dict[str, Any] = torch.load(_AfterDigest(f), "cpu", weights_only=True) if is_intact else {}  # type: ignore[arg-type]
        if not is_intact:
            os.replace(file, file.with_suffix(".damaged"))
            print(f"warning: {file}: damaged (SHA-256 differs), set aside; going on from the one before", file=sys.stderr)
            continue
        if content.get("schema") != SCHEMA or content.get("run") != run:
            raise InputError(f"{file}: is the checkpoint of {content.get('run')}, not of {run} in this version; delete it")
        return content
    return None
