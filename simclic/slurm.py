"""Questions to Slurm: about this process, the queue, ended jobs and its settings."""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from simclic.errors import InputError

# A job in one of these states has ended; a requeued one goes back to PENDING.
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT",
}  # fmt: skip
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"}  # it starts, or starts again, once it may
REQUEUE_SECONDS = 60.0  # in which Slurm has to take a requeue; a profile's signal comes some 90 s before a time limit
NEVER = "DependencyNeverSatisfied"
# What sbatch says to more jobs, or a larger array, than its limits allow.
TOO_MANY = re.compile(r"SubmitJob|accounting/QOS policy|Invalid job array specification")


class NoAnswer(InputError):
    """Slurm or its accounting does not answer."""


@dataclass(frozen=True)
class Job:
    """One job, or one task of an array. id: "12" or "12_3". reason: why it waits. node: where it runs or ran."""

    id: str
    state: str
    reason: str = ""
    node: str = ""
    name: str = ""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits to start, for the first time or again."""
        return self.state in WAITING and not self.is_stuck

    @property
    def is_stuck(self) -> bool:
        """Whether it can never start, because the job that it depends on has failed."""
        return self.state == "PENDING" and self.reason == NEVER


def current_job() -> str:
    """Return the id of the job of this process as squeue shows it ("12" or "12_3"), or "" outside Slurm."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")


def count_restarts() -> int:
    """Return how often Slurm has restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def count_tasks() -> int:
    """Return the number of tasks of this job."""
    return int(os.environ.get("SLURM_NTASKS") or 1)


def task_of_job() -> int:
    """Return which task of its job this process is, from 0."""
    return int(os.environ.get("SLURM_PROCID") or 0)


def local_task() -> int:
    """Return which of the tasks on its node this process is, from 0."""
    return int(os.environ.get("SLURM_LOCALID") or 0)


def read_queue() -> dict[str, Job]:
    """Return all unfinished jobs of this user, each array task on its own. Raise NoAnswer."""
    text = _run_command("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%T|%r|%N|%j")
    rows = (line.split("|", 4) for line in text.splitlines())
    return {i: Job(i, state, reason, node, name) for i, state, reason, node, name in rows if state not in ENDED}


def read_history(ids: set[str]) -> dict[str, Job]:
    """Return the accounting records of jobs, given as whole arrays ("12"). The last start of a task counts. Raise NoAnswer."""
    if not ids:
        return {}
    fields = "--format=JobID,State,NodeList,JobName"
    text = _run_command("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(sorted(ids))}", fields)
    jobs = {}
    for line in text.splitlines():
        i, state, node, name = line.split("|")
        word = state.split()[0] if state else ""
        jobs[i] = Job(i, word, state.removeprefix(word).strip(), "" if node == "None assigned" else node, name)
    return jobs


def is_job_alive(job_id: str) -> bool | None:
    """Return whether a job of any user is pending or running; None if that is unknown here."""
    if not re.fullmatch(r"\d+(_\d+)?", job_id):
        return None
    try:
        state = _run_command("squeue", "--noheader", f"--jobs={job_id}", "--format=%T").split()
    except NoAnswer as e:
        return False if "Invalid job id" in str(e) else None
    return any(word not in ENDED for word in state)


def read_settings() -> dict[str, str]:
    """Return the settings that `scontrol show config` prints. Raise NoAnswer."""
    rows = (line.split("=", 1) for line in _run_command("scontrol", "show", "config").splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in rows}


def cancel_jobs(ids: set[str]) -> None:
    """Cancel jobs; jobs that have already ended are ignored. Raise NoAnswer."""
    if ids:
        _run_command("scancel", "--quiet", *sorted(ids))


def cancel_jobs_named(name: str) -> None:
    """Cancel this user's jobs of a name, if there are any. Raise NoAnswer."""
    _run_command("scancel", "--quiet", f"--user={os.getuid()}", f"--name={name}")


def list_ended_tasks(log: str) -> list[tuple[int, str, str]]:
    """Return number, node and end of each task that ended before its time, as srun wrote to a log. Those that it stops then do
    not count."""
    ends = list[tuple[int, str, str]]()
    for node, numbers, end in re.findall(r"^srun: error: (\S+): tasks? ([\d,-]+): (?!Terminated)(.+)$", log, re.M):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", numbers):
            ends += [(number, node, end) for number in range(int(first), int(last or first) + 1)]
    return ends


def requeue_this_job() -> None:
    """Requeue the job of this process; Slurm then ends the process. A Slurm that does not answer is asked again for a minute.
    Raise NoAnswer."""
    # Slurm signals every process of the job when another task ends; scontrol, which has its work before it, ignores it as well.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGUSR2)}
    ends = time.monotonic() + REQUEUE_SECONDS
    try:
        while True:
            try:
                _run_command("scontrol", "requeue", current_job())
                return
            except NoAnswer:
                if time.monotonic() > ends:
                    raise
                time.sleep(5)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def clean_environment() -> dict[str, str]:
    """Return the environment without the variables that change a job: SBATCH_* overrides a profile, SLURM_* is another job's."""
    leaks = ("SBATCH_", "SLURM_", "SRUN_")
    allowed = {"SLURM_CONF", "SLURM_TIME_FORMAT"}
    return {k: v for k, v in os.environ.items() if k in allowed or not k.startswith(leaks)}


def _run_command(*command: str) -> str:
    """Return the output of a Slurm command. Raise NoAnswer with its error message."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=clean_environment())
    except FileNotFoundError:
        raise NoAnswer(f"{command[0]}: not found; is this a machine that can reach a Slurm cluster?") from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command[0]}: no answer in two minutes") from None
    except subprocess.CalledProcessError as e:
        complaints = (e.stderr or e.stdout or "").strip().splitlines()
        raise NoAnswer(f"{Path(command[0]).name}: {complaints[-1] if complaints else f'exit code {e.returncode}'}") from None
    return done.stdout
