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
from simclic.errors import Diverged, InputError
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions
from simclic.progress import Tell
from simclic.schedule.ask_nodes import ask_nodes
from simclic.schedule.child import leave_with_parent
from simclic.schedule.measure import Workload, measure_workloads
from simclic.schedule.processes import start_server
from simclic.schedule.profile import Profile

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
    return rates, {"device": measured[0][2], "processes": len(devices), "threads": threads, "begin": begun - asked}


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
