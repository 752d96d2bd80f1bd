"""One process works in a folder at a time: it says who it is, and whoever comes second says so and leaves it alone."""

import json
import os
import platform
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simclic import files, slurm
from simclic.errors import InputError


class Busy(InputError):
    """Another process is at work here: no failure of this Run."""


@contextmanager
def hold_claim(folder: Path, name: str = "owner") -> Iterator[Callable[[], None]]:
    """While it lasts, this process alone does the work that `name` stands for in `folder`. Yields what raises Busy if another
    has taken over meanwhile: to be called before anything is published.

    A claim whose process or Slurm job is gone is taken over at once; one from another machine of which nothing can be known is
    believed. Raises Busy if the work is taken.
    """
    path, mine = folder / f"{name}.json", {**_describe_this_process(), "nonce": uuid.uuid4().hex}

    def check_still_ours() -> None:
        holder = _read_claim(path)
        if holder is None or holder["nonce"] != mine["nonce"]:
            raise Busy(f"{folder}: was taken over by {_format_holder(holder)}; this process stops")

    with files.open_temporary(folder, path.name) as f:
        f.write(json.dumps(mine).encode())
        f.flush()
        while True:
            try:
                os.link(f.name, path)  # fails if there is one, on any file system
                break
            except FileExistsError:
                _remove_stale_claim(path, mine)
    try:
        yield check_still_ours
    finally:
        with suppress(Busy):
            check_still_ours()
            path.unlink(missing_ok=True)


def find_owner(folder: Path, name: str = "owner", ask_slurm: bool = True) -> dict[str, Any] | None:
    """Return who is at work, as far as that can be known here; None if nobody is.

    ask_slurm: about a process on another machine; else only processes on this one count.
    """
    holder = _read_claim(folder / f"{name}.json")
    return holder if holder and (ask_slurm or holder["host"] == platform.node()) and _is_alive(holder) else None


def is_claimed(folder: Path, name: str = "owner") -> bool:
    """Return whether another process than this one is at work, as far as that can be known; an unreadable claim is believed."""
    path = folder / f"{name}.json"
    if holder := _read_claim(path):
        return _is_alive(holder) and (holder["pid"], holder["host"]) != (os.getpid(), platform.node())
    return path.exists()


def is_claim(path: Path) -> bool:
    """Return whether a file is a claim that can be read, whoever holds it."""
    return _read_claim(path) is not None


def _remove_stale_claim(path: Path, mine: dict[str, Any]) -> None:
    """Remove the claim of a process that is gone. Raises Busy if it lives.

    It is moved aside before it is removed: if it is not the one that was judged any more, it goes back.
    """
    holder = _read_claim(path)
    if holder is None and path.exists():
        raise Busy(f"{path}: cannot be read; if nobody is at work here, delete it")
    if holder is None:
        return
    before = bool(mine["job"]) and holder.get("job") == mine["job"] and holder.get("restarts", 0) < mine["restarts"]
    if not before and _is_alive(holder):  # what Slurm has started again is not at work any more
        away = "" if holder["host"] == mine["host"] else f"; if that machine is gone, delete {path}"
        raise Busy(f"{path.parent}: {_format_holder(holder)} is at work on it{away}")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with suppress(FileNotFoundError):  # somebody else removed it
        os.rename(path, aside)
        if (taken := _read_claim(aside)) and taken["nonce"] != holder["nonce"]:
            with suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink()
            raise Busy(f"{path.parent}: {_format_holder(taken)} is at work on it")
        aside.unlink()


def _describe_this_process() -> dict[str, Any]:
    pid = os.getpid()
    who = {"host": platform.node(), "boot": _read_boot_id(), "pid": pid, "started": _read_start_time(pid)}
    return {**who, "job": slurm.current_job(), "restarts": slurm.count_restarts()}


def _format_holder(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "nobody known"
    return f"process {holder['pid']} on {holder['host']}" + (f" (job {holder['job']})" if holder.get("job") else "")


def _is_alive(holder: dict[str, Any]) -> bool:
    """Does the process still run? Of another machine Slurm is asked about the job; if it cannot tell: yes."""
    if holder["host"] != platform.node():
        return slurm.is_job_alive(holder.get("job", "")) is not False
    return holder["boot"] == _read_boot_id() and bool(holder["started"]) and holder["started"] == _read_start_time(holder["pid"])


def _read_claim(path: Path) -> dict[str, Any] | None:
    try:
        holder = json.loads(path.read_bytes())
        return holder if {"host", "boot", "pid", "started", "nonce"} <= holder.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _read_boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _read_start_time(pid: int) -> str:
    """When a process began, in the kernel's own ticks; empty if there is none. A number alone may be another's by now."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended
    if not Path("/proc/self/stat").exists():
        with suppress(OSError):
            os.kill(pid, 0)
            return "unknown"
    return ""
