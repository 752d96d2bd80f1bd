"""Stop on a signal: at the next step where work can be saved, at once everywhere else."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)  # SIGUSR2: sent by Slurm before a time limit or a preemption
CODE = 143  # the exit code of a process that was stopped with nothing to save


class Stopped(Exception):
    """The work was stopped by a signal and is saved."""


def collect_signals() -> list[int]:
    """Return a list to which every stop signal is appended from now on; the signals have no other effect."""
    signals: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda n, _: signals.append(n))
    return signals


class _StopRequest:
    """Flags that the signal handler sets. It does nothing else, because it may run between any two instructions."""

    is_received = False
    can_wait = False


def handle_signals(*more: int) -> None:
    """Let SIGTERM, SIGUSR2 and `more` end this process at once, or inside `delay_stop` when the work asks whether to stop.

    What is ignored stays so, as SIGHUP under nohup.
    """
    for number in (*SIGNALS, *(number for number in more if signal.getsignal(number) != signal.SIG_IGN)):
        signal.signal(number, _handle_signal)


def _handle_signal(number: int, frame: Any) -> None:
    _StopRequest.is_received = True
    if not _StopRequest.can_wait:
        sys.exit(CODE)


@contextmanager
def delay_stop() -> Iterator[Callable[[], bool]]:
    """Delay signals while work runs that saves itself between steps. Yield a function that returns whether to stop now."""
    _StopRequest.can_wait = True
    try:
        yield lambda: _StopRequest.is_received
    finally:
        _StopRequest.can_wait = False


def raise_if_stopped() -> None:
    """Raise Stopped if a stop signal has come. Call it between two pieces of work."""
    if _StopRequest.is_received:
        raise Stopped
