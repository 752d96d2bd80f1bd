"""The state of a job: results on disk say most, then recorded failures, then claims, then what tasks and Slurm say."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simclic import slurm
from simclic.experiment import Job, JobState, Protocol, Run
from simclic.files import Broken
from simclic.schedule import records
from simclic.schedule.records import Task
from simclic.store.claim import owner
from simclic.store.run_folder import RunFolder


@dataclass(frozen=True)
class State:
    """What has become of a job. reason: of a failure, a stop or a wait. record: what the result or pretrain.json holds.

    note, left: of what runs, and the seconds that it may still take. speed: images per second of a pre-training. job_id, node,
    log: where it runs or ran, and the file with its messages.
    """

    job: Job
    state: JobState
    reason: str = ""
    record: Mapping[str, Any] = field(default_factory=dict, hash=False)
    note: str = ""
    left: float | None = None
    speed: float | None = None
    job_id: str = ""
    node: str = ""
    log: str = ""

    @property
    def run(self) -> Run:
        """Its Run."""
        return self.job.run

    @property
    def protocol(self) -> Protocol | None:
        """Its protocol, or None for an encoder."""
        return self.job.protocol

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    @property
    def stage(self) -> str:
        """The job's stage."""
        return self.job.stage

    @property
    def word(self) -> str:
        """The state in a word; a broken job is a failed one."""
        return JobState.FAILED if self.is_failed else self.state

    @property
    def full_reason(self) -> str:
        """The reason, with the stage that failed in front."""
        stage = self.stage if self.protocol else "pretrain"
        return f"{stage}: {self.reason}" if self.state == JobState.FAILED else self.reason

    @property
    def is_open(self) -> bool:
        """Is it still to be done?"""
        return self.state in (JobState.MISSING, JobState.FAILED)

    @property
    def is_failed(self) -> bool:
        """Did it fail, or is its file not to be trusted?"""
        return self.state in (JobState.FAILED, JobState.BROKEN)


def job_state(job: Job, runs: Path, queue: "Queue | None" = None, needed: bool = True, verify: bool = True) -> State:
    """Return the state of a job under `runs`.

    queue: what tasks and Slurm know of it; without it a job is done, failed, broken or missing. needed: an encoder that no open
    result needs counts as done. verify: compare the SHA-256 of results. Raise InputError for a run.json of another experiment.
    """
    state = _state_on_disk(job, RunFolder(runs, job.run), needed, verify)
    if state.state != JobState.MISSING or queue is None:
        return state
    return queue.state(job, job_state(job.encoder, runs, queue) if job.protocol else None)


def _state_on_disk(job: Job, folder: RunFolder, needed: bool, verify: bool) -> State:
    try:
        if job.protocol:
            record = folder.read_result(job.protocol, verify)
        else:
            folder.check_run_json()
            record = folder.encoder_record()
    except Broken as e:
        return State(job, JobState.BROKEN, str(e))
    if record is not None or not (job.protocol or needed):
        return State(job, JobState.DONE, record=record or {})
    if failure := folder.failure_record(job.stage if job.protocol else "pretrain"):
        job_id, log = str(failure.get("job", "")), str(failure.get("log", ""))
        return State(job, JobState.FAILED, str(failure.get("reason")), job_id=job_id, log=log)
    return State(job, JobState.MISSING)


