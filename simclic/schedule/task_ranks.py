"""The further tasks of a Slurm job: each starts its part of the ranks of a pre-training whenever the first task says so."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from simclic import files, slurm
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions, Run
from simclic.schedule.local_ranks import REDUCE_SECONDS, LocalRanks, check_ranks, reduce_ones, run_ranks, start_followers
from simclic.schedule.processes import start_server
from simclic.schedule.records import Task
from simclic.schedule.work import WorkerOptions

SECONDS = 1.0  # between two looks at what the first task says


class RankOrders:
    """What the first task of a Slurm job says to the others, in a file of the launch: the pre-training to compute, or the end."""

    def __init__(self, task: Task):
        self.path: Path = task.launch.folder / task.array / f"ranks-{task.index}.json"
        self.job = {"job": slurm.current_job(), "restarts": slurm.count_restarts()}
        self.number = 0

    def share(self, run: Run, port: int) -> None:
        """Let the other tasks compute a pre-training, too. port: on which rank 0, on this node, serves the store."""
        self.number += 1
        files.write_json(
            self.path, {**self.job, "number": self.number, "run": run.name, "host": os.uname().nodename, "port": port}
        )

    def end(self) -> None:
        """Let the other tasks end."""
        files.write_json(self.path, {**self.job, "number": self.number + 1, "run": ""})

    def read_next(self) -> dict[str, Any] | None:
        """Return what the first task of this start of the job has said since the last time, or None."""
        order = files.read_json(self.path)
        if order is None or {name: order[name] for name in self.job} != self.job or order["number"] == self.number:
            return None
        self.number = order["number"]
        return order


def serve_ranks(task: Task, options: WorkerOptions) -> None:
    """Start the ranks of this Slurm task in one pre-training after another, until the first task has ended."""
    count = options.compute.ranks // options.tasks
    context, devices, threads = _start_own_server(options.compute, count)
    options = replace(options, threads=threads, folder=os.getcwd())
    runs, orders, ranks = {job.run.name: job.run for job in task.parse_jobs()}, RankOrders(task), LocalRanks()
    try:
        while (order := orders.read_next()) is None or order["run"]:
            if order:
                ranks.kill()
                place = order["host"], order["port"]
                ranks.start(context, runs[order["run"]], options, devices, slurm.task_of_job() * count, place)
            ranks.announce_ends(context)
            time.sleep(SECONDS)
    finally:
        ranks.kill()


def _start_own_server(compute: ComputeOptions, count: int) -> tuple[Any, list[str], int]:
    """Return a server of processes, the `count` devices of this Slurm task, and the threads of a process."""
    context, devices, threads = start_server(compute)
    check_ranks(count, devices)
    begin = slurm.local_task() * count
    return context, devices[begin : begin + count] if len(devices) >= begin + count else devices[:count], threads


def reduce_over_tasks(path: Path, count: int, tasks: int) -> str:
    """Let `count` ranks of all tasks of this Slurm job take part in one all-reduce. Return what went wrong, or "".

    Each task calls it. path: of a file that all see, by which the first one tells the others where its store is.
    """
    context, devices, _ = _start_own_server(DEFAULT_COMPUTE, count // tasks)
    if task := slurm.task_of_job():
        until = time.monotonic() + 2 * REDUCE_SECONDS  # the first one checks more before
        while (place := files.read_json(path)) is None and time.monotonic() < until:
            time.sleep(SECONDS)
        store = (place["host"], place["port"]) if place else ("", 0)
        processes = start_followers(context, devices, task * len(devices), store, reduce_ones, count, False) if place else []
        for process in processes:
            process.join(REDUCE_SECONDS)
            process.kill()
        return ""
    try:
        return str(
            run_ranks(
                context, devices, REDUCE_SECONDS, reduce_ones, False, count=count,
                share=lambda port: files.write_json(path, {"host": os.uname().nodename, "port": port}),
            )
        )  # fmt: skip
    finally:
        path.unlink(missing_ok=True)
