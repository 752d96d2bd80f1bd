"""A plan and prices -> the bill: device hours, wall time, disk, the largest items first, and where each figure is from."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simclic import data
from simclic.data import manifest
from simclic.errors import InputError
from simclic.experiment import Finetune, Linear, Run
from simclic.schedule import cost
from simclic.schedule.cost import Price, Prices
from simclic.schedule.cost.prices import kind_of
from simclic.schedule.plan import Plan, PlanLine
from simclic.schedule.state import State
from simclic.schedule.work import group_by_run
from simclic.store.run_folder import RunFolder


@dataclass
class PlanCost:
    """What is left of a plan, in money. prices: of every job that is left, by its name.

    wall: seconds from now to the end, without waiting in a queue. after: bytes that will lie on disk more than now. during: those
    and what is there only while jobs run. sources: where prices are from, and how many seconds of them. unknown: jobs without a
    price, on a folder of images that is not here.
    """

    target: cost.Target
    prices: dict[str, Price] = field(default_factory=dict)
    wall_seconds: float = 0.0
    disk_after: float = 0.0
    disk_during: float = 0.0
    seconds_by_source: dict[str, float] = field(default_factory=dict)
    unpriced_jobs: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of one process, all jobs together."""
        return sum(price.seconds for price in self.prices.values())

    def hours_of(self, jobs: Iterable[State]) -> float:
        """Device hours of those of these jobs that are left."""
        return self.device_hours(sum(self.prices[job.name].seconds for job in jobs if job.name in self.prices))

    def device_hours(self, seconds: float) -> float:
        """Device hours of so many seconds of one process."""
        return seconds / 3600 / self.target.processes_per_device


def price_plan(job_plan: Plan, runs: Path, root: Path, target: cost.Target) -> PlanCost:
    """Price what is left of a plan. Raises InputError if the target's calibration cannot be read."""
    prices, costs = Prices(runs, target), PlanCost(target)
    known = {name for name in {job.run.dataset for job in job_plan.jobs.values()} if _is_size_known(name)}
    for job in job_plan.jobs.values():
        if job.state == "done" and job.run.dataset in known:
            prices.learn_from(job.run, job.protocol, job.record)
    open_jobs = [job for job in job_plan.jobs.values() if job.is_open and job.run.dataset in known]
    costs.unpriced_jobs = [job.name for job in job_plan.jobs.values() if job.is_open and job.run.dataset not in known]
    prices.learn_from_runs(kind_of(job.run, job.protocol) for job in open_jobs)
    passed = set[Path]()  # whose features are priced
    for job in open_jobs:
        price = prices.price_job(job.run, job.protocol)
        _book(costs, price)
        if isinstance(job.protocol, Linear) and job.run.backbone != "pixels":
            path = RunFolder(runs, job.run).features_path(job.protocol.features)
            if path not in passed and not path.exists():
                passed.add(path)
                more = prices.price_features(job.run, job.protocol)
                _book(costs, more)
                price = Price(price.seconds + more.seconds, price.source, more.seconds)
                costs.disk_after += cost.feature_bytes(job.run)
        costs.prices[job.name] = price
    costs.wall_seconds = estimate_wall_seconds(open_jobs, costs) + (prices.rates.begin if open_jobs else 0.0)
    costs.disk_after += sum(cost.job_bytes(job.run, job.protocol) for job in open_jobs) + _decoded_bytes(open_jobs, root)
    most = sorted((cost.temporary_bytes(job.run, job.protocol) for job in open_jobs), reverse=True)
    costs.disk_during = costs.disk_after + sum(most[: target.jobs_at_once])
    return costs


def _book(told: PlanCost, price: Price) -> None:
    told.seconds_by_source[price.source] = told.seconds_by_source.get(price.source, 0.0) + price.seconds


