"""The code that was submitted is the code that runs: a copy of this package beside the launch, and its digest in the job."""

import hashlib
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

import simclic
from simclic import store
from simclic.spec import InputError

PACKAGE = Path(simclic.__file__).parent


def take(place: Path) -> Path:
    """A copy of this package below `place`, ready to be imported; there is one for each state of the code."""
    sums = _sums(PACKAGE)
    commit = store.provenance()["commit"]
    folder = place / f"code-{_digest(sums, commit)[:16]}"
    if not folder.exists():
        draft = place / f".code.{uuid.uuid4().hex[:8]}"
        try:
            for name in sums:
                (draft / "simclic" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(PACKAGE / name, draft / "simclic" / name)
            (draft / "simclic" / store.COMMIT).write_text(f"{commit}\n")
            if _sums(draft / "simclic") != sums:
                raise InputError(f"{PACKAGE}: was changed while it was copied; submit again")
            with suppress(FileExistsError, OSError):
                os.rename(draft, folder)  # whole or not at all; somebody may have been faster
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    check(folder)
    return folder


def check(folder: Path) -> None:
    """Raise InputError, naming the files, if a copy is not what was submitted any more."""
    kept, commit = folder / "simclic", folder / "simclic" / store.COMMIT
    sums = _sums(kept)
    if folder.name != f"code-{_digest(sums, commit.read_text().strip() if commit.is_file() else '')[:16]}":
        now = _sums(PACKAGE) if kept != PACKAGE else {}
        differ = sorted(name for name in {*sums, *now} if sums.get(name) != now.get(name)) if now else []
        those = f": {', '.join(differ[:8])} {'differ' if len(differ) > 1 else 'differs'} from {PACKAGE}" if differ else ""
        raise InputError(f"{kept}: is not the code that was submitted any more{those}; submit again")


def running(folder: Path) -> None:
    """Raise InputError if this process runs other code than the copy in `folder`, or if that was changed."""
    check(folder)
    if PACKAGE.resolve() != (folder / "simclic").resolve():
        raise InputError(f"{PACKAGE}: is imported here and not {folder / 'simclic'}; is PYTHONSAFEPATH set on the node?")


def _sums(package: Path) -> dict[str, str]:
    """The SHA-256 of every source file, by its name below the package."""
    paths = sorted(p for p in package.rglob("*.py") if "__pycache__" not in p.parts)
    return {p.relative_to(package).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def _digest(sums: dict[str, str], commit: str) -> str:
    lines = [commit, *(f"{name} {digest}" for name, digest in sums.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
