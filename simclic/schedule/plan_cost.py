"""What the open jobs of a plan will cost: device hours, wall time and disk, and where each price is from."""

import heapq
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simclic import data
from simclic.data import manifest
from simclic.errors import InputError
from simclic.experiment import Job, Knn, OnFeatures, Run
from simclic.schedule import cost
from simclic.schedule.cost import Price, Prices
from simclic.schedule.cost.prices import kind_of
from simclic.schedule.plan import Plan, PlanLine
from simclic.schedule.state import State
from simclic.schedule.work import group_by_run
from simclic.store.run_folder import RunFolder


@dataclass
class PlanCost:
    """What the open jobs of a plan cost. prices: by the name of a job.

    wall_seconds: until the last job ends, without waiting in a queue. disk_after: bytes that the jobs leave. disk_during: bytes
    at most while they run. unpriced_jobs: names of jobs on a folder of images that is not here.
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
        """Return the seconds of all devices that all jobs take together."""
        return sum(price.device_seconds for price in self.prices.values())

    def hours_of(self, jobs: Iterable[State]) -> float:
        """Return the device hours that those of these jobs take that are open."""
        return self.device_hours(sum(self.prices[job.name].device_seconds for job in jobs if job.name in self.prices))

    def device_hours(self, seconds: float) -> float:
        """Return the device hours of so many seconds of one process."""
        return seconds / 3600 / self.target.processes_per_device


def price_plan(job_plan: Plan, runs: Path, root: Path, target: cost.Target) -> PlanCost:
    """Return what the open jobs of a plan will cost. Raise InputError if the target's calibration cannot be read."""
    prices, costs, seconds = Prices(runs, target), PlanCost(target), defaultdict[str, float](float)
    jobs = job_plan.jobs.values()
    known = {name for name in {job.job.dataset for job in jobs} if _is_size_known(name)}
    for job in jobs:
        if job.state == "done" and job.job.dataset in known:
            prices.learn_from(job.run, job.protocol, job.record)
    open_jobs = [job for job in jobs if job.is_open and job.job.dataset in known]
    costs.unpriced_jobs = [job.name for job in jobs if job.is_open and job.job.dataset not in known]
    prices.learn_from_runs(kind_of(job.run, job.protocol) for job in open_jobs)
    priced = set[Path]()  # files of features
    for job in open_jobs:
        price = prices.price_job(job.run, job.protocol)
        seconds[price.source] += price.device_seconds
        if isinstance(job.protocol, OnFeatures) and job.run.backbone != "pixels":
            path = RunFolder(runs, job.run).features_path(job.protocol)
            if path not in priced and not path.exists():
                priced.add(path)
                extraction = prices.price_features(job.run, job.protocol)
                seconds[extraction.source] += extraction.seconds
                price = Price(price.seconds + extraction.seconds, price.source, extraction.seconds)
                costs.disk_after += cost.feature_bytes(job.job.evaluated)
        costs.prices[job.name] = price
    costs.seconds_by_source = dict(seconds)
    costs.wall_seconds = estimate_wall_seconds(open_jobs, costs) + (prices.rates.begin if open_jobs else 0.0)
    costs.disk_after += sum(cost.job_bytes(job.run, job.protocol) for job in open_jobs) + _decoded_bytes(open_jobs, root, target)
    temporary = (cost.temporary_bytes(job.run, job.protocol) for job in open_jobs)
    costs.disk_during = costs.disk_after + sum(heapq.nlargest(target.jobs_at_once, temporary))
    return costs


def estimate_wall_seconds(open_jobs: list[State], costs: PlanCost) -> float:
    """Return the seconds until all jobs are done, if whatever can start starts, the longest first."""
    target, names = costs.target, {job.name for job in open_jobs}
    pieces = defaultdict[str, float](float)  # what one process does in one go -> its seconds
    waiting = defaultdict[str, list[str]](list)  # an encoder -> the results that wait for it
    for job in open_jobs:
        pieces[job.run.name if target.one_process_per_run else job.name] += costs.prices[job.name].seconds
        if not target.one_process_per_run and job.protocol and job.job.encoder.name in names:
            waiting[job.job.encoder.name].append(job.name)
    blocked = {name for results in waiting.values() for name in results}
    ready = [(-seconds, name) for name, seconds in pieces.items() if name not in blocked]
    heapq.heapify(ready)
    now, running = 0.0, list[tuple[float, str]]()
    while ready or running:
        while ready and len(running) < target.jobs_at_once:
            seconds, name = heapq.heappop(ready)
            heapq.heappush(running, (now - seconds, name))
        now, name = heapq.heappop(running)
        for result in waiting.get(name, ()):
            heapq.heappush(ready, (-pieces[result], result))
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


def _decoded_bytes(open_jobs: Iterable[State], root: Path, target: cost.Target) -> float:
    """Return the bytes of the images that have to be decoded first."""
    jobs = [state.job for state in open_jobs]
    if target.watch_on:
        jobs += [Job(job.run, Knn(on=target.watch_on)) for job in jobs if not job.protocol and job.run.epochs]
    runs: dict[tuple[str, str, int, bool], Run] = {}
    for job in jobs:
        run, stored = job.evaluated, data.facts(job.dataset).stored
        for size, whole in job.image_sides if stored or target.decode == "once" else ():  # what lies in no file is decoded once
            runs.setdefault((run.dataset, run.split, stored or size, whole), run)
    folder = manifest.prepared_folder(root)
    missing = (key for key in runs if not any(folder.glob(f"{manifest.file_stem(key[0])}-{key[2]}-*.npy")))
    return sum(cost.decoded_bytes(runs[key], *key[2:]) for key in missing)


def _is_size_known(dataset: str) -> bool:
    with suppress(InputError):
        return bool(data.facts(dataset))
    return False
