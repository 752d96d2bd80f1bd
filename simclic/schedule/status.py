"""The state of every job of some exhibits, from results, tasks and Slurm."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from simclic import data
from simclic.experiment import Job, JobState, Suite
from simclic.schedule.state import Queue, State, job_states

SHOWN = ("done", "running", "queued", "waiting", "failed", "stopped", "unknown", "missing")  # a broken result counts as failed


@dataclass
class States:
    """The states of all jobs of some exhibits. lines: (exhibit, stage) -> its jobs, including those of earlier lines. silent:
    the questions that Slurm did not answer."""

    lines: dict[tuple[str, str], list[Job]] = field(default_factory=dict)
    jobs: dict[Job, State] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)

    def count_states(self, jobs: Iterable[Job]) -> dict[str, int]:
        """Return the number of jobs in each state of SHOWN."""
        counts = dict.fromkeys(SHOWN, 0)
        for job in jobs:
            counts[self.jobs[job].status_word] += 1
        return counts


def read_states(suites: Iterable[Suite], runs: Path, root: Path) -> States:
    """Return the state of every job. root: folder of the data sets. Raise InputError for a run.json of another Run."""
    lines = dict[tuple[str, str], dict[Job, None]]()
    for suite in suites:
        for exhibit in suite.exhibits:
            for job in (job for result in exhibit.jobs for job in (result.encoder, result)):
                lines.setdefault((f"{suite.name} {exhibit.name}".strip(), job.stage), {})[job] = None
    jobs = dict.fromkeys(job for line in lines.values() for job in line)
    queue = Queue(runs, jobs)
    states = job_states((job for job in jobs if job.protocol), runs, queue, verify=False)  # the report verifies; this is quick
    missing = [job for job, state in states.items() if state.state == JobState.MISSING]
    absent = {name: data.explain_missing(name, root) for name in dict.fromkeys(job.run.dataset for job in missing)}
    states |= {job: replace(states[job], reason=absent[job.run.dataset]) for job in missing}
    return States({place: list(line) for place, line in lines.items()}, states, queue.silent)
