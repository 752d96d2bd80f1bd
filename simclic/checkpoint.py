"""Checkpoints: whole or not used. A SHA-256 stands in front, since torch.load would not notice a flipped byte."""

import hashlib
import io
import os
import shutil
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch

from simclic import files
from simclic.spec import InputError

SCHEMA = 2


def save(path: Path, content: dict[str, Any]) -> None:
    """Write atomically; the checkpoint before stays as `.previous` until the next one.

    Raises InputError if it cannot be written; the one before is then untouched.
    """
    try:
        with files.temporary(path.parent, path.name) as f:
            f.write(bytes(32))  # where the digest will stand
            hashed = _Hashed(f)
            torch.save({"schema": SCHEMA, **content}, hashed)  # type: ignore[arg-type]
            f.seek(0)
            f.write(hashed.sha256.digest())
            f.flush()
            os.fsync(f.fileno())
            if path.exists():
                os.replace(path, path.with_suffix(".previous"))
            files.publish(f, path)
    except (OSError, RuntimeError) as e:  # torch wraps what its writer meets
        why = e if isinstance(e, OSError) else next((c for c in (e.__cause__, e.__context__) if isinstance(c, OSError)), None)
        if why is None:
            raise
        free = shutil.disk_usage(path.parent).free / 1e6
        told = f"cannot be written ({why.strerror}; {free:,.1f} MB are free)"
        raise InputError(f"{path}: {told}; the checkpoint before is kept, and the same command goes on from there") from e


class _Hashed:
    """A file to write to in one go, and the SHA-256 of what went in: no second copy of the state in memory."""

    def __init__(self, f: BinaryIO):
        self.f, self.sha256 = f, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return self.f.write(content)

    def flush(self) -> None:
        self.f.flush()


def load(path: Path, run: str) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, in the CPU's memory, or None.

    One that is not whole is set aside as `.damaged`, with a warning. Raises InputError if it is of another Run or version.
    """
    for file in (path, path.with_suffix(".previous")):
        if not file.is_file():
            continue
        raw = file.read_bytes()
        if hashlib.sha256(memoryview(raw)[32:]).digest() != raw[:32]:
            os.replace(file, file.with_suffix(".damaged"))
            print(f"warning: {file}: damaged (SHA-256 differs), set aside; going on from the one before", file=sys.stderr)
            continue
        content: dict[str, Any] = torch.load(io.BytesIO(raw[32:]), map_location="cpu", weights_only=True)
        if content.get("schema") != SCHEMA or content.get("run") != run:
            raise InputError(f"{file}: is the checkpoint of {content.get('run')}, not of {run} in this version; delete it")
        return content
    return None
