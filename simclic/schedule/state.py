"""The state of a job: from its result, else a recorded failure, else a claim, else its task and Slurm."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from simclic import data, slurm
from simclic.experiment import Job, JobState, Protocol, Run, Suite
from simclic.files import Broken
from simclic.schedule import records
from simclic.schedule.records import LOCAL, Task
from simclic.store.claim import find_owner
from simclic.store.run_folder import RunFolder

SHOWN = ("done", "running", "queued", "waiting", "failed", "stopped", "unknown", "missing")  # a broken result counts as failed


@dataclass(frozen=True)
class State:
    """The state of a job. reason: of a failure, a stop or a wait. record: the content of the result or pretrain.json.

    note, seconds_left: the progress of a running job; the note of a requeued one says why. speed: images per second of a
    pre-training. job_id, node, log: where it runs or ran, and its log file.
    """

    job: Job
    state: JobState
    reason: str = ""
    record: Mapping[str, Any] = field(default_factory=dict, hash=False)
    note: str = ""
    seconds_left: float | None = None
    speed: float | None = None
    job_id: str = ""
    node: str = ""
    log: str = ""

    @property
    def run(self) -> Run:
        """The job's Run."""
        return self.job.run

    @property
    def protocol(self) -> Protocol | None:
        """The job's protocol, or None for an encoder."""
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
    def status_word(self) -> str:
        """The state in one word; a broken result counts as failed."""
        return JobState.FAILED if self.is_failed else self.state

    @property
    def full_reason(self) -> str:
        """The reason, after the name of the failed stage."""
        stage = self.stage if self.protocol else "pretrain"
        return f"{stage}: {self.reason}" if self.state == JobState.FAILED else self.reason

    @property
    def is_open(self) -> bool:
        """Whether the job is still to be done."""
        return self.state in (JobState.MISSING, JobState.FAILED)

    @property
    def is_failed(self) -> bool:
        """Whether it failed or its result is broken."""
        return self.state in (JobState.FAILED, JobState.BROKEN)


def job_state(job: Job, runs: Path, queue: "Queue | None" = None, needed: bool = True, verify: bool = True) -> State:
    """Return the state of a job in `runs`. Raise InputError if run.json belongs to another experiment.

    queue: asked about claims, tasks and Slurm; without it a job is done, failed, broken or missing. A failed job whose task
    Slurm has requeued, as after the failure of a node, is queued. needed: whether an open result needs this encoder; otherwise
    it counts as done. verify: compare the SHA-256 of results.
    """
    folder = RunFolder(runs, job.run)
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
    failure = folder.failure_record(job.failure_name)
    if failure and queue and queue.is_requeued(job):
        return replace(queue.find_state(job), note=f"again, after: {str(failure.get('reason')).split('; ')[0]}")
    if failure:
        job_id, log = str(failure.get("job", "")), str(failure.get("log", ""))
        return State(job, JobState.FAILED, str(failure.get("reason")), job_id=job_id, log=log)
    return queue.find_state(job) if queue else State(job, JobState.MISSING)


def job_states(jobs: Iterable[Job], runs: Path, queue: "Queue | None" = None, verify: bool = True) -> dict[Job, State]:
    """Return the states of results and of their encoders, each encoder before its results."""
    results = {job: job_state(job, runs, queue, verify=verify) for job in dict.fromkeys(jobs)}
    needed = {job.encoder for job, state in results.items() if state.state not in (JobState.DONE, JobState.BROKEN)}
    states: dict[Job, State] = {}
    for job, state in results.items():
        if job.encoder not in states:
            states[job.encoder] = job_state(job.encoder, runs, queue, needed=job.encoder in needed)
        states[job] = state
    return states


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
    absent = {name: data.explain_missing(name, root) for name in dict.fromkeys(job.dataset for job in missing)}
    states |= {job: replace(states[job], reason=absent[job.dataset]) for job in missing}
    return States({place: list(line) for place, line in lines.items()}, states, queue.silent)


