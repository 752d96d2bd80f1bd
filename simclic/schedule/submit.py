"""Put on a cluster whatever is neither done nor in the queue, and return."""

import os
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
from simclic.schedule.pack import Array, Prices, arrays
from simclic.schedule.profile import Profile
from simclic.schedule.records import Launch
from simclic.schedule.state import job_state
from simclic.schedule.work import group_by_run
from simclic.store.claim import claimed, owner
from simclic.store.run_folder import RunFolder

LOCAL = "local"


@dataclass
class Submitted:
    """What was put into the queue, and what was not, with the reason."""

    arrays: list[tuple[Array, str]] = field(default_factory=list)  # with Slurm's number
    queued: int = 0  # jobs that were in the queue already
    failed: int = 0  # jobs that failed before and are left alone, with all that waits for them
    later: int = 0  # results of encoders that are made elsewhere: on this machine, or by Slurm
    folder: Path | None = None
    refused: str = ""  # Slurm's complaint
    left: list[Array] = field(default_factory=list)  # what that kept out


def submit(jobs: list[Job], profile: Profile, runs: Path, root: Path, retry: bool = False) -> Submitted:
    """Submit what is missing. jobs: results that are to be computed. retry: what failed before, too.

    Raises InputError if Slurm does not answer: nothing is submitted then, since what is in the queue is not known.
    """
    with claimed(records.place(runs), "submitting"):
        queued = in_queue(runs, profile.cluster)
        told = Submitted()
        encoders, results = _missing(jobs, runs, queued, profile.cluster, retry, told)
        if not encoders and not results:
            return told
        if profile.cluster == LOCAL:
            made = [Array("all", [[*encoders, *results]])]
        else:
            prices = Prices(runs, profile)
            prices.learn(jobs)
            waiting = {job.encoder: queued[job.encoder.name] for job in results if job.encoder.name in queued}
            made = arrays(encoders, results, waiting, profile, prices, _largest())
        launch = records.begin(made, profile, snapshot.take(records.place(runs)), runs, root)
        told.folder, before = launch.folder, _forgiven(runs, [*encoders, *results])
        (_start if profile.cluster == LOCAL else _sbatch)(launch, made, profile, told)
        out = {job.run.name for array in told.left for task in array.tasks for job in task}
        for path, content in before.items():
            if path.parent.name in out and not path.exists():  # it was not submitted after all
                files.write_bytes(path, content)
        return told


def in_queue(runs: Path, cluster: str = "slurm") -> dict[str, str]:
    """The names of jobs that wait or run, with the number of their task. Raises slurm.Silent.

    What can never start is cancelled, and so is what a submitter that was killed left incomplete."""
    found, known = records.launches(runs), dict[str, slurm.Job]()
    try:
        if cluster != LOCAL or any(launch.values["cluster"] != LOCAL for launch in found):
            known = slurm.queue()
    except slurm.Silent:
        if cluster != LOCAL:
            raise  # on this machine, with runs that came from a cluster, claims have to do
    lost = {title for launch in found for name in launch.sizes if not launch.number(name) for title in [launch.title(name)]}
    slurm.cancel({job.id for job in known.values() if job.name in lost})
    queued: dict[str, str] = {}
    stuck = set()
    for launch in found:
        alive = launch.values["cluster"] == LOCAL and owner(launch.folder) is not None
        for one in launch.tasks():
            job = known.get(one.id) if one.id else None
            job = job if job and job.name == launch.title(one.array) else None  # a Slurm set up afresh counts from 1 again
            if job and job.stuck:
                stuck.add(job.id)
            elif job or alive:
                over = one.state().get("failures", {})
                queued |= {name: one.id or LOCAL for name in one.names if name.split("/")[0] not in over}
    slurm.cancel(stuck)
    return queued


def _missing(
    jobs: list[Job], runs: Path, queued: dict[str, str], cluster: str, retry: bool, told: Submitted
) -> tuple[list[Job], list[Job]]:
    """Encoders and results to submit, and in `told` how many are not, and why."""
    encoders, results = list[Job](), list[Job]()
    for group in group_by_run(jobs):
        encoder, state = group[0].encoder, job_state(group[0].encoder, runs)
        made = state.state in (JobState.DONE, JobState.BROKEN)
        coming = "" if made else queued.get(encoder.name, "")
        failed = not coming and state.state == JobState.FAILED
        told.queued += bool(coming)
        if failed and not retry:
            told.failed += 1 + len(group)
            continue
        wanted = []
        for job in group:
            before = job_state(job, runs).state == JobState.FAILED
            if job.name in queued and (made or coming):  # else what it waits for has gone, and so will it
                told.queued += 1
            elif before and not retry:
                told.failed += 1
            elif before or failed or not retry:
                wanted.append(job)
        if coming and (coming == LOCAL) != (cluster == LOCAL):  # one cannot wait for the other
            told.later += len(wanted)
            continue
        if not made and not coming and (failed or not retry):
            encoders.append(encoder)
        results += wanted
    return encoders, results


