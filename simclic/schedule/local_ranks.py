"""The processes of this machine that compute a pre-training together with its first one."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from simclic.errors import InputError
from simclic.experiment import Job, Run
from simclic.schedule.child import run_rank
from simclic.schedule.work import WorkerOptions

REDUCE_SECONDS = 120.0  # in which ranks must have taken part in one all-reduce
KILL_SECONDS = 30  # after the end of a rank that was not expected, for the first rank to say what happened


@dataclass
class LocalRanks:
    """The ranks of one pre-training or fine-tuning grid that this process has started, by their numbers."""

    processes: dict[int, ForkServerProcess] = field(default_factory=dict)
    ended: float | None = None  # when one of them first ended before its time
    store: tuple[str, int] = ("", 0)  # host and port of its server, rank 0
    save_alone: bool = False  # whether each saves its own work when it is stopped
    announced: set[int] = field(default_factory=set)  # whose end rank 0 has been told

    def start(
        self, context: Any, work: Run | Job, options: WorkerOptions, devices: Sequence[str], first: int, store: tuple[str, int]
    ) -> None:
        """Start a rank on each device. first: the number of the first of these. store: host and port of its server, rank 0."""
        self.store, self.save_alone = store, isinstance(work, Job)
        for rank, device in enumerate(devices, first):
            given = (work, replace(options, device=device), (rank, *store))
            self.processes[rank] = context.Process(target=run_rank, args=given, daemon=True)
            self.processes[rank].start()

    @property
    def are_done(self) -> bool:
        """Whether there were any, and all have ended."""
        return bool(self.processes) and all(process.exitcode is not None for process in self.processes.values())

    @property
    def are_saving(self) -> bool:
        """Whether any of them still has to save its own work."""
        return self.save_alone and any(process.is_alive() for process in self.processes.values())

    def terminate(self) -> None:
        """Let those stop that save their own work; the first rank of a pre-training tells the others."""
        for process in self.processes.values() if self.save_alone else ():
            process.terminate()

    def announce_ends(self, context: Any) -> None:
        """Let rank 0 know which ranks have ended, since one that was killed before it joined cannot."""
        for rank, process in self.processes.items():
            if process.exitcode and rank not in self.announced:
                self.announced.add(rank)
                given = (rank, *self.store, f"its process ended with exit code {process.exitcode}")
                context.Process(target=_tell_end, args=given, daemon=True).start()

    def explain_end(self) -> str:
        """Return which rank ended before its time, once rank 0 has had time to say so itself; else ""."""
        failed = {rank: process.exitcode for rank, process in self.processes.items() if process.exitcode}
        if not failed:
            return ""
        self.ended = self.ended or time.monotonic()
        rank, code = next(iter(failed.items()))
        return f"rank {rank} ended with exit code {code}" if time.monotonic() > self.ended + KILL_SECONDS else ""

    def kill(self) -> None:
        """End them."""
        for process in self.processes.values():
            process.kill()
            process.join()
        self.processes.clear()
        self.announced.clear()


def check_ranks(count: int, devices: Sequence[str]) -> None:
    """Raise InputError if there are fewer devices than ranks."""
    if count > len(devices):
        what = "CPU cores" if devices[0] == "cpu" else "GPUs"
        raise InputError(f"ranks={count} is more than the {len(devices)} {what} here; use {len(devices)} or fewer")


def run_ranks(
    context: Any, devices: Sequence[str], seconds: float, compute: Callable[..., Any], *given: Any,
    count: int = 0, share: Callable[[int], None] = lambda port: None,
) -> Any:  # fmt: skip
    """Return what compute(store, rank, count, device, *given) returns on rank 0, with a rank on each of these devices.

    count: of all ranks, if other Slurm tasks start more of them; share tells these the port of the store.
    Raise InputError if rank 0 ends, or does not answer within `seconds`.
    """
    (mine, theirs), count = context.Pipe(duplex=False), count or len(devices)
    words = (theirs, count == len(devices), compute, count, devices[0], given)
    processes = [context.Process(target=_lead, args=words, daemon=True)]
    processes[0].start()
    theirs.close()
    try:
        port = mine.recv()
        share(port)
        processes += start_followers(context, devices[1:], 1, ("127.0.0.1", port), compute, count, *given)
        if not mine.poll(seconds):
            raise InputError(f"{count} ranks gave no answer in {seconds / 60:g} minutes")
        return mine.recv()
    except EOFError:
        processes[0].join()
        raise InputError(f"rank 0 of {count} ended with exit code {processes[0].exitcode}") from None
    finally:
        for process in processes:
            process.kill()


def start_followers(
    context: Any, devices: Sequence[str], first: int, store: tuple[str, int], compute: Callable[..., Any], *given: Any
) -> list[ForkServerProcess]:
    """Start a rank on each device, to call compute(store, rank, count, device, *more). first: its number. given: count, *more."""
    processes = []
    for rank, device in enumerate(devices, first):
        processes.append(context.Process(target=_follow, args=(store, compute, rank, device, given), daemon=True))
        processes[-1].start()
    return processes


def try_all_reduce(context: Any, devices: Sequence[str]) -> str:
    """Let a rank on each device take part in one all-reduce. Return what went wrong, or ""."""
    try:
        return str(run_ranks(context, devices, REDUCE_SECONDS, reduce_ones))
    except InputError as e:
        return str(e)


def _tell_end(rank: int, host: str, port: int, why: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # rank 0 may have ended, too: nobody waits for this process
    from simclic import ranks

    ranks.tell_end(rank, host, port, why)


def _lead(pipe: Connection, is_local: bool, compute: Callable[..., Any], count: int, device: str, given: tuple[Any, ...]) -> None:
    from simclic import ranks

    store = ranks.serve_store(is_local)
    pipe.send(store.port)
    pipe.send(compute(store, 0, count, device, *given))


def _follow(store: tuple[str, int], compute: Callable[..., Any], rank: int, device: str, given: tuple[Any, ...]) -> None:
    from simclic import ranks

    count, *more = given
    compute(ranks.reach_store(*store), rank, count, device, *more)


def reduce_ones(store: Any, rank: int, count: int, device: str, is_local: bool = True) -> str:
    """Take part in one all-reduce of ones. Return what went wrong, or ""."""
    from simclic import ranks

    return ranks.try_all_reduce(store, rank, count, device, is_local)
