"""Copy this package for submitted jobs, so that they run the code that was submitted, and check the copy."""

import hashlib
import os
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

import simclic
from simclic.errors import InputError
from simclic.provenance import COMMIT, collect_provenance

PACKAGE = Path(simclic.__file__).parent
SUMS = "SHA256SUMS"


def copy_code(place: Path) -> Path:
    """Copy this package into a folder in `place` and return that folder. The same code is copied once."""
    commit = collect_provenance()["commit"]
    sums = _hash_sources(PACKAGE, commit)
    folder, draft = place / f"code-{_short_digest(sums)}", place / f".code.{uuid.uuid4().hex[:8]}"
    if not folder.exists():
        try:
            for path in _list_sources(PACKAGE):
                copy = draft / "simclic" / path.relative_to(PACKAGE)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            (draft / "simclic" / COMMIT).write_text(f"{commit}\n")
            (draft / SUMS).write_text(sums)
            if _hash_sources(draft / "simclic", commit) != sums:
                raise InputError(f"{PACKAGE}: changed while it was copied; submit again")
            with suppress(OSError):
                os.rename(draft, folder)  # atomic; another process may have been faster
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    check_copy(folder)
    return folder


def check_copy(folder: Path) -> None:
    """Raise InputError, naming the files, if a copy was changed after it was submitted."""
    try:
        before, commit = (folder / SUMS).read_text(), (folder / "simclic" / COMMIT).read_text().strip()
    except OSError as e:
        raise InputError(f"{e.filename}: cannot be read ({e.strerror}); submit again") from e
    now = _hash_sources(folder / "simclic", commit)
    if folder.name != f"code-{_short_digest(before)}" or now != before:
        names = sorted({line.split("  ", 1)[-1] for line in {*now.splitlines()} ^ {*before.splitlines()}})
        differ = f": {', '.join(names[:8])} differ{'s' if len(names) == 1 else ''}" if names else ""
        raise InputError(f"{folder / 'simclic'}: is no longer the code that was submitted{differ}; submit again")


def is_copy(path: Path) -> bool:
    """Return whether a path has the name of a complete copy of the code."""
    return bool(re.fullmatch(r"code-[0-9a-f]{16}", path.name))


def is_draft(path: Path) -> bool:
    """Return whether a path has the name of an unfinished copy of the code."""
    return bool(re.fullmatch(r"\.code\.[0-9a-f]{8}", path.name))


def own_files(folder: Path) -> set[Path]:
    """Return the files of a copy of the code: its list of files, those files, and their compiled versions."""
    sums = folder / SUMS
    names = [line.split("  ", 1)[-1] for line in (sums.read_text().splitlines() if sums.is_file() else ())]
    written = {sums, folder / "simclic" / COMMIT, *(folder / "simclic" / name for name in names)}
    return written | set(folder.glob("simclic/**/__pycache__/*.pyc"))


def check_running_copy(folder: Path) -> None:
    """Raise InputError if this process does not run the copy in `folder`, or if the copy was changed."""
    check_copy(folder)
    if PACKAGE.resolve() != (folder / "simclic").resolve():
        raise InputError(f"{PACKAGE}: was imported instead of {folder / 'simclic'}; is PYTHONSAFEPATH set on the node?")


def _list_sources(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


def _hash_sources(package: Path, commit: str) -> str:
    """Return the commit and the SHA-256 of every source file with its path in the package, a line each."""
    sums = [
        (hashlib.sha256(path.read_bytes()).hexdigest(), path.relative_to(package).as_posix()) for path in _list_sources(package)
    ]
    return "".join(f"{digest}  {name}\n" for digest, name in [(commit, "commit"), *sums])


def _short_digest(sums: str) -> str:
    return hashlib.sha256(sums.encode()).hexdigest()[:16]
