"""The jobs that exhibits need, and which of them are shared, done, failed or missing. No torch, no pandas: it must be quick."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from simclic import data
from simclic.data.folder import is_path, list_other_spellings
from simclic.errors import InputError
from simclic.experiment import PROTOCOLS, Job, JobState, Suite
from simclic.experiment.baselines import not_imported
from simclic.schedule.state import State, job_states
from simclic.store.run_folder import RunFolder

STAGES = ("pretrain", "calibrate", *PROTOCOLS)


@dataclass
class PlanLine:
    """The numbers of jobs of one exhibit and stage. Shared jobs are counted in an earlier line and not again in the others."""

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
    """The jobs that exhibits ask for, and their states."""

    lines: list[PlanLine] = field(default_factory=list)
    jobs: dict[str, State] = field(default_factory=dict)  # by name, encoders before the results that need them
    exhibits: dict[str, list[str]] = field(default_factory=dict)  # by the name of a job, the titles of those that ask for it
    absent: dict[str, str] = field(default_factory=dict)  # data set or initial weights -> what is missing

    @property
    def open_results(self) -> list[Job]:
        """Return the results that are still to be computed."""
        return [state.job for state in self.jobs.values() if state.protocol and state.is_open]

    def list_datasets(self, jobs: Iterable[Job]) -> list[str]:
        """Return the data sets whose images must be there for these jobs, each once."""
        names = list[str]()
        for job in jobs:
            names += job.list_datasets(self.jobs[job.encoder.name].state == JobState.DONE)
        return list(dict.fromkeys(names))

    @property
    def job_problems(self) -> dict[str, str]:
        """Return by the name of a job why it failed or cannot be read."""
        return {name: job.full_reason for name, job in self.jobs.items() if job.reason}

    @property
    def broken_jobs(self) -> dict[str, str]:
        """Return by name the jobs whose files are damaged; they are left alone."""
        return {name: job.reason for name, job in self.jobs.items() if job.state == JobState.BROKEN}

    def sum_stages(self) -> list[PlanLine]:
        """Return a line per stage over all exhibits, and one over everything."""
        stages = [(s, [ln for ln in self.lines if ln.stage == s]) for s in STAGES]
        return [_sum_lines("all", s, lines) for s, lines in stages if lines] + [_sum_lines("all", "", self.lines)]


def plan(suites: Iterable[Suite], runs: Path, root: Path, verify: bool = True) -> Plan:
    """Compare what exhibits ask for with the results under `runs`. root: of the data sets. verify: check the SHA-256 of results.

    Raise InputError for an unknown data set, and for a run.json that disagrees with its Run.
    """
    job_plan, suites = Plan(), list(suites)
    job_plan.jobs = {
        job.name: state for job, state in job_states((j for s in suites for j in s.jobs), runs, verify=verify).items()
    }
    run_fields = dict.fromkeys(state.run for state in job_plan.jobs.values())
    used = job_plan.list_datasets(state.job for state in job_plan.jobs.values() if state.protocol)
    problems = {name: data.explain_missing(name, root) for name in used}
    problems |= {run.init: not_imported(runs, run.init) for run in run_fields} | _explain_spellings(job_plan, runs)
    job_plan.absent = {name: problem for name, problem in problems.items() if problem}
    for suite in suites:
        for exhibit in suite.exhibits:
            title = f"{suite.name} {exhibit.name}".strip()
            lines = {stage: PlanLine(title, stage) for stage in STAGES}
            for asked in dict.fromkeys((*(job.encoder for job in exhibit.jobs), *exhibit.jobs)):
                _count_job(lines[asked.stage], job_plan.jobs[asked.name], job_plan.exhibits.setdefault(asked.name, []))
                job_plan.exhibits[asked.name].append(title)
            job_plan.lines += [line for line in lines.values() if line.asked]
    return job_plan


def _explain_spellings(job_plan: Plan, runs: Path) -> dict[str, str]:
    """Return problems by data set: folders of images that the store, or an earlier job, writes otherwise and would do twice."""
    problems, earlier = dict[str, str](), set[str]()
    for name, state in job_plan.jobs.items():
        earlier.add(name)
        run, protocol = state.run, state.protocol
        images = protocol.on if protocol else run.dataset
        if state.state != JobState.MISSING or not is_path(images):
            continue
        for other in list_other_spellings(images):
            job = Job(run, replace(protocol, on=other)) if protocol else Job(replace(run, dataset=other))
            folder = RunFolder(runs, job.run)
            if job.name in earlier or (folder.has_result(job.protocol) if job.protocol else folder.path.exists()):
                problems[images] = f"{images}: the folder of {job.name}, which writes it {other!r}; write it so, too"
    return problems


def list_runnable_results(job_plan: Plan) -> list[Job]:
    """Return the open results whose data sets and initial weights exist. Raise InputError if there are only others."""
    jobs, absent = job_plan.open_results, job_plan.absent.keys()
    ready = [job for job in jobs if absent.isdisjoint((job.run.init, *job_plan.list_datasets([job])))]
    if jobs and not ready:
        raise InputError("\n".join(job_plan.absent.values()))
    return ready


def check_watched(job_plan: Plan, root: Path, watch_on: str) -> None:
    """Raise InputError if the data set is not there on which pre-trainings that are still to be done log the error of kNN."""
    trains = any(state.run.epochs and not state.protocol and state.is_open for state in job_plan.jobs.values())
    if watch_on and trains and (problem := data.explain_missing(watch_on, root)):
        raise InputError(f"watch_on={watch_on!r}: {problem}")


def _count_job(line: PlanLine, job: State, earlier: list[str]) -> None:
    """Count a job in a line. earlier: the exhibits before it that ask for the same job."""
    line.asked += 1
    if earlier:
        line.shared += 1
        return
    line.jobs.append(job)
    line.done += job.state == JobState.DONE
    line.failed += job.is_failed
    line.missing += job.state == JobState.MISSING


def _sum_lines(exhibit: str, stage: str, lines: list[PlanLine]) -> PlanLine:
    counts = {k: sum(getattr(ln, k) for ln in lines) for k in ("asked", "shared", "done", "failed", "missing")}
    return PlanLine(exhibit, stage, **counts, jobs=[job for line in lines for job in line.jobs])