class Queue:
    """What claims, tasks and Slurm know about unfinished jobs. Each is asked once, when it is needed.

    cluster: where jobs are about to be submitted, or "". If it is Slurm, Slurm has to answer, and ended jobs are not asked for.
    silent: the questions that Slurm did not answer. launches: newest first. tasks: by the names of their jobs.
    """

    def __init__(self, runs: Path, jobs: Iterable[Job], cluster: str = ""):
        self.runs, self.cluster, self.silent, self.tasks = runs, cluster, list[str](), dict[str, Task]()
        self.read_report, self.find_slurm_job, self.encoders = (
            cache(Task.read_state),
            cache(self._find_slurm_job),
            dict[Job, State](),
        )
        names = {job.name for job in jobs if not _is_done(job, runs)}
        self.launches = records.list_launches(runs) if names or cluster else []
        for task in (task for launch in self.launches for task in launch.list_tasks()):
            is_submitted = task.launch.is_local or task.slurm_id
            for name in names.intersection(task.job_names) if is_submitted else ():
                self.tasks.setdefault(name, task)  # the newest launch counts

    @cached_property
    def slurm_jobs(self) -> dict[str, slurm.Job] | None:
        """Pending and running Slurm jobs by id; None if Slurm does not answer. Raise slurm.NoAnswer if it has to answer."""
        try:
            return slurm.read_queue()
        except slurm.NoAnswer as e:
            if self.cluster not in ("", LOCAL):
                raise
            self.silent.append(f"{e}; which jobs wait or run is unknown, and no job counts as lost")
            return None

    @cached_property
    def ended_jobs(self) -> dict[str, slurm.Job]:
        """The accounting records of tasks that left Slurm's queue, by id."""
        numbers = {task.slurm_id for task in self.tasks.values()} - (self.slurm_jobs or {}).keys() - {""}
        try:
            return {} if self.cluster else slurm.read_history({number.split("_")[0] for number in numbers})
        except slurm.NoAnswer as e:
            self.silent.append(f"{e}; why jobs ended is known only if they recorded it")
            return {}

    def task_number(self, job: Job) -> str:
        """Return the id of the pending or running task that will do a job: LOCAL on this machine, "" if there is none."""
        task = self.tasks.get(job.name)
        slurm_job = self.find_slurm_job(task) if task else None
        if task is None or slurm_job is None or slurm_job.is_stuck:
            return ""
        has_failed = job.run.name in self.read_report(task).get("failures", {})
        return "" if has_failed and not slurm_job.is_waiting else task.slurm_id or LOCAL

    def is_requeued(self, job: Job) -> bool:
        """Return whether the task of a job that has failed waits to start again, which tries all its jobs again."""
        task = self.tasks.get(job.name)
        slurm_job = self.find_slurm_job(task) if task else None
        return slurm_job is not None and slurm_job.is_waiting

    def find_state(self, job: Job) -> State:
        """Return the state of a job that has neither a result nor a recorded failure."""
        encoder, task, state = None, self.tasks.get(job.name), State(job, JobState.MISSING)
        if job.protocol:
            if job.encoder not in self.encoders:
                self.encoders[job.encoder] = job_state(job.encoder, self.runs, self)
            encoder = self.encoders[job.encoder]
        if task:
            state = self._state_in_task(task, job, is_ready=encoder is None or encoder.state == JobState.DONE)
        folder, is_gone = RunFolder(self.runs, job.run), state.state in (JobState.MISSING, JobState.STOPPED)
        if state.state != JobState.RUNNING and (claim := folder.find_owner(job.protocol, ask_slurm=is_gone)):
            state = State(job, JobState.RUNNING, node=claim["host"], job_id=claim.get("job") or f"process {claim['pid']}")
        waits = encoder is not None and encoder.state not in (JobState.DONE, JobState.MISSING)
        if encoder and not task and (encoder.state == JobState.STOPPED or self.task_number(job.encoder)):
            waits = False  # only the encoder was submitted
        if encoder and waits and state.state not in (JobState.RUNNING, JobState.UNKNOWN):
            state = replace(state, state=JobState.WAITING, reason=_explain_wait(encoder))
        if state.state == JobState.RUNNING and encoder is None:
            rows = folder.log_rows()
            note = f"epoch {rows[-1]['epoch']}/{job.run.epochs}" if rows else "before its first epoch"
            state = replace(state, note=state.note or note, speed=rows[-1].get("images/s") if rows else None)
        return state

    def _find_slurm_job(self, task: Task) -> slurm.Job | None:
        """Return the Slurm job of a pending or running task, or None. A new Slurm may reuse an id, but not a name."""
        if task.launch.is_local:
            return slurm.Job(LOCAL, "RUNNING") if find_owner(task.launch.folder) else None
        slurm_job = (self.slurm_jobs or {}).get(task.slurm_id)
        return slurm_job if slurm_job and slurm_job.name == task.title else None

    def _state_in_task(self, task: Task, job: Job, is_ready: bool) -> State:
        """Return the state of one job of a task. is_ready: whether it is an encoder or its encoder is there."""
        report, slurm_job = self.read_report(task), self.find_slurm_job(task)
        state = State(job, JobState.STOPPED, job_id=task.slurm_id or LOCAL, node=report.get("node", ""), log=str(task.messages()))
        if not task.launch.is_local and self.slurm_jobs is None:
            return replace(state, state=JobState.UNKNOWN)
        if slurm_job and slurm_job.is_stuck:
            return replace(state, reason="the job that it depends on has failed", node="")
        state = replace(state, node=slurm_job.node or state.node) if slurm_job else state
        if slurm_job and slurm_job.is_waiting:
            return replace(state, state=JobState.QUEUED, reason=slurm_job.reason, node="")
        if slurm_job:
            progress = (report.get("jobs") or {}).get(job.run.name)
            if progress and is_ready and self._is_next(task, job):
                return replace(state, state=JobState.RUNNING, note=progress["note"], seconds_left=progress["left"])
            return replace(state, state=JobState.QUEUED, reason="later in its task")
        why = report.get("elsewhere", {}).get(job.run.name) or report.get("why") or ""
        if not why and report.get("word") == "running":
            why = "ended without recording a reason"
        ended_job = None if task.launch.is_local else self.ended_jobs.get(task.slurm_id)
        if ended_job and ended_job.name == task.title:
            state = replace(state, node=ended_job.node or state.node)
            if ended_job.state not in ("", "COMPLETED"):
                why = f"{ended_job.state} {ended_job.reason}".strip() + (f"; {why}" if why else "")
        return replace(state, reason=why or "left the queue; no reason is known")

    def _is_next(self, task: Task, job: Job) -> bool:
        """Return whether this is the next job of its Run: the encoder, then one result after another."""
        done = RunFolder(self.runs, job.run).result_names()
        names = [p["name"] for content in task.content if content["name"] == job.run.name for p in content["protocols"]]
        return job.protocol is None or [name for name in names if name not in done][:1] == [job.protocol.name]


def _is_done(job: Job, runs: Path) -> bool:
    folder = RunFolder(runs, job.run)
    return folder.has_result(job.protocol) if job.protocol else folder.has_encoder()


def _explain_wait(encoder: State) -> str:
    """Return what a result waits for; with the name of the encoder if the user has to act."""
    word = "failed" if encoder.is_failed else encoder.state
    if encoder.state in (JobState.QUEUED, JobState.RUNNING):
        return f"for its pre-training, which is {word}"
    return f"for {encoder.stage} {encoder.run.name}, which {'is' if encoder.state == JobState.UNKNOWN else 'has'} {word}"
