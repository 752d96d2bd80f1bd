"""Asked to stop: a signal waits for the next step boundary where work can be saved, and ends the process at once elsewhere."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)  # the end, and Slurm's word ahead of a time limit or a preemption
CODE = 143  # how a process ends that was stopped where there is nothing to save


class Stopped(Exception):
    """Work was asked to stop and is saved."""


def noted() -> list[int]:
    """A list to which each of these signals is appended from now on; nothing else happens."""
    found: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda n, _: found.append(n))
    return found


class _Asked:
    """What a signal leaves behind: handlers do nothing else, since they run between any two instructions."""

    yet = False
    can_wait = False


def listen() -> None:
    """Let SIGTERM and SIGUSR2 stop this process: at the next boundary inside `boundaries`, at once outside."""
    for number in SIGNALS:
        signal.signal(number, _note)


def _note(number: int, frame: Any) -> None:
    _Asked.yet = True
    if not _Asked.can_wait:
        sys.exit(CODE)


@contextmanager
def boundaries() -> Iterator[Callable[[], bool]]:
    """Work that can be saved between its steps. Yields what says whether to stop now."""
    _Asked.can_wait = True
    try:
        yield lambda: _Asked.yet
    finally:
        _Asked.can_wait = False


def check() -> None:
    """Between two pieces of work: raise Stopped if that was asked for."""
    if _Asked.yet:
        raise Stopped
