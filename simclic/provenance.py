"""Versions of the packages that compute, and the commit of the source tree."""

import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

COMMIT = "COMMIT"  # a file in a copy of the code, with the commit that was copied


@cache
def collect_provenance() -> dict[str, Any]:
    """Return the versions of Python and the packages that compute, and the commit of the source tree."""
    names = ("simclic", "torch", "torchvision", "timm", "scikit-learn", "numpy", "scipy")
    return {
        "versions": {"python": platform.python_version(), **{n: _package_version(n) for n in names}},
        "commit": _read_commit(),
    }


def _package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _read_commit() -> str:
    """Return the commit of the source tree, with + if files differ from it, or 'unknown' outside git."""
    with suppress(OSError):
        return Path(__file__).with_name(COMMIT).read_text().strip()
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
