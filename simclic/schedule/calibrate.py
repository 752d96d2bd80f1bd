"""Measure this machine or a Slurm node, with as many processes as run at a time, since they slow each other down."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from simclic import files
from simclic.errors import Diverged, InputError, RankLost
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions
from simclic.progress import Tell
from simclic.schedule.ask_nodes import ask_nodes
from simclic.schedule.child import leave_with_parent
from simclic.schedule.local_ranks import run_ranks
from simclic.schedule.measure import Workload, choose_step, measure_workloads, time_step
from simclic.schedule.processes import start_server
from simclic.schedule.profile import Profile

RANKS = (1, 2, 4, 8)  # processes that compute a pre-training together, as far as there are devices
RANKS_SECONDS = 600.0  # in which they must have measured a step
Rates = list[dict[str, Any]]
Measured = tuple[Rates, dict[str, Any]]  # rates, and where they are from


def measure_here(workloads: Sequence[Workload], tell: Tell, options: ComputeOptions = DEFAULT_COMPUTE) -> Measured:
    """Measure on this machine. Raise InputError if a process fails."""
    asked = time.time()
    context, devices, threads = start_server(options)
    begun, pool = time.time(), ProcessPoolExecutor(len(devices), context)
    with TemporaryDirectory() as name:  # ours, since processes may be killed
        folders = [Path(name) / str(i) for i in range(len(devices))]
        try:
            futures = [
                pool.submit(_measure_in_process, workloads, *where, threads) for where in zip(devices, folders, strict=True)
            ]
            running = set(futures)
            while running:
                done, running = wait(futures, 0.2, "FIRST_EXCEPTION")
                measured = [future.result() for future in done]
                if running and len(active_children()) < len(devices):  # the pool itself does not watch its last process
                    raise BrokenProcessPool
                if progress := [p for p in (files.read_json(folder / "progress.json") for folder in folders) if p]:
                    tell(sum(p["share"] for p in progress) / len(devices), progress[-1]["note"])
        except BrokenProcessPool as e:
            raise InputError("calibration: a process was killed; is there enough memory?") from e
        except (InputError, Diverged, OSError) as e:
            raise InputError(f"calibration: {e}") from e
        finally:
            for process in active_children():
                process.kill()
            pool.shutdown()
    start, rates = mean(started - begun for _, started, _ in measured), Rates()
    for same in zip(*(rates for rates, _, _ in measured), strict=True):
        seconds = {name: mean(rate["seconds"][name] for rate in same) for name in same[0]["seconds"]}
        rates.append({**same[0], "seconds": {**seconds, "start": start}})
    own = devices if devices[0] == "cpu" else list(dict.fromkeys(devices))  # a rank has a GPU of its own
    for workload, rate in zip(workloads, rates, strict=True):
        if workload.batches and len(own) > 1:
            tell(1.0, f"{workload.run.network} at {workload.run.image_size} pixels: ranks")
            rate["speedups"] = _measure_speedups(context, workload, own, rate["seconds"], threads)
    return rates, {"device": measured[0][2], "processes": len(devices), "threads": threads, "begin": begun - asked}


def _measure_speedups(
    context: Any, workload: Workload, devices: Sequence[str], seconds: dict[str, float], threads: int
) -> dict[str, float]:
    """Return by a number of ranks how many times as fast they take a step as one; without numbers that do not divide the batch.

    Raise InputError if a rank fails.
    """
    counts = [count for count in RANKS if count <= len(devices) and workload.batches[-1] % count == 0]
    size, steps = choose_step(workload.batches[-1], max(counts), seconds)
    times = dict[int, float]()
    for count in counts:
        try:
            with TemporaryDirectory() as folder:
                given = workload, size, steps, folder, threads
                answer = run_ranks(context, devices[:count], RANKS_SECONDS, _time_step, *given)
        except InputError as e:
            raise InputError(f"calibration: {e}; is there enough memory?") from e
        if isinstance(answer, str):
            raise InputError(f"calibration with ranks={count}: {answer}")
        times[count] = answer
    return {str(count): times[1] / took for count, took in times.items() if count > 1}


def _time_step(
    store: Any, rank: int, count: int, device: str, workload: Workload, size: int, steps: int, folder: str, threads: int
) -> float | str:
    """Return the seconds of a step that ranks compute together, or what went wrong in a line."""
    leave_with_parent()
    import torch
    from threadpoolctl import threadpool_limits

    from simclic import ranks

    torch.set_num_threads(threads)
    threadpool_limits(threads)
    try:
        with ranks.tell_failure(store, rank), ranks.join(store, rank, count, torch.device(device), is_local=True):
            return time_step(workload, device, Path(folder) / str(rank), size, steps)
    except (InputError, Diverged, RankLost, RuntimeError) as e:
        return str(e).splitlines()[0]


def _measure_in_process(workloads: Sequence[Workload], device: str, folder: Path, threads: int) -> tuple[Rates, float, str]:
    """Return the rates of one process, the time at which it was ready, and the name of its device."""
    leave_with_parent()
    import torch
    from threadpoolctl import threadpool_limits

    from simclic import data
    from simclic.train.numerics import is_out_of_memory
    from simclic.train.pretrain import describe_device

    torch.set_num_threads(threads)
    threadpool_limits(threads)
    data.load("digits", "ericsson", Path())
    started, progress = time.time(), folder / "progress.json"
    folder.mkdir()
    try:
        rates = measure_workloads(
            workloads, device, folder, lambda share, note: files.write_json(progress, {"share": share, "note": note})
        )
    except Exception as e:
        if is_out_of_memory(e):
            raise InputError(f"{device} has not enough memory") from None
        raise
    return rates, started, describe_device(torch.device(device))["device"]


def measure_on_node(
    profile: Profile, workloads: Sequence[Workload], runs: Path, seconds: float, say: Callable[[str], None]
) -> Measured:
    """Measure on a node of a profile, in one small job. Raise InputError if it does not answer within `seconds`."""
    (answer,) = ask_nodes(
        profile, runs, "calibrate", {"pretrain": partial(_answer_on_node, workloads, profile.compute)}, seconds, say
    ).values()
    if answer.problem:
        raise InputError(f"{answer.problem}; {answer.way}" if answer.way else f"job {answer.job}: {answer.problem}")
    return answer.content["rates"], {**answer.content["where"], "job": answer.job}


def _answer_on_node(workloads: Sequence[Workload], options: ComputeOptions) -> dict[str, Any]:
    rates, where = measure_here(workloads, lambda share, note: print(f"{share:.0%} {note}", flush=True), options)
    return {"rates": rates, "where": {**where, "node": os.uname().nodename}}
