"""Jobs -> processes on this machine, one Run each: encoder, then every result that is missing of it."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from simclic import store
from simclic.launch.work import Work, decoded, work
from simclic.plan import cost
from simclic.progress import bar
from simclic.spec import USUAL, Diverged, How, InputError, Protocol, Run, cores
from simclic.store import DIVERGED


@dataclass
class Process:
    """A child process, what it works on, and the pipe on which it tells."""

    run: Run
    device: str
    price: float
    process: ForkServerProcess
    pipe: Connection
    share: float = 0.0
    outcome: tuple[str, Any] | None = None


@dataclass
class Outcome:
    """What became of the work: Runs finished, and for the others the reason in one line."""

    finished: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    crashes: dict[str, str] = field(default_factory=dict)  # programming errors: the traceback


def here(jobs: list[Work], runs: Path, root: Path, console: Console, how: How = USUAL, per_gpu: int = 1) -> Outcome:
    """Do the work on this machine, one process per GPU, or one single-threaded process per core without a GPU.

    One failure does not stop the others. On Ctrl-C the processes are stopped; no result is half-written.
    """
    outcome = Outcome()
    jobs = decoded(jobs, runs, root, console, outcome.failures)
    if not jobs:
        return outcome
    prices = [cost(run, protocols) for run, protocols in jobs]
    order = sorted(range(len(jobs)), key=lambda i: -prices[i])  # the longest first, so that all cores end together
    running: list[Process] = []
    with _Progress(console, sum(prices), len(jobs)) as progress:
        context, idle, threads = _server(how, per_gpu)
        idle = idle[: len(jobs)]
        console.print(f"computing on {', '.join(dict.fromkeys(idle))}, {len(idle)} at a time", highlight=False)
        # As an exception that may come anywhere, Ctrl-C can be swallowed by a callback; as a flag it cannot.
        stopped: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
        try:
            while order or running:
                if stopped:
                    raise KeyboardInterrupt
                while order and idle:
                    i = order.pop(0)
                    running.append(_start(context, jobs[i], prices[i], (runs, root, idle.pop(0), threads, how)))
                for process in _listen(running):
                    running.remove(process)
                    idle.append(process.device)
                    _conclude(process, outcome, runs, progress)
                progress.show(sum(p.share * p.price for p in running), outcome)
        finally:
            for process in running:
                process.process.terminate()
            for process in running:
                process.process.join()
            signal.signal(signal.SIGINT, before)
    return outcome


def _server(how: How, per_gpu: int) -> tuple[Any, list[str], int]:
    """A process server that has torch imported already, the devices of this machine, and CPU threads per process."""
    # Read when torch and numpy are imported in the server. One thread each: results do not depend on the number of cores.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if how.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when a GPU is first used
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"simclic.{m}" for m in ("launch", "pretrain", "linear", "finetune")] + ["timm"])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is ours to handle, and the server's children inherit this
    forkserver.ensure_running()
    signal.signal(signal.SIGINT, before)
    theirs, mine = context.Pipe()
    context.Process(target=_count_gpus, args=(theirs,), daemon=True).start()
    theirs.close()
    try:
        gpus = mine.recv()
    except EOFError:
        raise InputError("torch does not start here; install it with: pip install -c constraints.txt -e .") from None
    devices = [f"cuda:{i}" for _ in range(per_gpu) for i in range(gpus)] or ["cpu"] * cores()
    return context, devices, max(1, cores() // len(devices)) if gpus else 1


def _count_gpus(pipe: Connection) -> None:
    import torch

    pipe.send(torch.cuda.device_count() if torch.cuda.is_available() else 0)


def _start(context: Any, job: Work, price: float, where: tuple[Path, Path, str, int, How]) -> Process:
    """where: runs, data, device, threads, and how it computes."""
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, *job, *where), daemon=True)
    process.start()
    theirs.close()
    return Process(job[0], where[2], price, process, mine)


def _child(
    pipe: Connection, run: Run, protocols: tuple[Protocol, ...], runs: Path, root: Path, device: str, threads: int, how: How
) -> None:
    """In the child: work, and say what became of it. A user's mistake is a line, a programming error a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it says here is cleaned up on the way out
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)
    torch.use_deterministic_algorithms(how.deterministic)
    try:
        pipe.send(("done", work(run, protocols, runs, root, device, lambda share, note: pipe.send(("share", share)), how)))
    except InputError as e:
        pipe.send(("failed", str(e)))
    except Diverged as e:
        pipe.send(("failed", f"{DIVERGED} {e}"))
    except BrokenPipeError:
        sys.exit(1)  # the parent is gone
    except OSError as e:
        pipe.send(("stopped", f"{e.filename or runs}: {e.strerror}"))
    except torch.OutOfMemoryError:
        pipe.send(("stopped", f"{device} has not enough memory for batches of {run.batch_size} at {run.image_size} pixels"))
    except Exception:
        pipe.send(("crashed", traceback.format_exc()))
        sys.exit(1)


