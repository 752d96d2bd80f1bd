"""What has become of every job that exhibits ask for, with what tasks and Slurm say."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from simclic import data
from simclic.experiment import Job, JobState, Suite
from simclic.schedule.state import Queue, State, disk_states

SHOWN = ("done", "running", "queued", "waiting", "failed", "stopped", "unknown", "missing")  # a broken job counts as failed


@dataclass
class States:
    """All jobs that exhibits ask for. lines: (exhibit, stage) -> its jobs, with those of earlier lines. silent: what Slurm does
    not answer, and what is therefore not known."""

    lines: dict[tuple[str, str], list[Job]] = field(default_factory=dict)
    jobs: dict[Job, State] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)

    def counts(self, jobs: Iterable[Job]) -> dict[str, int]:
        """How many jobs there are of each state in SHOWN."""
        counts = dict.fromkeys(SHOWN, 0)
        for job in jobs:
            counts[self.jobs[job].word] += 1
        return counts


def states(suites: Iterable[Suite], runs: Path, root: Path) -> States:
    """Look at everything; data sets are looked for under `root`. Raises InputError for a run.json that disagrees with its Run."""
    found, lines = States(), dict[tuple[str, str], dict[Job, None]]()
    for suite in suites:
        for exhibit in suite.exhibits:
            for job in (one for result in exhibit.jobs for one in (result.encoder, result)):
                lines.setdefault((f"{suite.name} {exhibit.name}".strip(), job.stage), {})[job] = None
    found.lines = {at: list(jobs) for at, jobs in lines.items()}
    results = [job for jobs in found.lines.values() for job in jobs if job.protocol]
    found.jobs = disk_states(results, runs, verify=False)  # the report verifies; this has to be quick
    missing = [job for job, state in found.jobs.items() if state.state == JobState.MISSING]
    queue = Queue(runs, missing)
    absent = {name: data.missing(name, root) for name in dict.fromkeys(job.run.dataset for job in missing)}
    for job in missing:  # encoders first: results wait for them
        state = queue.state(job, found.jobs[job.encoder] if job.protocol else None)
        without_data = absent[job.run.dataset] if state.state == JobState.MISSING else ""
        found.jobs[job] = replace(state, reason=without_data) if without_data else state
    found.silent = queue.silent
    return found
