"""A plan and prices -> the bill: device hours, wall time, disk, the largest items first, and where each figure is from."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simclic import data
from simclic.data import manifest
from simclic.errors import InputError
from simclic.experiment import Finetune, Job, Linear, Run
from simclic.schedule import cost
from simclic.schedule.cost import Price, Prices
from simclic.schedule.cost.prices import kind_of
from simclic.schedule.plan import Line, Plan
from simclic.schedule.state import State
from simclic.schedule.work import group_by_run
from simclic.store.run_folder import RunFolder


@dataclass
class Bill:
    """What is left of a plan, in money. prices: of every job that is left, by its name.

    wall: seconds from now to the end, without waiting in a queue. after: bytes that will lie on disk more than now. during: those
    and what is there only while jobs run. sources: where prices are from, and how many seconds of them. unknown: jobs without a
    price, on a folder of images that is not here.
    """

    target: cost.Target
    prices: dict[str, Price] = field(default_factory=dict)
    wall: float = 0.0
    after: float = 0.0
    during: float = 0.0
    sources: dict[str, float] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of one process, all jobs together."""
        return sum(price.seconds for price in self.prices.values())

    def of(self, jobs: Iterable[State]) -> float:
        """Device hours of those of these jobs that are left."""
        return self.hours(sum(self.prices[job.name].seconds for job in jobs if job.name in self.prices))

    def hours(self, seconds: float) -> float:
        """Device hours of so many seconds of one process."""
        return seconds / 3600 / self.target.share


def bill(made: Plan, runs: Path, root: Path, target: cost.Target) -> Bill:
    """Price what is left of a plan. Raises InputError if the target's calibration cannot be read."""
    prices, told = Prices(runs, target), Bill(target)
    known = {name for name in {job.run.dataset for job in made.jobs.values()} if _known(name)}
    for job in made.jobs.values():
        if job.state == "done" and job.run.dataset in known:
            prices.learn(job.run, job.protocol, job.record)
    left = [job for job in made.jobs.values() if job.is_open and job.run.dataset in known]
    told.unknown = [job.name for job in made.jobs.values() if job.is_open and job.run.dataset not in known]
    prices.search(kind_of(job.run, job.protocol) for job in left)
    passed = set[Path]()  # whose features are priced
    for job in left:
        price = prices.of(job.run, job.protocol)
        _book(told, price)
        if isinstance(job.protocol, Linear) and job.run.backbone != "pixels":
            path = RunFolder(runs, job.run).features_path(job.protocol.features)
            if path not in passed and not path.exists():
                passed.add(path)
                more = prices.features(job.run, job.protocol)
                _book(told, more)
                price = Price(price.seconds + more.seconds, price.source, more.seconds)
                told.after += cost.kept(job.run)
        told.prices[job.name] = price
    told.wall = wall(left, told) + (prices.rates.begin if left else 0.0)
    told.after += sum(cost.disk(job.run, job.protocol) for job in left) + _decoded(left, root)
    most = sorted((cost.running(job.run, job.protocol) for job in left), reverse=True)
    told.during = told.after + sum(most[: target.atonce])
    return told


def _book(told: Bill, price: Price) -> None:
    told.sources[price.source] = told.sources.get(price.source, 0.0) + price.seconds


def wall(left: list[State], told: Bill) -> float:
    """Seconds until all is done: whatever can start starts, the longest first, on as many processes as there are."""
    waiting: dict[str, list[tuple[float, str]]] = {}
    ready: list[tuple[float, str]] = []
    if told.target.together:
        each: dict[str, float] = {}
        for job in left:
            each[job.run.name] = each.get(job.run.name, 0.0) + told.prices[job.name].seconds
        ready = [(-seconds, name) for name, seconds in each.items()]
    names = {job.name for job in left}
    for job in left if not told.target.together else ():
        encoder = job.job.encoder.name
        place = waiting.setdefault(encoder, []) if job.protocol and encoder in names else ready
        place.append((-told.prices[job.name].seconds, job.name))
    heapq.heapify(ready)
    now, running = 0.0, list[tuple[float, str]]()
    while ready or running:
        while ready and len(running) < told.target.atonce:
            seconds, name = heapq.heappop(ready)
            heapq.heappush(running, (now - seconds, name))
        now, name = heapq.heappop(running)
        for one in waiting.pop(name, ()):
            heapq.heappush(ready, one)
    return now


def as_json(made: Plan, told: Bill) -> dict[str, Any]:
    """For programs: lines, totals, every job with its state, price and what it needs, and the sums."""
    return {
        "target": {"name": told.target.name, "kind": told.target.kind, "atonce": told.target.atonce, "unit": told.target.unit},
        "lines": [_line(line, told) for line in made.lines], "totals": [_line(line, told) for line in made.totals()],
        "jobs": [_job(job, made.exhibits[job.name], told) for job in made.jobs.values()],
        "hours": told.hours(told.seconds), "wall_seconds": told.wall, "disk_after": told.after, "disk_during": told.during,
        "sources": {source: told.hours(seconds) for source, seconds in told.sources.items()},
        "unknown": told.unknown, "reasons": made.reasons, "absent": made.absent,
        "missing": [_missing(jobs) for jobs in group_by_run(made.open_results)],
    }  # fmt: skip


def _missing(jobs: list[Job]) -> dict[str, Any]:
    return {"run": jobs[0].run.name, "protocols": [job.protocol.name for job in jobs if job.protocol]}


def _line(line: Line, told: Bill) -> dict[str, Any]:
    counts = {k: getattr(line, k) for k in ("exhibit", "stage", "asked", "shared", "done", "failed", "missing")}
    return {**counts, "hours": told.of(line.jobs)}


def _job(job: State, exhibits: list[str], told: Bill) -> dict[str, Any]:
    price = told.prices.get(job.name)
    took = job.record.get("seconds") if job.state == "done" else None
    return {
        "name": job.name, "stage": job.stage, "state": job.state, 
        "needs": job.job.encoder.name if job.protocol else "", "exhibits": exhibits,
        "seconds": price.seconds if price else None, "source": price.source if price else None,
        "besides": price.besides if price else None, "took": took,
        "bytes": cost.disk(job.run, job.protocol) if price else 0,
    }  # fmt: skip


def _decoded(left: Iterable[State], root: Path) -> float:
    """Bytes of the data sets that have to be decoded first."""
    asked: dict[tuple[str, str, int], Run] = {}
    for job in left:
        sizes = [job.run.image_size] + ([job.protocol.side(job.run.image_size)] if isinstance(job.protocol, Finetune) else [])
        for size in sizes:
            asked.setdefault((job.run.dataset, job.run.split, data.facts(job.run.dataset).stored or size), job.run)
    gone = {
        key: run for key, run in asked.items()
        if not any(manifest.place(root).glob(f"{manifest.stem(run.dataset)}-{key[2]}-*.npy"))
    }  # fmt: skip
    return sum(cost.decoded(run, size) for (_, _, size), run in gone.items())


def _known(name: str) -> bool:
    """Can it be known here how many images a data set has?"""
    try:
        data.facts(name)
    except InputError:
        return False
    return True
