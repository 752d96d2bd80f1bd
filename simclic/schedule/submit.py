"""Submit all jobs that are neither done nor in the queue."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simclic import files, slurm
from simclic.errors import InputError
from simclic.experiment import Job, JobState
from simclic.schedule import records, snapshot, task
from simclic.schedule.profile import Profile
from simclic.schedule.records import LOCAL, Launch
from simclic.schedule.state import Queue, job_state
from simclic.schedule.task_arrays import Array, Prices, cut_arrays, pack_arrays
from simclic.schedule.work import group_by_run
from simclic.store.claim import find_owner, hold_claim
from simclic.store.run_folder import RunFolder


@dataclass
class Submitted:
    """The jobs that were submitted, and those that were not, with the reason."""

    arrays: list[tuple[Array, str]] = field(default_factory=list)  # with the Slurm id
    queued: int = 0  # jobs that are in the queue already
    failed: int = 0  # jobs that failed before, and those that wait for them; not submitted
    later: int = 0  # results whose encoders another launch trains
    folder: Path | None = None
    refused: str = ""  # the error message of sbatch
    cut: int = 0  # the number of tasks that arrays were cut to, because Slurm took no larger ones; 0 if they were not cut
    not_submitted: list[Array] = field(default_factory=list)  # the arrays that Slurm did not take


def submit_jobs(jobs: list[Job], profile: Profile, runs: Path, root: Path, retry: bool = False) -> Submitted:
    """Submit the missing jobs. jobs: the wanted results. retry: submit failed jobs again, and only those.

    Raise InputError, with nothing submitted, if Slurm does not answer, because the content of its queue is then unknown.
    """
    is_local = profile.cluster == LOCAL
    with hold_claim(records.launches_folder(runs), "submitting"):
        submitted, queue = Submitted(), Queue(runs, {each for job in jobs for each in (job.encoder, job)}, profile.cluster)
        if not is_local or not all(launch.is_local for launch in queue.launches):
            cancel_lost(queue)
        encoders, results = choose_jobs(jobs, queue, retry, submitted)
        if not encoders and not results:
            return submitted
        if is_local:
            to_submit = [Array("all", [[*encoders, *results]])]
        else:
            prices = Prices(runs, profile)
            prices.learn_from_runs(jobs)
            numbers = {job.encoder: number for job in results if (number := queue.task_number(job.encoder))}
            largest = slurm.read_settings().get("MaxArraySize", "")
            to_submit = pack_arrays(
                encoders, results, numbers, profile, prices, max(1, int(largest)) if largest.isdigit() else 1001
            )
        launch = records.write_launch(to_submit, profile, snapshot.copy_code(records.launches_folder(runs)), runs, root)
        submitted.folder, failures = launch.folder, forget_failures([*encoders, *results], runs)
        (_start_local_launch if is_local else _submit_arrays)(launch, to_submit, profile, submitted)
        refused = {job.run.name for array in submitted.not_submitted for task in array.tasks for job in task}
        for path, content in failures.items():
            if path.parent.name in refused and not path.exists():
                files.write_bytes(path, content)
        return submitted


def cancel_lost(queue: Queue) -> None:
    """Cancel jobs that can never start, and incomplete launches of a killed submitter. Raise slurm.NoAnswer."""
    known = (queue.slurm_jobs or {}).values()
    names = [(launch.slurm_name(array), bool(launch.slurm_number(array))) for launch in queue.launches for array in launch.sizes]
    incomplete = {name for name, has_number in names if not has_number}
    titles = {name for name, _ in names}
    slurm.cancel_jobs({job.id for job in known if job.name in incomplete or (job.is_stuck and job.name in titles)})


def choose_jobs(jobs: list[Job], queue: Queue, retry: bool, submitted: Submitted) -> tuple[list[Job], list[Job]]:
    """Return the encoders and results to submit. Count the others in `submitted`, by reason."""
    encoders, results = list[Job](), list[Job]()
    for group in group_by_run(jobs):
        encoder = job_state(group[0].encoder, queue.runs, queue)
        is_made = encoder.state in (JobState.DONE, JobState.BROKEN)
        number = "" if is_made else queue.task_number(encoder.job)
        has_failed = not number and encoder.state == JobState.FAILED
        submitted.queued += bool(number)
        if has_failed and not retry:
            submitted.failed += 1 + len(group)
            continue
        chosen = []
        for job in group:
            failed_before = job_state(job, queue.runs, queue).state == JobState.FAILED
            if (is_made or number) and queue.task_number(job):  # otherwise its task waits for an encoder that never comes
                submitted.queued += 1
            elif failed_before and not retry:
                submitted.failed += 1
            elif failed_before or has_failed or not retry:
                chosen.append(job)
        if number and (number == LOCAL) != (queue.cluster == LOCAL):  # one cannot wait for the other
            submitted.later += len(chosen)
            continue
        if not is_made and not number and (has_failed or not retry):
            encoders.append(encoder.job)
        results += chosen
    return encoders, results


def forget_failures(jobs: list[Job], runs: Path) -> dict[Path, bytes]:
    """Delete the recorded failures of jobs that are submitted again. Return their content."""
    paths = [RunFolder(runs, job.run).failure_path(job.failure_name) for job in jobs]
    failures = {path: path.read_bytes() for path in paths if path.is_file()}
    for path in failures:
        path.unlink(missing_ok=True)
    return failures


def _submit_arrays(launch: Launch, to_submit: list[Array], profile: Profile, submitted: Submitted) -> None:
    """Submit one array after another, parents first. If Slurm refuses one, the rest is not submitted and is named.

    What is too large for Slurm is cut: only a refusal tells of limits such as MaxSubmitJobs, whatever they belong to.
    """
    numbers, may_cut = dict[int, str](), True
    while (i := len(numbers)) < len(to_submit):
        array = to_submit[i]
        name, n = f"{array.stage}-{i}", len(array.tasks)
        parent = array.after if isinstance(array.after, str) else numbers[id(array.after)]
        each = isinstance(array.after, Array) and len(array.after.tasks) > 1  # task by task
        try:
            with talk_to_sbatch():
                executor = executor_for(profile, array.stage, launch.folder / name, launch.slurm_name(name), launch.code)
                executor.update_parameters(slurm_dependency=f"{'aftercorr' if each else 'afterok'}:{parent}" if parent else None)
                jobs = executor.map_array(task.run_task, [str(launch.folder)] * n, [name] * n, range(n))
        except InputError as e:
            if may_cut and n > 1 and not isinstance(array.after, Array) and slurm.TOO_MANY.search(str(e)):
                submitted.cut = max(1, n // (2 * sum(other is array or other.after is array for other in to_submit)))
                to_submit[i:] = cut_arrays(to_submit[i:], submitted.cut)
                launch = records.write_arrays(launch.folder, launch.values, to_submit)
                continue
            submitted.refused, submitted.not_submitted = str(e), to_submit[i:]
            return
        may_cut = not submitted.cut  # further cuts would only fill up what is left of the limit
        numbers[id(array)] = jobs[0].job_id.split("_")[0]
        launch.write_slurm_number(name, numbers[id(array)])
        submitted.arrays.append((array, numbers[id(array)]))


def executor_for(profile: Profile, stage: str, folder: Path, title: str, code: Path) -> Any:
    """Return submitit's executor for the tasks of a stage, with the profile's parameters and ours.

    The working folder is the copy of the code, so that Python finds it first. srun needs --cpus-per-task again.
    """
    import submitit

    given = dict(profile.stages[stage])
    given.pop("slurm_max_num_timeout", None)  # counted by the task itself
    # Without the trap, a signal before Python can handle it would end the task, and the job would not be requeued.
    python = f"""sh -c 'trap "" USR2; exec "$@"' sh {given.pop("slurm_python", shlex.quote(sys.executable))}"""
    executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_python=python)
    more = {"chdir": str(code), "requeue": True, **given.pop("slurm_additional_parameters", {})}
    srun = list(given.pop("slurm_srun_args", []))
    if "cpus_per_task" in given and not any(str(word).startswith("--cpus-per-task") for word in srun):
        srun.append(f"--cpus-per-task={given['cpus_per_task']}")
    if profile.tasks(stage) > 1:
        srun.append("--kill-on-bad-exit=1")  # a task that waits for others must not outlive them
    executor.update_parameters(**given, name=title, slurm_additional_parameters=more, slurm_srun_args=srun)
    return executor


@contextmanager
def talk_to_sbatch() -> Iterator[None]:
    """Call sbatch through submitit with a clean environment. Turn a refusal into an InputError."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    before = dict(os.environ)
    for key in before.keys() - slurm.clean_environment().keys():
        del os.environ[key]
    try:
        yield
    except (FailedJobError, FailedSubmissionError, OSError, ValueError, NameError, AssertionError) as e:
        complaints = [line.strip() for line in str(e).splitlines() if "error" in line.lower()]
        raise InputError(" ".join(complaints) or str(e).strip() or type(e).__name__) from e
    finally:
        os.environ |= before


def _start_local_launch(launch: Launch, to_submit: list[Array], profile: Profile, submitted: Submitted) -> None:
    """Start a launch as a process on this machine that outlives this process and its terminal."""
    name = next(iter(launch.sizes))
    with open(launch.folder / name / "log.err", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "simclic.schedule.task", str(launch.folder)], cwd=launch.code, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    for _ in range(600):
        if find_owner(launch.folder) or process.poll() is not None:
            break
        time.sleep(0.1)
    if process.poll() not in (None, 0):
        lines = (launch.folder / name / "log.err").read_text().strip().splitlines()
        raise InputError(f"the worker process ended at once: {lines[-1] if lines else 'it printed no reason'}")
    submitted.arrays.append((to_submit[0], f"process {process.pid}"))