def _forgiven(runs: Path, jobs: list[Job]) -> dict[Path, bytes]:
    """Forget the failures of what is submitted once more; returns what was forgotten."""
    paths = [RunFolder(runs, job.run).failure_path(job.stage if job.protocol else "pretrain") for job in jobs]
    before = {path: path.read_bytes() for path in paths if path.is_file()}
    for path in before:
        path.unlink(missing_ok=True)
    return before


def _largest() -> int:
    """How many tasks an array may have here."""
    text = slurm.settings().get("MaxArraySize", "")
    return max(1, int(text)) if text.isdigit() else 1001


def _sbatch(launch: Launch, made: list[Array], profile: Profile, told: Submitted) -> None:
    """One array after another, parents first. Where Slurm refuses one, the rest stays out and is named."""
    numbers: dict[int, str] = {}
    for i, array in enumerate(made):
        name = f"{array.stage}-{i}"
        parent = array.after if isinstance(array.after, str) else numbers[id(array.after)]
        try:
            with asking():
                executor = executor_for(profile, array.stage, launch.folder / name, launch.title(name), launch.code)
                executor.update_parameters(slurm_dependency=_after(array, parent))
                n = len(array.tasks)
                jobs = executor.map_array(task.run, [str(launch.folder)] * n, [name] * n, range(n))
        except InputError as e:
            told.refused, told.left = str(e), made[i:]
            return
        numbers[id(array)] = jobs[0].job_id.split("_")[0]
        launch.taken(name, numbers[id(array)])
        told.arrays.append((array, numbers[id(array)]))


def _after(array: Array, parent: str) -> str | None:
    if not parent:
        return None
    whole = isinstance(array.after, Array) and len(array.after.tasks) > 1
    return f"{'aftercorr' if whole else 'afterok'}:{parent}"


def executor_for(profile: Profile, stage: str, folder: Path, title: str, code: Path) -> Any:
    """submitit's executor for tasks of a stage: the profile's words, and ours.

    The working folder is the copy of the code, so that it is what Python finds first; srun does not take over --cpus-per-task.
    """
    import submitit

    given = dict(profile.stages[stage])
    given.pop("slurm_max_num_timeout", None)  # counted by the task itself
    executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_python=given.pop("slurm_python", None))
    more = {"chdir": str(code), "requeue": True, **given.pop("slurm_additional_parameters", {})}
    srun = list(given.pop("slurm_srun_args", []))
    if "cpus_per_task" in given and not any(str(word).startswith("--cpus-per-task") for word in srun):
        srun.append(f"--cpus-per-task={given['cpus_per_task']}")
    executor.update_parameters(**given, name=title, slurm_additional_parameters=more, slurm_srun_args=srun)
    return executor


@contextmanager
def asking() -> Iterator[None]:
    """To talk to sbatch through submitit: nothing of this environment leaks into a job, and a refusal is an InputError."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    before, kept = dict(os.environ), slurm.environment()
    for key in before.keys() - kept.keys():
        del os.environ[key]
    try:
        yield
    except (FailedJobError, FailedSubmissionError, OSError, ValueError, NameError, AssertionError) as e:
        said = [line.strip() for line in str(e).splitlines() if "error" in line.lower()]
        raise InputError(" ".join(said) or str(e).strip() or type(e).__name__) from e
    finally:
        os.environ |= before


def _start(launch: Launch, made: list[Array], profile: Profile, told: Submitted) -> None:
    """A process of its own on this machine, which goes on when this one and its terminal are gone."""
    name = next(iter(launch.sizes))
    with open(launch.folder / name / "log.err", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "simclic.schedule.task", str(launch.folder)], cwd=launch.code, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    for _ in range(600):
        if owner(launch.folder) or process.poll() is not None:
            break
        time.sleep(0.1)
    if process.poll() not in (None, 0):
        said = (launch.folder / name / "log.err").read_text().strip().splitlines()
        raise InputError(f"the process that was to do the work ended at once: {said[-1] if said else 'without a word'}")
    told.arrays.append((made[0], f"process {process.pid}"))
