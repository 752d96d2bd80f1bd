"""Exhibits -> the jobs they need: asked, shared, done, failed, missing. Neither torch nor pandas, so it answers at once."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from simclic import data
from simclic.errors import InputError
from simclic.experiment import Job, JobState, Suite
from simclic.experiment.baselines import not_imported
from simclic.schedule.state import State, job_states

STAGES = ("pretrain", "calibrate", "linear", "finetune")


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
    jobs: list[State] = field(default_factory=list)  # those that are not shared


@dataclass
class Plan:
    """What the exhibits ask for and what is left to do."""

    lines: list[Line] = field(default_factory=list)
    jobs: dict[str, State] = field(default_factory=dict)  # by their names, encoders before what needs them
    exhibits: dict[str, list[str]] = field(default_factory=dict)  # by the name of a job, those that ask for it
    absent: dict[str, str] = field(default_factory=dict)  # data set or starting point -> what of it is not there

    @property
    def open_results(self) -> list[Job]:
        """The results that are still to be computed."""
        return [state.job for state in self.jobs.values() if state.protocol and state.is_open]

    @property
    def reasons(self) -> dict[str, str]:
        """By the name of a job, why it failed or cannot be read."""
        return {name: job.full_reason for name, job in self.jobs.items() if job.reason}

    @property
    def broken(self) -> dict[str, str]:
        """Of those, the jobs whose files cannot be trusted: left alone."""
        return {name: job.reason for name, job in self.jobs.items() if job.state == JobState.BROKEN}

    def totals(self) -> list[Line]:
        """One line per stage over all exhibits, and one over everything."""
        stages = [(s, [ln for ln in self.lines if ln.stage == s]) for s in STAGES]
        return [_sum("all", s, lines) for s, lines in stages if lines] + [_sum("all", "", self.lines)]


def plan(suites: Iterable[Suite], runs: Path, root: Path, verify: bool = True) -> Plan:
    """Compare what exhibits ask for with what lies under `runs`; data sets lie under `root`. verify: as in store.result.

    Raises InputError for an unknown data set, and for a run.json that disagrees with its Run.
    """
    made, suites = Plan(), list(suites)
    made.jobs = {job.name: state for job, state in job_states((j for s in suites for j in s.jobs), runs, verify=verify).items()}
    run_fields = dict.fromkeys(state.run for state in made.jobs.values())
    found = {run.dataset: data.missing(run.dataset, root) for run in run_fields}
    found |= {run.init: not_imported(runs, run.init) for run in run_fields}
    made.absent = {name: problem for name, problem in found.items() if problem}
    for suite in suites:
        for exhibit in suite.exhibits:
            title = f"{suite.name} {exhibit.name}".strip()
            lines = {stage: Line(title, stage) for stage in STAGES}
            for asked in dict.fromkeys((*(job.encoder for job in exhibit.jobs), *exhibit.jobs)):
                _count(lines[asked.stage], made.jobs[asked.name], made.exhibits.setdefault(asked.name, []))
                made.exhibits[asked.name].append(title)
            made.lines += [line for line in lines.values() if line.asked]
    return made


def runnable(made: Plan) -> list[Job]:
    """The results to compute whose data set and starting point are there. Raises InputError if that leaves nothing of them."""
    jobs = made.open_results
    ready = [job for job in jobs if job.run.dataset not in made.absent and job.run.init not in made.absent]
    if jobs and not ready:
        raise InputError("\n".join(made.absent.values()))
    return ready


def _count(line: Line, job: State, earlier: list[str]) -> None:
    """Count a job in a line of an exhibit. earlier: the exhibits before it that ask for the same job."""
    line.asked += 1
    if earlier:
        line.shared += 1
        return
    line.jobs.append(job)
    line.done += job.state == JobState.DONE
    line.failed += job.is_failed
    line.missing += job.state == JobState.MISSING


def _sum(exhibit: str, stage: str, lines: list[Line]) -> Line:
    counts = {k: sum(getattr(ln, k) for ln in lines) for k in ("asked", "shared", "done", "failed", "missing")}
    return Line(exhibit, stage, **counts, jobs=[job for line in lines for job in line.jobs])
