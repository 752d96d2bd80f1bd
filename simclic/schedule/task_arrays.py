"""Group jobs into tasks (short jobs together, long jobs alone) and tasks into Slurm arrays."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simclic.experiment import Job
from simclic.schedule import cost
from simclic.schedule.cost.prices import kind_of
from simclic.schedule.profile import SECTIONS, Profile, price_target


@dataclass
class Array:
    """Tasks of one stage that are submitted together. after: an array whose task of the same index each of these depends on, or
    the id of one job that all of them depend on, or ""."""

    stage: str
    tasks: list[list[Job]]
    after: "Array | str" = ""
    minutes: float = field(default=0.0, compare=False)  # of devices, an estimate for all tasks

    @property
    def job_count(self) -> int:
        """The number of encoders and results."""
        return sum(map(len, self.tasks))


class Prices:
    """Estimated minutes of jobs on one device of a profile; see simclic.schedule.cost."""

    def __init__(self, runs: Path, profile: Profile):
        self.prices = cost.Prices(runs, price_target(profile))

    def learn_from_runs(self, jobs: Iterable[Job]) -> None:
        """Learn from the times of finished jobs that are like these jobs and their encoders."""
        self.prices.learn_from_runs(kind_of(each.run, each.protocol) for job in jobs for each in (job.encoder, job))

    def price_minutes(self, job: Job) -> float:
        """Return the minutes of an encoder, on all its ranks, or of a result whose encoder is there, on one device."""
        price = self.prices.price_job(job.run, job.protocol)
        return 0.05 + (price.device_seconds if job.protocol else price.seconds) / 60


def pack_arrays(
    encoders: Sequence[Job], results: Sequence[Job], queued: Mapping[Job, str], profile: Profile, prices: Prices, largest: int
) -> list[Array]:
    """Return what to submit, parents first: encoders to train, and results whose encoders are trained here, done or queued.

    queued: encoder -> the task that trains it. largest: the number of tasks that one array may have.

    A task waits only for the one that makes its encoders: results whose encoders are made together are computed together.
    """
    new, packed = set(encoders), list[Array]()
    stages = [section for section in SECTIONS[1:] if any(job.section == section for job in results)]
    wanted = {stage: [job for job in results if job.section == stage] for stage in stages}
    old = {stage: [job for job in jobs if job.encoder not in new] for stage, jobs in wanted.items()}
    for task_id in ("", *dict.fromkeys(queued.values())):  # encoders that are there, then those in the queue
        for stage in stages:
            jobs = [job for job in old[stage] if queued.get(job.encoder, "") == task_id]
            if jobs:
                packed.append(Array(stage, _fill_tasks(jobs, stage, profile, prices), task_id))

    alike: dict[tuple[int, ...], list[tuple[list[Job], list[list[list[Job]]]]]] = {}
    for task in _fill_tasks(encoders, "pretrain", profile, prices):
        children = [_fill_tasks([job for job in wanted[s] if job.encoder in set(task)], s, profile, prices) for s in stages]
        alike.setdefault(tuple(map(len, children)), []).append((task, children))
    for group in alike.values():
        parent = Array("pretrain", [task for task, _ in group])
        packed.append(parent)
        for s, stage in enumerate(stages):
            for k in range(len(group[0][1][s])):
                packed.append(Array(stage, [children[s][k] for _, children in group], parent))
    for array in packed:
        devices = profile.compute.ranks if array.stage == "pretrain" else 1
        array.minutes = devices * sum(prices.price_minutes(job) for task in array.tasks for job in task)
    return cut_arrays(packed, largest)


def cut_arrays(whole: Sequence[Array], largest: int) -> list[Array]:
    """Return the same tasks in arrays of at most `largest`, each followed by those that wait for it, as they are in `whole`."""
    pieces = list[Array]()
    for array in whole:
        children = [child for child in whole if child.after is array]
        for begin in () if isinstance(array.after, Array) else range(0, len(array.tasks), largest):
            parent = _slice(array, begin, largest, array.after)
            pieces += [parent, *(_slice(child, begin, largest, parent) for child in children)]
    return pieces


def _slice(array: Array, begin: int, count: int, after: Array | str) -> Array:
    tasks = array.tasks[begin : begin + count]
    return Array(array.stage, tasks, after, array.minutes * len(tasks) / len(array.tasks))


def _fill_tasks(jobs: Sequence[Job], stage: str, profile: Profile, prices: Prices) -> list[list[Job]]:
    """Group jobs into tasks: as many as may run at a time and take at least least_min, more if the time limit requires it.

    The longest job comes first; each goes into the task with the least work so far.
    """
    if not jobs:
        return []
    width, slot = profile.task_width(stage), 0.8 * profile.time_limit(stage)
    took = sorted(((prices.price_minutes(job), i) for i, job in enumerate(jobs)), reverse=True)
    total = sum(minutes for minutes, _ in took) / width
    atonce = int(profile.stages[stage].get("slurm_array_parallelism", 256))
    count = max(math.ceil(total / slot), min(atonce, math.ceil(total / min(profile.pack.least_min, slot))))
    bins: list[tuple[float, list[int]]] = [(0.0, []) for _ in range(min(count, len(jobs)))]
    for minutes, i in took:
        k = min(range(len(bins)), key=lambda k: bins[k][0])
        if bins[k][1] and bins[k][0] + minutes > slot * width:  # full: it gets a task of its own
            bins.append((0.0, []))
            k = len(bins) - 1
        bins[k] = (bins[k][0] + minutes, [*bins[k][1], i])
    return [[jobs[i] for i in sorted(members)] for _, members in bins if members]