def estimate_wall_seconds(open_jobs: list[State], costs: PlanCost) -> float:
    """Seconds until all is done: whatever can start starts, the longest first, on as many processes as there are."""
    waiting: dict[str, list[tuple[float, str]]] = {}
    ready: list[tuple[float, str]] = []
    if costs.target.one_process_per_run:
        each: dict[str, float] = {}
        for job in open_jobs:
            each[job.run.name] = each.get(job.run.name, 0.0) + costs.prices[job.name].seconds
        ready = [(-seconds, name) for name, seconds in each.items()]
    names = {job.name for job in open_jobs}
    for job in open_jobs if not costs.target.one_process_per_run else ():
        encoder = job.job.encoder.name
        place = waiting.setdefault(encoder, []) if job.protocol and encoder in names else ready
        place.append((-costs.prices[job.name].seconds, job.name))
    heapq.heapify(ready)
    now, running = 0.0, list[tuple[float, str]]()
    while ready or running:
        while ready and len(running) < costs.target.jobs_at_once:
            seconds, name = heapq.heappop(ready)
            heapq.heappush(running, (now - seconds, name))
        now, name = heapq.heappop(running)
        for freed in waiting.pop(name, ()):
            heapq.heappush(ready, freed)
    return now


def as_json(job_plan: Plan, costs: PlanCost) -> dict[str, Any]:
    """Return lines, totals, every job with its state, price and what it needs, and the sums, for programs."""
    target = costs.target
    return {
        "target": {"name": target.name, "kind": target.kind, "atonce": target.jobs_at_once, "unit": target.unit},
        "lines": [_line_as_json(line, costs) for line in job_plan.lines],
        "totals": [_line_as_json(line, costs) for line in job_plan.sum_stages()],
        "jobs": [_job_as_json(job, job_plan.exhibits[job.name], costs) for job in job_plan.jobs.values()],
        "hours": costs.device_hours(costs.seconds),
        "wall_seconds": costs.wall_seconds,
        "disk_after": costs.disk_after,
        "disk_during": costs.disk_during,
        "sources": {source: costs.device_hours(seconds) for source, seconds in costs.seconds_by_source.items()},
        "unknown": costs.unpriced_jobs,
        "reasons": job_plan.job_problems,
        "absent": job_plan.absent,
        "missing": [
            {"run": jobs[0].run.name, "protocols": [job.protocol.name for job in jobs if job.protocol]}
            for jobs in group_by_run(job_plan.open_results)
        ],
    }


def _line_as_json(line: PlanLine, costs: PlanCost) -> dict[str, Any]:
    counts = {k: getattr(line, k) for k in ("exhibit", "stage", "asked", "shared", "done", "failed", "missing")}
    return {**counts, "hours": costs.hours_of(line.jobs)}


def _job_as_json(job: State, exhibits: list[str], costs: PlanCost) -> dict[str, Any]:
    price = costs.prices.get(job.name)
    took = job.record.get("seconds") if job.state == "done" else None
    return {
        "name": job.name, "stage": job.stage, "state": job.state, 
        "needs": job.job.encoder.name if job.protocol else "", "exhibits": exhibits,
        "seconds": price.seconds if price else None, "source": price.source if price else None,
        "besides": price.besides if price else None, "took": took,
        "bytes": cost.job_bytes(job.run, job.protocol) if price else 0,
    }  # fmt: skip


def _decoded_bytes(open_jobs: Iterable[State], root: Path) -> float:
    """Bytes of the data sets that have to be decoded first."""
    asked: dict[tuple[str, str, int], Run] = {}
    for job in open_jobs:
        sizes = [job.run.image_size] + ([job.protocol.side(job.run.image_size)] if isinstance(job.protocol, Finetune) else [])
        for size in sizes:
            asked.setdefault((job.run.dataset, job.run.split, data.facts(job.run.dataset).stored or size), job.run)
    gone = {
        key: run for key, run in asked.items()
        if not any(manifest.place(root).glob(f"{manifest.stem(run.dataset)}-{key[2]}-*.npy"))
    }  # fmt: skip
    return sum(cost.decoded_bytes(run, size) for (_, _, size), run in gone.items())


def _is_size_known(name: str) -> bool:
    """Can it be known here how many images a data set has?"""
    try:
        data.facts(name)
    except InputError:
        return False
    return True
