"""Checkpoints with a SHA-256 in front, since torch.load does not notice a changed byte: a damaged one is never used."""

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
    """Write a checkpoint atomically and keep the one before as `.previous`.

    Raises InputError if it cannot be written; the one before is then untouched.
    """
    try:
        with files.open_temporary(path.parent, path.name) as f:
            f.write(bytes(32))  # the place of the digest
            hashed = _HashingWriter(f)
            torch.save({"schema": SCHEMA, **content}, hashed)  # type: ignore[arg-type]
            f.seek(0)
            f.write(hashed.sha256.digest())
            f.flush()
            os.fsync(f.fileno())
            if path.exists():
                os.replace(path, path.with_suffix(".previous"))
            files.publish_file(f, path)
    except (OSError, RuntimeError) as e:  # torch wraps errors of its writer
        os_error = next((c for c in (e, e.__cause__, e.__context__) if isinstance(c, OSError)), None)
        if os_error is None:
            raise
        free = format_bytes(shutil.disk_usage(path.parent).free)
        problem = f"cannot be written ({os_error.strerror}; {free} are free)"
        resume = "the previous checkpoint is kept, and the same command resumes from it"
        way_out = resume if path.exists() else "there is no checkpoint yet; free some space and run the same command again"
        raise InputError(f"{path}: {problem}; {way_out}") from e


class _HashingWriter:
    """A file written in one go with its SHA-256, so that no second copy of the state is in memory."""

    def __init__(self, f: BinaryIO):
        self.f, self.sha256 = f, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return self.f.write(content)

    def flush(self) -> None:
        self.f.flush()


class _AfterDigest:
    """A checkpoint file without its digest, for torch.load to read from, so that no second copy is in memory."""

    def __init__(self, f: BinaryIO):
        self.f = f
        f.seek(32)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.f.seek(offset + 32 * (whence == os.SEEK_SET), whence) - 32

    def tell(self) -> int:
        return self.f.tell() - 32

    def __getattr__(self, name: str) -> Any:  # read, readline, readinto
        return getattr(self.f, name)


def load(path: Path, run: str) -> dict[str, Any] | None:
    """Return the newest intact checkpoint, on the CPU, or None.

    A damaged one is renamed to `.damaged`, with a warning. Raises InputError for a checkpoint of another Run or version.
    """
    for file in (path, path.with_suffix(".previous")):
        if not file.is_file():
            continue
        with open(file, "rb") as f:
            digest = f.read(32)
            is_intact = hashlib.file_digest(f, "sha256").digest() == digest
            content: dict[str, Any] = torch.load(_AfterDigest(f), "cpu", weights_only=True) if is_intact else {}
        if not is_intact:
            os.replace(file, file.with_suffix(".damaged"))
            print(f"warning: {file}: damaged (SHA-256 differs), renamed to .damaged; trying the previous one", file=sys.stderr)
            continue
        if content.get("schema") != SCHEMA or content.get("run") != run:
            raise InputError(f"{file}: is a checkpoint of {content.get('run')} or of another version, not of {run}; delete it")
        return content
    return None
