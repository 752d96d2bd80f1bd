"""Exhibits -> the jobs they need: asked, shared, done, failed, missing. Neither torch nor pandas, so it answers at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simclic import data
from simclic.errors import InputError
from simclic.experiment import Job, Protocol, Run, Suite
from simclic.experiment.baselines import not_imported
from simclic.files import Broken
from simclic.store.run_folder import RunFolder

STAGES = ("pretrain", "calibrate", "linear", "finetune")


@dataclass
class PlannedJob:
    """One encoder, or one result under a protocol. state: done, failed, broken or missing, and why. needs: the encoder's job.

    exhibits: the names of those that ask for it. record: what pretrain.json or the result holds, once there is one.
    """

    run: Run
    protocol: Protocol | None
    state: str = "missing"
    reason: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    exhibits: list[str] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """One of STAGES."""
        return self.protocol.stage if self.protocol else "pretrain" if self.run.epochs else "calibrate"

    @property
    def name(self) -> str:
        """The Run's folder, and in it the result or what makes the encoder."""
        return f"{self.run.name}/{self.protocol.name if self.protocol else self.stage}"

    @property
    def needs(self) -> str:
        """The name of the job that makes its encoder."""
        return Job(self.run).name if self.protocol else ""

    @property
    def left(self) -> bool:
        """Is it still to be done?"""
        return self.state in ("missing", "failed")


@dataclass
class Line:
    """One exhibit and stage. `shared` jobs stand in an earlier line too; of the others, so many are done, failed, missing."""

    exhibit: str
    stage: str
    asked: int = 0
    shared: int = 0
    done: int = 0
    failed: int = 0
    missing: int = 0
    jobs: list[PlannedJob] = field(default_factory=list)  # those that are not shared


@dataclass
class Plan:
    """What the exhibits ask for and what is left to do: each Run with the protocols whose result is missing."""

    lines: list[Line] = field(default_factory=list)
    jobs: dict[str, PlannedJob] = field(default_factory=dict)  # by their names, encoders before what needs them
    absent: dict[str, str] = field(default_factory=dict)  # data set or starting point -> what of it is not there

    @property
    def work(self) -> list[tuple[Run, tuple[Protocol, ...]]]:
        """Each Run with the protocols whose result is missing."""
        left: dict[Run, list[Protocol]] = {}
        for job in self.jobs.values():
            if job.protocol and job.left:
                left.setdefault(job.run, []).append(job.protocol)
        return [(run, tuple(protocols)) for run, protocols in left.items()]

    @property
    def reasons(self) -> dict[str, str]:
        """By the name of a job, why it failed or cannot be read."""
        return {name: job.reason for name, job in self.jobs.items() if job.reason}

    @property
    def broken(self) -> dict[str, str]:
        """Of those, the jobs whose files cannot be trusted: left alone."""
        return {name: job.reason for name, job in self.jobs.items() if job.state == "broken"}

    def totals(self) -> list[Line]:
        """One line per stage over all exhibits, and one over everything."""
        stages = [(s, [ln for ln in self.lines if ln.stage == s]) for s in STAGES]
        return [_sum("all", s, lines) for s, lines in stages if lines] + [_sum("all", "", self.lines)]


def plan(suites: Iterable[Suite], runs: Path, root: Path, verify: bool = True) -> Plan:
    """Compare what exhibits ask for with what lies under `runs`; data sets lie under `root`. verify: as in store.result.

    Raises InputError for an unknown data set, and for a run.json that disagrees with its Run.
    """
    made, suites = Plan(), list(suites)
    results: dict[Run, dict[Protocol, PlannedJob]] = {}
    for asked in dict.fromkeys(job for suite in suites for job in suite.jobs):
        run, protocol = asked.run, asked.protocol
        assert protocol is not None  # an exhibit shows results
        results.setdefault(run, {})[protocol] = PlannedJob(run, protocol, *look(runs, run, protocol, verify))
    for run, those in results.items():
        encoder = PlannedJob(run, None, *look_at_encoder(runs, run, needed=any(job.left for job in those.values())))
        made.jobs |= {job.name: job for job in (encoder, *those.values())}
    found = {run.dataset: data.missing(run.dataset, root) for run in results}
    found |= {run.init: not_imported(runs, run.init) for run in results}
    made.absent = {name: problem for name, problem in found.items() if problem}
    for suite in suites:
        for exhibit in suite.exhibits:
            title = f"{suite.name} {exhibit.name}".strip()
            lines = {stage: Line(title, stage) for stage in STAGES}
            for asked in dict.fromkeys((*(job.encoder for job in exhibit.jobs), *exhibit.jobs)):
                _count(lines[asked.stage], made.jobs[asked.name], title)
            made.lines += [line for line in lines.values() if line.asked]
    return made


Looked = tuple[str, str, Mapping[str, Any]]


def look(runs: Path, run: Run, protocol: Protocol, verify: bool = True) -> Looked:
    """The state of one result (done, failed, broken, missing), why, and the record. verify: as in store.result."""
    try:
        if (found := RunFolder(runs, run).read_result(protocol, verify)) is not None:
            return "done", "", found
    except Broken as e:
        return "broken", str(e), {}
    reason = RunFolder(runs, run).failure(protocol.stage)
    return ("failed", reason, {}) if reason else ("missing", "", {})


def look_at_encoder(runs: Path, run: Run, needed: bool) -> Looked:
    """The state of an encoder; one that no missing result needs counts as done."""
    try:
        RunFolder(runs, run).check_run_json()
        made = RunFolder(runs, run).encoder_record()
        if not needed or made is not None:
            return "done", "", made or {}
    except Broken as e:
        return "broken", str(e), {}
    reason = RunFolder(runs, run).failure("pretrain")
    return ("failed", reason, {}) if reason else ("missing", "", {})


def runnable(made: Plan) -> list[tuple[Run, tuple[Protocol, ...]]]:
    """The work whose data set and starting point are there. Raises InputError if that leaves nothing of what is missing."""
    work = made.work
    ready = [(run, ps) for run, ps in work if run.dataset not in made.absent and run.init not in made.absent]
    if work and not ready:
        raise InputError("\n".join(made.absent.values()))
    return ready


def _count(line: Line, job: PlannedJob, exhibit: str) -> None:
    line.asked += 1
    if job.exhibits:
        line.shared += 1
        job.exhibits.append(exhibit)
        return
    job.exhibits.append(exhibit)
    line.jobs.append(job)
    line.done += job.state == "done"
    line.failed += job.state in ("failed", "broken")
    line.missing += job.state == "missing"


def _sum(exhibit: str, stage: str, lines: list[Line]) -> Line:
    counts = {k: sum(getattr(ln, k) for ln in lines) for k in ("asked", "shared", "done", "failed", "missing")}
    return Line(exhibit, stage, **counts, jobs=[job for line in lines for job in line.jobs])