def _leave_with_parent(parent: int) -> None:
    """End this process at once when the one that started it is gone: its claims are then free for whoever comes next."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _listen(running: list[Process]) -> list[Process]:
    """Wait up to a fifth of a second for news; returns the processes that have come to an end."""
    ended = []
    ready = wait([p.pipe for p in running], timeout=0.2)
    for process in running:
        if process.pipe not in ready:
            continue
        try:
            kind, content = process.pipe.recv()
            if kind == "share":
                process.share = content
            else:
                process.outcome = (kind, content)
        except EOFError:
            process.process.join()
            ended.append(process)
    return ended


def _conclude(process: Process, outcome: Outcome, runs: Path, progress: "_Progress") -> None:
    """Count a process that has ended, and say what came of it."""
    code = process.process.exitcode
    killed: tuple[str, Any] = ("killed", f"its process was killed (exit code {code}); out of memory?")
    kind, content = process.outcome or killed
    if kind == "done":
        outcome.finished += 1
        progress.say(process, ", ".join(f"{title} {error:.2f} %" for title, error in content.items()))
        return
    if kind == "crashed":
        outcome.crashes[process.run.name] = content
        content = content.splitlines()[-1]
    if kind != "failed":
        with contextlib.suppress(OSError):
            store.fail(runs, process.run, kind, content)
    outcome.failures[process.run.name] = content
    progress.say(process, f"[red]{kind}[/red]: {content}")


class _Progress:
    """A bar with an estimate on a terminal; elsewhere a line whenever a Run ends."""

    def __init__(self, console: Console, total: float, jobs: int):
        self.console, self.total, self.jobs, self.ended, self.started = console, total, jobs, 0.0, time.monotonic()
        self.bar = bar(console)
        self.task = self.bar.add_task(f"0 of {jobs} encoders", total=total)

    def __enter__(self) -> "_Progress":
        if self.console.is_terminal:
            self.bar.start()
        else:
            self.console.print(f"{self.jobs} encoders to go; the first lines come in a moment")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, partly: float, outcome: Outcome) -> None:
        """Move the bar: `partly` is the price of what the running processes have done so far."""
        count = outcome.finished + len(outcome.failures)
        self.bar.update(self.task, completed=self.ended + partly, description=f"{count} of {self.jobs} encoders")

    def say(self, process: Process, text: str) -> None:
        """One Run has ended."""
        self.ended += process.price
        elapsed = time.monotonic() - self.started
        left = elapsed * (self.total - self.ended) / self.ended
        times = "" if self.console.is_terminal else f"[{self.ended / self.total:4.0%}, {elapsed:.0f} s, about {left:.0f} s left] "
        self.console.print(f"{times}{process.run.name}: {text}", highlight=False, soft_wrap=True)
