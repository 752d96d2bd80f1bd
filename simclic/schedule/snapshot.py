"""Copy this package for submitted jobs, so that they run the code that was submitted, and check the copy."""

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import simclic
from simclic.errors import InputError
from simclic.experiment import METHODS
from simclic.experiment.declared import OWN_METHODS
from simclic.provenance import COMMIT, collect_provenance

PACKAGE = Path(simclic.__file__).parent
SUMS = "SHA256SUMS"


def copy_code(place: Path) -> Path:
    """Copy this package, and methods of one's own, into a folder in `place`; return it. The same code is copied once."""
    commit, sources = collect_provenance()["commit"], _list_sources(PACKAGE) | _list_own_methods()
    sums = _hash_sources(sources, commit)
    folder, draft = place / f"code-{_short_digest(sums)}", place / f".code.{uuid.uuid4().hex[:8]}"
    if not folder.exists():
        try:
            for name, path in sources.items():
                copy = _path_in_copy(draft, name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            (draft / "simclic" / COMMIT).write_text(f"{commit}\n")
            (draft / SUMS).write_text(sums)
            if _hash_sources(_list_copied(draft), commit) != sums:
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
    now = _hash_sources(_list_copied(folder), commit)
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
    written = {sums, folder / "simclic" / COMMIT, *(_path_in_copy(folder, name) for name in names)}
    return written | set(folder.glob("*/**/__pycache__/*.pyc"))


def check_running_copy(folder: Path) -> None:
    """Raise InputError if this process does not run the copy in `folder`, or if the copy was changed."""
    check_copy(folder)
    if PACKAGE.resolve() != (folder / "simclic").resolve():
        raise InputError(f"{PACKAGE}: was imported instead of {folder / 'simclic'}; is PYTHONSAFEPATH set on the node?")


def _list_sources(folder: Path) -> dict[str, Path]:
    """Return the source files below a folder, by their path in it."""
    paths = sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _list_own_methods() -> dict[str, Path]:
    """Return the files that declare methods of one's own, by their names in a copy."""
    own = sorted(facts.path for facts in METHODS.values() if not facts.path.is_relative_to(PACKAGE))
    return {f"{OWN_METHODS}/{path.name}": path for path in own}


def _list_copied(folder: Path) -> dict[str, Path]:
    """Return the source files of a copy, by their names in it."""
    own = _list_sources(folder / OWN_METHODS)
    return _list_sources(folder / "simclic") | {f"{OWN_METHODS}/{name}": path for name, path in own.items()}


def _path_in_copy(folder: Path, name: str) -> Path:
    """Return the path of a source file in a copy. name: as in its list, in which the package's files have no folder."""
    return folder / name if name.startswith(f"{OWN_METHODS}/") else folder / "simclic" / name


def _hash_sources(sources: Mapping[str, Path], commit: str) -> str:
    """Return the commit and the SHA-256 of every source file with its name in a copy, a line each."""
    sums = [(hashlib.sha256(path.read_bytes()).hexdigest(), name) for name, path in sources.items()]
    return "".join(f"{digest}  {name}\n" for digest, name in [(commit, "commit"), *sums])


def _short_digest(sums: str) -> str:
    return hashlib.sha256(sums.encode()).hexdigest()[:16]
