"""Run jobs in processes on this machine, one Run each: its encoder, then its missing results."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from simclic import stop
from simclic.errors import InputError
from simclic.experiment import ComputeOptions, Job, Run, count_cores
from simclic.schedule.child import count_gpus, run_child
from simclic.schedule.local_ranks import LocalRanks, check_ranks
from simclic.schedule.run_progress import RunProgress
from simclic.schedule.work import WorkerOptions, decode_data, fail_jobs, group_by_run, price_jobs, tunes

STOPPED = "its process was stopped; its work is saved; run the same command to continue"


@dataclass
class Process:
    """A child process, its jobs, and the pipe on which it sends the finished share (0-1) and a note.

    devices: its own first, then one for each other rank of its pre-training on this machine.
    """

    jobs: Sequence[Job]
    devices: list[str]
    price: float
    process: ForkServerProcess
    pipe: Connection
    ranks: LocalRanks = field(default_factory=LocalRanks)
    share: float = 0.0
    note: str = ""
    began: float = field(default_factory=time.monotonic)
    first: float | None = None  # the first reported share: above 0 if it resumed from a checkpoint
    outcome: tuple[str, Any] | None = None

    @property
    def run(self) -> Run:
        """The Run of all its jobs."""
        return self.jobs[0].run

    @property
    def seconds_left(self) -> float | None:
        """An estimate of the remaining seconds; None if there is none yet."""
        gained = self.share - (self.first or 0.0)
        return (time.monotonic() - self.began) * (1 - self.share) / gained if gained > 0 else None


@dataclass
class Outcome:
    """The outcome of the work: the number of finished Runs, and the reason for each other Run in one line."""

    finished: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    crashes: dict[str, str] = field(default_factory=dict)  # programming errors: the traceback
    postponed: dict[str, str] = field(default_factory=dict)  # another process does it now, or has to do it first
    busy: bool = False  # whether another process does any of it now
    saved: list[str] = field(default_factory=list)  # stopped before the end, and saved
    signal: int = 0  # the signal that stopped it


Watch = Callable[[list[Process], Outcome], None]
ShareWork = Callable[[Run, int], None]  # of a Run, and the port on which its first rank serves the store


def run_locally(
    jobs: Iterable[Job], options: WorkerOptions, console: Console, watch: Watch = lambda running, outcome: None,
    stopped: list[int] | None = None, share_work: ShareWork = lambda run, port: None,
) -> Outcome:  # fmt: skip
    """Run jobs on this machine, with compute.per_gpu processes on each GPU, or one single-threaded process per CPU core.

    One failure does not stop the others. On SIGINT, SIGTERM or SIGUSR2 the processes save their work and end, and
    outcome.signal is the signal. watch: called regularly with the running processes. stopped: signals that came earlier.
    share_work: called when the ranks of other Slurm tasks are to compute a pre-training, too.
    """
    outcome = Outcome()
    # Ctrl-C sets a flag here: as an exception it could be swallowed by a callback.
    stopped = [] if stopped is None else stopped
    numbers = (signal.SIGINT, *stop.SIGNALS)
    before = {n: signal.signal(n, lambda number, _: stopped.append(number)) for n in numbers}
    try:
        ready = decode_data(group_by_run(jobs), options, console, outcome.failures, lambda: bool(stopped))
        if ready and not stopped:
            _run_all(ready, options, console, outcome, stopped, watch, share_work)
    except stop.Stopped:
        pass
    finally:
        for n in numbers:
            signal.signal(n, before[n])
    outcome.signal = stopped[0] if stopped else 0
    return outcome


def _run_all(
    groups: list[list[Job]], options: WorkerOptions, console: Console, outcome: Outcome, stopped: list[int], watch: Watch,
    share_work: ShareWork,
) -> None:  # fmt: skip
    """Run one process after another on each device, until all work is done or `stopped` contains a signal."""
    prices = [price_jobs(jobs, options.runs) for jobs in groups]
    sums = [1.0 + sum(each.values()) for each in prices]
    order = sorted(range(len(groups)), key=lambda i: -sums[i])  # longest first, so that all cores end together
    needs = [options.count_local_ranks(jobs) for jobs in groups]
    running: list[Process] = []
    with RunProgress(console, sum(sums), len(groups)) as progress:
        context, idle, threads = start_server(options.compute)
        options = replace(options, threads=threads, folder=os.getcwd())
        check_ranks(max(needs), idle)
        needs = [options.count_devices(jobs, len(idle) // len(groups)) for jobs in groups]
        idle = idle[: sum(needs) if options.tasks == 1 else max(needs)]  # several tasks compute one pre-training at a time
        console.print(f"computing on {', '.join(dict.fromkeys(idle))}, {len(idle)} at a time", highlight=False)
        try:
            while (order or running) and not stopped:
                while order and len(idle) >= needs[order[0]]:
                    i = order.pop(0)
                    devices, idle = idle[: needs[i]], idle[needs[i] :]
                    running.append(_start_process(context, groups[i], devices, options, prices[i], sums[i]))
                ended = _receive_messages(running, partial(_start_ranks, context, options, share_work))
                idle += [device for process in running for device in _end_ranks(process, context)]
                for process in ended:
                    running.remove(process)
                    idle += process.devices
                    _record_outcome(process, outcome, options.runs, progress)
                count = outcome.finished + len(outcome.failures) + len(outcome.postponed)
                progress.update_bar(sum(p.share * p.price for p in running), count)
                watch(running, outcome)
        finally:
            _stop_processes(running, outcome, stopped)
    if outcome.saved and not stopped:  # single processes were stopped from outside
        outcome.failures |= dict.fromkeys(outcome.saved, STOPPED)


def _stop_processes(running: list[Process], outcome: Outcome, stopped: list[int]) -> None:
    """Terminate the processes, repeatedly, since a starting process ignores signals. Kill them on a second Ctrl-C."""
    asked = 0.0
    while running:
        impatient = len([n for n in stopped if n == signal.SIGINT]) > 1
        for process in running if impatient or time.monotonic() - asked > 5 else ():
            (process.process.kill if impatient else process.process.terminate)()
            (process.ranks.kill if impatient else process.ranks.terminate)()
        asked = time.monotonic() if time.monotonic() - asked > 5 else asked
        _receive_messages(running)  # a process with a full pipe could not end
        for process in [p for p in running if not p.process.is_alive() and not p.ranks.are_saving]:
            running.remove(process)
            process.ranks.kill()
            outcome.saved.append(process.run.name)


def start_server(compute: ComputeOptions) -> tuple[Any, list[str], int]:
    """Return a process server that has imported torch, the devices of this machine, and the CPU threads per process."""
    # Read when the server imports torch and numpy. With one thread, results do not depend on the number of cores.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # A thread that spins while it waits blocks the core for others: on a crowded node that takes 30 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost rank is one line; torch would warn with its C++ stack
    if compute.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when a GPU is first used
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["simclic.schedule.server"])
    # A terminal or Slurm sends signals to all processes; the server inherits SIG_IGN and survives them.
    numbers = (signal.SIGINT, *stop.SIGNALS)
    before = [signal.signal(n, signal.SIG_IGN) for n in numbers]
    forkserver.ensure_running()
    for n, handler in zip(numbers, before, strict=True):
        signal.signal(n, handler)
    theirs, mine = context.Pipe()
    try:
        context.Process(target=count_gpus, args=(theirs,), daemon=True).start()
        theirs.close()
        gpus = mine.recv()
    except EOFError:
        raise InputError("torch cannot be imported here: the process was killed; free some memory and run this again") from None
    if isinstance(gpus, str):
        raise InputError(f"torch cannot be imported here ({gpus}); install it with: pip install -c constraints.txt -e .")
    devices = [f"cuda:{i}" for _ in range(compute.per_gpu) for i in range(gpus)] or ["cpu"] * count_cores()
    return context, devices, max(1, count_cores() // len(devices)) if gpus else 1


def _start_process(
    context: Any, jobs: list[Job], devices: list[str], options: WorkerOptions, prices: dict[Job, float], price: float
) -> Process:
    mine, theirs = context.Pipe(duplex=False)
    options = replace(options, device=devices[0], helpers=len(devices) - 1)
    process = context.Process(target=run_child, args=(theirs, jobs, options, prices), daemon=True)
    process.start()
    theirs.close()
    return Process(jobs, devices, price, process, mine)


def _start_ranks(
    context: Any, options: WorkerOptions, share_work: ShareWork, process: Process, port: int, work: Run | Job
) -> None:
    """Start the other ranks of a pre-training or of a grid: on this machine, on the devices of its process."""
    if isinstance(work, Run):
        share_work(work, port)
    host = "127.0.0.1" if options.tasks == 1 else os.uname().nodename
    process.ranks.start(context, work, options, process.devices[1:], 1, (host, port))


def _end_ranks(process: Process, context: Any) -> list[str]:
    """Return the devices of the ranks of a process if these or itself have ended. Kill it if it does not notice that one has."""
    process.ranks.announce_ends(context)
    if why := process.ranks.explain_end():
        process.outcome = process.outcome or ("stopped", why)
        process.process.kill()
    code = process.process.exitcode
    if process.ranks.processes and code not in (None, 0, stop.CODE):
        why = f"rank 0 of {len(process.devices)} here was killed (exit code {code}); out of memory?"
        process.outcome = process.outcome or ("killed", why)
    is_alive = process.process.is_alive()
    if is_alive and not process.ranks.are_done:
        return []
    process.ranks.kill()
    devices = [] if is_alive and tunes(process.jobs) else process.devices[1:]  # a grid may need them again
    if devices:
        del process.devices[1:]
    return devices


def _receive_messages(
    running: list[Process], start: Callable[[Process, int, Run | Job], None] = lambda process, port, work: None
) -> list[Process]:
    """Read messages for up to 0.2 seconds. Return the processes that have ended. start: starts the other ranks of a process."""
    ended = []
    ready = wait([p.pipe for p in running], timeout=0.2)
    for process in running:
        if process.pipe not in ready:
            continue
        try:
            kind, content = process.pipe.recv()
            if kind == "share":
                process.share, process.note = content
                process.first = process.share if process.first is None else process.first
            elif kind == "ranks":
                start(process, content, process.run)
            elif kind == "helpers":
                start(process, *content)
            else:
                process.outcome = (kind, content)
        except EOFError:
            process.process.join()
            ended.append(process)
    return ended


def _record_outcome(process: Process, outcome: Outcome, runs: Path, progress: RunProgress) -> None:
    """Record the outcome of an ended process and print it."""
    code, name = process.process.exitcode, process.run.name
    why = f"its process was killed (exit code {code}); out of memory?"
    silent: tuple[str, Any] = ("saved" if code == stop.CODE else "killed", why)
    kind, content = process.outcome or silent
    if kind == "done":
        outcome.finished += 1
        progress.print_ended(
            name, process.price, ", ".join(f"{title} {error:.2f} %" for title, error in content.items()) or "done"
        )
    elif kind == "saved":
        outcome.saved.append(name)
    elif kind in ("busy", "waits"):
        outcome.postponed[name] = content
        outcome.busy |= kind == "busy"
        progress.print_ended(name, process.price, content)
    else:
        if kind == "crashed":
            outcome.crashes[name] = content
            content = content.splitlines()[-1]
        if kind != "failed":  # the child records only its own failures
            fail_jobs(process.jobs, runs, content)
        outcome.failures[name] = content
        progress.print_ended(name, process.price, f": {content}", kind)
