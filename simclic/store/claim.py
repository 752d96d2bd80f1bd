"""Claims: a file names the process that works in a folder, so that no second one does the same work."""

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
    """Another process does this work. That is not a failure of the Run."""


@contextmanager
def hold_claim(folder: Path, name: str = "owner") -> Iterator[Callable[[], None]]:
    """Claim the work `name` in `folder` for this process while the context lasts. Raise Busy if another process holds it.

    Yield a function that raises Busy if another process has taken over: call it before writing a result. A claim whose process
    or Slurm job has ended is taken over. A claim from another machine stands if nothing can be learned about its process.
    """
    path, pid = folder / f"{name}.json", os.getpid()
    mine = {
        "host": platform.node(), "boot": _read_boot_id(), "pid": pid, "started": _read_start_time(pid),
        "job": slurm.current_job(), "restarts": slurm.count_restarts(), "nonce": uuid.uuid4().hex,
    }  # fmt: skip

    def check_still_ours() -> None:
        holder = _read_claim(path)
        if holder is None or holder["nonce"] != mine["nonce"]:
            raise Busy(f"{folder}: was taken over by {_format_holder(holder)}; this process stops")

    with files.open_temporary(folder, path.name) as f:
        f.write(json.dumps(mine).encode())
        f.flush()
        while True:
            try:
                os.link(f.name, path)  # fails if the file exists, on every file system
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
    """Return the claim of a process that is at work, or None.

    ask_slurm: ask Slurm about a process on another machine; otherwise such a process is ignored.
    """
    holder = _read_claim(folder / f"{name}.json")
    return holder if holder and (ask_slurm or holder["host"] == platform.node()) and _is_alive(holder) else None


def is_claimed(folder: Path, name: str = "owner") -> bool:
    """Return whether another process holds a claim. A claim that cannot be read counts as held."""
    path = folder / f"{name}.json"
    if holder := _read_claim(path):
        return _is_alive(holder) and (holder["pid"], holder["host"]) != (os.getpid(), platform.node())
    return path.exists()


def is_claim(path: Path) -> bool:
    """Return whether a file is a readable claim, of a living process or not."""
    return _read_claim(path) is not None


def _remove_stale_claim(path: Path, mine: dict[str, Any]) -> None:
    """Remove the claim of a process that has ended. Raise Busy if the process lives.

    The claim is first renamed. If another process replaced it meanwhile, it is put back.
    """
    holder = _read_claim(path)
    if holder is None and path.exists():
        raise Busy(f"{path}: cannot be read; if no process works in this folder, delete it")
    if holder is None:
        return
    is_own_earlier_start = bool(mine["job"]) and holder.get("job") == mine["job"] and holder.get("restarts", 0) < mine["restarts"]
    if not is_own_earlier_start and _is_alive(holder):  # the earlier start of a requeued job has ended
        away = "" if holder["host"] == mine["host"] else f"; if that machine is gone, delete {path}"
        raise Busy(f"{path.parent}: {_format_holder(holder)} is at work on it{away}")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with suppress(FileNotFoundError):  # another process removed it
        os.rename(path, aside)
        if (taken := _read_claim(aside)) and taken["nonce"] != holder["nonce"]:
            with suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink()
            raise Busy(f"{path.parent}: {_format_holder(taken)} is at work on it")
        aside.unlink()


def _format_holder(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "an unknown process"
    return f"process {holder['pid']} on {holder['host']}" + (f" (job {holder['job']})" if holder.get("job") else "")


def _is_alive(holder: dict[str, Any]) -> bool:
    """Return whether the process still runs. For another machine, ask Slurm about its job; without an answer, return True."""
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
    """Return when a process began, in kernel ticks, or "" if there is none. A process id alone may have been given out again."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended
    if not Path("/proc/self/stat").exists():
        with suppress(OSError):
            os.kill(pid, 0)
            return "unknown"
    return ""
