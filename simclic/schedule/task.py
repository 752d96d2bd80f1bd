"""Run one task of a launch on a node. Slurm may stop and restart it any number of times.

submitit calls `run_task`. Its own requeueing is not used: it would save inside a signal handler, between any two instructions,
and rewrite the file that the next start reads. Here a signal sets a flag, all work is saved after a step, and then the job is
requeued.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from simclic import slurm, stop
from simclic.errors import InputError
from simclic.experiment import Job, JobState
from simclic.files import CACHE
from simclic.schedule import snapshot
from simclic.schedule.processes import Outcome, Process, run_locally
from simclic.schedule.records import Launch, Task
from simclic.schedule.state import job_state
from simclic.schedule.task_ranks import RankOrders, serve_ranks
from simclic.schedule.work import WorkerOptions, fail_jobs, group_by_run
from simclic.store.claim import Busy, hold_claim
from simclic.store.run_files import LOG
from simclic.store.run_folder import RunFolder
from simclic.text import make_output_encodable

UNFINISHED = 75  # the exit code of an unfinished task
REPORT_SECONDS = 5.0  # between two progress reports of a task


def run_task(folder: str, array: str, index: int) -> None:
    """Run a task. Exit with 0 once all its jobs were tried; a failure is recorded in the folder of its Run."""
    make_output_encodable()
    stopped = stop.collect_signals()  # replaces submitit's handlers, which would requeue at once
    task, code = Launch(Path(folder)).find_task(array, index), 1
    try:
        code = _run_jobs(task, stopped)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        code = 78
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # without a handler, as Python ends, it would make a failure of the task
        if code not in (0, UNFINISHED) and slurm.task_of_job() == 0:
            _cancel_dependents(task)
    if code:
        sys.exit(code)


def _cancel_dependents(task: Task) -> None:
    """Cancel the tasks that wait for this one: in Slurm they would wait for ever."""
    numbers = [(a["name"], task.launch.slurm_number(a["name"])) for a in task.launch.values["arrays"] if a["after"] == task.array]
    with suppress(slurm.NoAnswer):
        slurm.cancel_jobs({f"{n}_{task.index}" if task.launch.sizes[name] > 1 else n for name, n in numbers if n})


def _remove_half_written(task: Task) -> None:
    """Delete what a killed submitit left of this job, which it would refuse to write again."""
    if job := slurm.current_job():
        for path in (task.launch.folder / task.array).glob(f"{job}_*.save_tmp"):
            path.unlink(missing_ok=True)


def _run_jobs(task: Task, stopped: list[int]) -> int:
    launch = task.launch
    tasks = 1 if launch.is_local or task.stage != "pretrain" else slurm.count_tasks()
    is_first = tasks == 1 or slurm.task_of_job() == 0
    if is_first:
        _remove_half_written(task)
    snapshot.check_running_copy(launch.code)
    # For the processes that it starts: the same code, and the log to name in recorded failures.
    os.environ[CACHE] = launch.values.get("cache", "")
    os.environ |= {"PYTHONPATH": str(launch.code), "PYTHONSAFEPATH": "1", LOG: str(task.messages(slurm.current_job()))}
    os.chdir(launch.values["cwd"])
    runs, root = Path(launch.values["runs"]), Path(launch.values["data"])
    jobs, report, options = task.parse_jobs(), TaskReport(task), WorkerOptions(runs, root, launch.compute, task.makes_encoders)
    options = replace(options, tasks=tasks)
    if not is_first:
        serve_ranks(task, options)
        return 0
    for job in jobs:  # after a requeue, each is tried again
        RunFolder(runs, job.run).forget_failure(job.failure_name)
    report.write_state("running")
    orders = RankOrders(task)
    try:
        outcome = run_locally(jobs, options, Console(width=120), report.write_progress, stopped, orders.share)
    finally:
        if tasks > 1:
            orders.end()
    for name, why in (outcome.failures | outcome.postponed).items():
        print(f"error: {name}: {why}", file=sys.stderr)
    for name, trace in outcome.crashes.items():
        print(f"{name}: {trace}", file=sys.stderr)
    if outcome.signal:
        return _stop_or_requeue(outcome.signal, report, runs, jobs)
    report.write_state("ended", outcome)
    return UNFINISHED if outcome.busy else 0


def _stop_or_requeue(number: int, report: "TaskReport", runs: Path, jobs: list[Job]) -> int:
    """Requeue the job if Slurm stops it for a time limit or a preemption; a cancelled job stays stopped. All is saved by now.

    Return the exit code: 0 if all was done when the signal came, UNFINISHED, or 1 if it gives up.
    """
    if not _list_unfinished(jobs, runs):
        report.write_state("ended")
        return 0
    if number != signal.SIGUSR2:
        why = explain_lost_task(report.task) or f"stopped by {signal.Signals(number).name}, as scancel does"
        report.write_state("stopped", why=why)
        return UNFINISHED
    if why := report.why_give_up():
        report.give_up(runs, jobs, why)
        return 1
    try:
        report.write_state("requeued", why="saved before a time limit or a preemption")
        slurm.requeue_this_job()
    except slurm.NoAnswer as e:
        print(f"error: could not be requeued ({e}); its work is saved: submit again", file=sys.stderr)
        report.write_state("stopped", why=f"saved, but could not be requeued ({e}); submit again")
    return UNFINISHED


def _list_unfinished(jobs: list[Job], runs: Path) -> list[Job]:
    return [job for job in jobs if job_state(job, runs, verify=False).state != JobState.DONE]


def explain_lost_task(task: Task) -> str:
    """Return which other task of this Slurm job ended before its time, so that srun stopped this one; else ""."""
    with suppress(OSError):
        for number, node, end in slurm.list_ended_tasks(task.messages(slurm.current_job()).read_text(errors="replace")):
            if number:
                return f"task {number} of this job on {node} ended: {end}; the work of the others is saved: submit again"
    return ""


class TaskReport:
    """The state file of a task: its progress, and what it recorded before it was stopped."""

    def __init__(self, task: Task):
        before = task.read_state()
        before = before if before.get("job") == slurm.current_job() else {}
        self.task, self.began, self.last = task, time.monotonic(), 0.0
        self.limits = task.launch.values["limits"].get(task.stage, {})
        self.timeouts, self.fruitless = (int(before.get(key, 0)) for key in ("timeouts", "fruitless"))
        self.progress_before = self._progress_text()

    def write_progress(self, running: list[Process], outcome: Outcome) -> None:
        """Write the progress of each process, every few seconds."""
        if time.monotonic() - self.last > REPORT_SECONDS:
            self.last = time.monotonic()
            jobs = {p.run.name: {"share": p.share, "note": p.note, "left": p.seconds_left} for p in running}
            self.write_state("running", outcome, jobs=jobs)

    def why_give_up(self) -> str:
        """Return why the task should not be requeued, or "". It gives up after as many time limits as the profile allows, or two
        in a row without progress. A preemption does not count; Slurm's signal may come a minute early."""
        minutes, delay = self.limits.get("minutes", 1e9), self.limits.get("signal", 90)
        if time.monotonic() - self.began < max(60 * minutes - delay - 90, 30 * minutes):
            return ""
        self.timeouts += 1
        self.fruitless = self.fruitless + 1 if self._progress_text() == self.progress_before else 0
        if self.fruitless >= 2:
            return f"made no progress in two time limits of {minutes:g} minutes; raise timeout_min in the profile"
        most = self.limits.get("timeouts")
        if most is not None and self.timeouts > most:
            return f"reached its time limit {self.timeouts} times, and slurm_max_num_timeout is {most}; raise it in the profile"
        return ""

    def give_up(self, runs: Path, jobs: list[Job], why: str) -> None:
        """Record a failure of every unfinished job."""
        print(f"error: {why}", file=sys.stderr)
        for group in group_by_run(_list_unfinished(jobs, runs)):
            fail_jobs(group, runs, why)
        self.write_state("failed", why=why)

    def write_state(
        self, word: str, outcome: Outcome | None = None, why: str = "", jobs: Mapping[str, Any] | None = None
    ) -> None:
        """Write the state of the task. jobs: the progress of each running Run."""
        outcome = outcome or Outcome()
        report = {
            "word": word, "why": why, "job": slurm.current_job(), "restarts": slurm.count_restarts(), "node": os.uname().nodename,
            "seconds": time.monotonic() - self.began, "timeouts": self.timeouts, "fruitless": self.fruitless,
            "jobs": jobs, "failures": outcome.failures, "elsewhere": outcome.postponed,
        }  # fmt: skip
        with suppress(OSError):  # a full disk must not end the work
            self.task.write_state(report)

    def _progress_text(self) -> str:
        """Return a text that changes when any job of the task makes progress."""
        runs, marks = Path(self.task.launch.values["runs"]), list[str]()
        for jobs in group_by_run(self.task.parse_jobs()):
            marks += RunFolder(runs, jobs[0].run).progress_fingerprint([job.protocol for job in jobs if job.protocol])
        return " ".join(marks)


def run_local_launch(folder: str, wait: Callable[[float], None] = time.sleep) -> None:
    """Run the one task of a launch on this machine, after all launches that were started here before."""
    launch = Launch(Path(folder))
    with hold_claim(launch.folder):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # survive the terminal that submitted it
        while True:
            try:
                with hold_claim(launch.folder.parent, "local"):
                    run_task(folder, next(iter(launch.sizes)), 0)
                    return
            except Busy:
                wait(1)


if __name__ == "__main__":
    run_local_launch(sys.argv[1])
