"""Jobs -> tasks: short ones together, long ones alone, and tasks that wait for the same number of others in one array."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simclic.experiment import Protocol, Run
from simclic.schedule import cost
from simclic.schedule.cost.prices import kind_of
from simclic.schedule.profile import Profile, target
from simclic.schedule.work import Work


@dataclass
class Array:
    """Tasks of one stage that are submitted together. after: the array whose task of the same index each of these waits for,
    or the one job that all of them wait for, or nothing."""

    stage: str
    tasks: list[list[Work]]
    after: "Array | str" = ""
    minutes: float = field(default=0.0, compare=False)  # an estimate, of all tasks
    along: int = 0  # encoders that are made along with results

    @property
    def jobs(self) -> int:
        """How many encoders and results."""
        return self.along + sum(len(protocols) or 1 for task in self.tasks for _, protocols in task)


class Prices:
    """How many minutes a job takes on one device of a profile's, see simclic.cost."""

    def __init__(self, runs: Path, profile: Profile):
        self.prices = cost.Prices(runs, target(profile))

    def learn(self, wanted: Iterable[Work]) -> None:
        """Look at what finished jobs of these kinds took."""
        self.prices.search(kind_of(run, protocol) for run, protocols in wanted for protocol in (None, *protocols))

    def minutes(self, work: Work) -> float:
        """Of results whose encoder is there, or else of the encoder."""
        run, protocols = work
        return 0.05 + sum(self.prices.of(run, protocol).seconds for protocol in protocols or (None,)) / 60


def arrays(
    encoders: Sequence[Run], results: Sequence[Work], queued: dict[Run, str], profile: Profile, prices: Prices, largest: int
) -> list[Array]:
    """What to submit, parents first: encoders to make, and results to compute from them, from those that are there, or from
    those in the queue. queued: the job that makes an encoder. largest: how many tasks one array may have.

    A task waits only for the one that makes its encoders: results whose encoders are made together are computed together.
    """
    stages = [s for s in ("linear", "finetune") if any(p.stage == s for _, ps in results for p in ps)]
    wanted = {s: [(run, kept) for run, ps in results if (kept := tuple(p for p in ps if p.stage == s))] for s in stages}
    made: list[Array] = []
    new = set(encoders)
    for stage in stages:  # of encoders that are there
        ready = [w for w in wanted[stage] if w[0] not in new and w[0] not in queued]
        made += _cut(Array(stage, _bins(_single(ready), stage, profile, prices)), largest)
    for job in dict.fromkeys(queued.values()):  # of encoders that are in the queue
        for stage in stages:
            those = [w for w in wanted[stage] if w[0] not in new and queued.get(w[0]) == job]
            made += _cut(Array(stage, _bins(_single(those), stage, profile, prices), job), largest)

    alike: dict[tuple[int, ...], list[tuple[list[Work], list[list[list[Work]]]]]] = {}
    for task in _bins([(run, ()) for run in encoders], "pretrain", profile, prices):
        inside = {run for run, _ in task}
        children = [_bins(_single(w for w in wanted[s] if w[0] in inside), s, profile, prices) for s in stages]
        alike.setdefault(tuple(map(len, children)), []).append((task, children))
    for group in alike.values():
        for begin in range(0, len(group), largest):
            part = group[begin : begin + largest]
            parent = Array("pretrain", [task for task, _ in part])
            made.append(parent)
            for s, stage in enumerate(stages):
                for k in range(len(part[0][1][s])):
                    made.append(Array(stage, [children[s][k] for _, children in part], parent))
    for array in made:
        array.minutes = sum(prices.minutes(work) for task in array.tasks for work in task)
    return made


def _single(work: Iterable[Work]) -> list[Work]:
    """One job each."""
    return [(run, (p,)) for run, protocols in work for p in protocols]


def _bins(jobs: list[Work], stage: str, profile: Profile, prices: Prices) -> list[list[Work]]:
    """Jobs in tasks: as many tasks as may run at a time and have least_min to do, more where the profile's time asks for it.

    The longest first, each into the task that has least to do so far.
    """
    if not jobs:
        return []
    width, slot = profile.width(stage), 0.8 * profile.minutes(stage)
    took = sorted(((prices.minutes(job), i) for i, job in enumerate(jobs)), reverse=True)
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
    return [_together([jobs[i] for i in sorted(members)]) for _, members in bins if members]


def _together(jobs: list[Work]) -> list[Work]:
    """What is to be done with one Run is done by one process."""
    found: dict[Run, tuple[Protocol, ...]] = {}
    for run, protocols in jobs:
        found[run] = (*found.get(run, ()), *protocols)
    return list(found.items())


def _cut(array: Array, largest: int) -> list[Array]:
    """Arrays of at most so many tasks."""
    return [Array(array.stage, array.tasks[i : i + largest], array.after) for i in range(0, len(array.tasks), largest)]
