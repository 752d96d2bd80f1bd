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


def collect_signals() -> list[int]:
    """A list to which each of these signals is appended from now on; nothing else happens."""
    signals: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda n, _: signals.append(n))
    return signals


class _StopRequest:
    """What a signal leaves behind: handlers do nothing else, since they run between any two instructions."""

    is_received = False
    can_wait = False


def handle_signals() -> None:
    """Let SIGTERM and SIGUSR2 stop this process: at the next boundary inside `boundaries`, at once outside."""
    for number in SIGNALS:
        signal.signal(number, _handle_signal)


def _handle_signal(number: int, frame: Any) -> None:
    _StopRequest.is_received = True
    if not _StopRequest.can_wait:
        sys.exit(CODE)


@contextmanager
def delay_stop() -> Iterator[Callable[[], bool]]:
    """Work that can be saved between its steps. Yields what says whether to stop now."""
    _StopRequest.can_wait = True
    try:
        yield lambda: _StopRequest.is_received
    finally:
        _StopRequest.can_wait = False


def raise_if_stopped() -> None:
    """Between two pieces of work: raise Stopped if that was asked for."""
    if _StopRequest.is_received:
        raise Stopped