class Queue:
    """What was submitted of some jobs, and what Slurm says of it, asked once. silent: what Slurm does not answer."""

    def __init__(self, runs: Path, jobs: Collection[Job]):
        self.runs, self.silent, self.tasks = runs, list[str](), dict[str, Task]()
        names = {job.name for job in jobs}
        for launch in records.launches(runs) if names else ():
            for task in launch.tasks():
                for name in names.intersection(task.names):
                    self.tasks.setdefault(name, task)  # the newest launch comes first
        self.slurm = self._ask({task.id: task.launch.title(task.array) for task in self.tasks.values() if task.id})

    def state(self, job: Job, encoder: State | None) -> State:
        """Return the state of a job of which nothing is on disk. encoder: the state of the one that it builds on."""
        task = self.tasks.get(job.name)
        state = self._of_task(task, job, encoder) if task else State(job, JobState.MISSING)
        if task is None and encoder is None and (holder := RunFolder(self.runs, job.run).owner()):
            where = holder.get("job") or f"process {holder['pid']}"
            state = State(job, JobState.RUNNING, node=holder["host"], job_id=where)
        waits = encoder is not None and encoder.state not in (JobState.DONE, JobState.MISSING)
        if encoder and waits and state.state not in (JobState.RUNNING, JobState.UNKNOWN):
            state = replace(state, state=JobState.WAITING, reason=_waits_for(encoder))
        if state.state == JobState.RUNNING and encoder is None:
            rows = RunFolder(self.runs, job.run).log_rows()
            note = f"epoch {rows[-1]['epoch']}/{job.run.epochs}" if rows else "before its first epoch"
            state = replace(state, note=state.note or note, speed=rows[-1].get("images/s") if rows else None)
        return state

    def _ask(self, titles: dict[str, str]) -> dict[str, slurm.Job] | None:
        """Return what Slurm knows of tasks; None if it does not answer.

        titles: what each is called, since numbers are given out again where a Slurm was set up afresh.
        """
        if not titles:
            return {}
        try:
            known = {i: job for i, job in slurm.queue().items() if titles.get(i) == job.name}
        except slurm.Silent as e:
            self.silent.append(f"{e}; what waits and what runs is not known, and nothing is taken for lost")
            return None
        try:
            ended = slurm.history({i.split("_")[0] for i in titles.keys() - known.keys()})
            return {**{i: job for i, job in ended.items() if titles.get(i) == job.name}, **known}
        except slurm.Silent as e:
            self.silent.append(f"{e}; why jobs left the queue is known only where they said so themselves")
            return known

    def _of_task(self, task: Task, job: Job, encoder: State | None) -> State:
        """Return what a task and Slurm say of one of its jobs."""
        report = task.state()
        state = State(job, JobState.STOPPED, job_id=task.id or "local", node=report.get("node", ""), log=str(task.messages()))
        if task.launch.is_local:
            known = slurm.Job("local", "RUNNING" if owner(task.launch.folder) else "")
        elif self.slurm is None:
            return replace(state, state=JobState.UNKNOWN)
        else:
            known = self.slurm.get(task.id) or slurm.Job(task.id, "")
            state = replace(state, node=known.node or state.node)
        if known.stuck:
            return replace(state, reason="what it waited for has failed", node="")
        if known.state == "PENDING":
            return replace(state, state=JobState.QUEUED, reason=known.reason, node="")
        if known.state and known.state not in slurm.ENDED:
            progress = report.get("jobs", {}).get(job.run.name)
            if progress and (encoder is None or encoder.state == JobState.DONE) and self._is_next(task, job):
                return replace(state, state=JobState.RUNNING, note=progress["note"], left=progress["left"])
            return replace(state, state=JobState.QUEUED, reason="next in its task")
        why = report.get("elsewhere", {}).get(job.run.name) or report.get("why") or ""
        if not why and report.get("word") == "running":
            why = "ended without a word"
        if known.state and known.state != "COMPLETED":
            why = f"{known.state} {known.reason}".strip() + (f"; {why}" if why else "")
        return replace(state, reason=why or "left the queue without a word")

    def _is_next(self, task: Task, job: Job) -> bool:
        """Is this the job of its Run that is at work? One after another, encoder first."""
        folder = RunFolder(self.runs, job.run).path
        names = [p["name"] for content in task.content if content["name"] == job.run.name for p in content["protocols"]]
        missing = [name for name in names if not (folder / f"{name}.json").exists()]
        return job.protocol is None or missing[:1] == [job.protocol.name]


def _waits_for(encoder: State) -> str:
    """What a result waits for: the name matters where somebody has to do something."""
    word = "failed" if encoder.is_failed else encoder.state
    if encoder.state in (JobState.QUEUED, JobState.RUNNING):
        return f"for its pre-training, which is {word}"
    return f"for {encoder.stage} {encoder.run.name}, which {'is' if encoder.state == JobState.UNKNOWN else 'has'} {word}"


def disk_states(jobs: Iterable[Job], runs: Path, verify: bool = True) -> dict[Job, State]:
    """Return the states of results and of their encoders as they are on disk, encoders before what builds on them."""
    results = {job: job_state(job, runs, verify=verify) for job in dict.fromkeys(jobs)}
    needed = {job.encoder for job, state in results.items() if state.is_open}
    states: dict[Job, State] = {}
    for job, state in results.items():
        if job.encoder not in states:
            states[job.encoder] = job_state(job.encoder, runs, needed=job.encoder in needed)
        states[job] = state
    return states
