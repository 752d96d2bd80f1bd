"""Checkpoints: whole or not used. A SHA-256 stands in front, since torch.load would not notice a flipped byte."""

import hashlib
import io
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from simclic import files
from simclic.spec import InputError

SCHEMA = 2


def save(path: Path, content: dict[str, Any]) -> None:
    """Write atomically; the checkpoint before stays as `.previous` until the next one.

    Raises InputError if it cannot be written; the one before is then untouched.
    """
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, **content}, buffer)
    payload = buffer.getbuffer()
    try:
        with files.temporary(path.parent, path.name) as f:
            f.write(hashlib.sha256(payload).digest())
            f.write(payload)
            f.flush()
            os.fsync(f.fileno())
            if path.exists():
                os.replace(path, path.with_suffix(".previous"))
            files.publish(f, path)
    except OSError as e:
        free = shutil.disk_usage(path.parent).free / 1e6
        need = f"{len(payload) / 1e6:.1f} MB cannot be written ({e.strerror}; {free:,.1f} MB are free)"
        raise InputError(f"{path}: {need}; the checkpoint before is kept, and the same command goes on from there") from e


def load(path: Path, run: str, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, or None. One that is not is set aside as `.damaged`, with a warning.

    Raises InputError if it is of another Run or version.
    """
    for file in (path, path.with_suffix(".previous")):
        if not file.is_file():
            continue
        raw = file.read_bytes()
        if hashlib.sha256(memoryview(raw)[32:]).digest() != raw[:32]:
            os.replace(file, file.with_suffix(".damaged"))
            print(f"warning: {file}: damaged (SHA-256 differs), set aside; going on from the one before", file=sys.stderr)
            continue
        content: dict[str, Any] = torch.load(io.BytesIO(raw[32:]), map_location=device, weights_only=True)
        if content.get("schema") != SCHEMA or content.get("run") != run:
            raise InputError(f"{file}: is the checkpoint of {content.get('run')}, not of {run} in this version; delete it")
        return content
    return None
