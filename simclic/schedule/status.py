"""What has become of every job: its result says most, then what its task tells of itself, then what Slurm says."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simclic import data, slurm
from simclic.experiment import Protocol, Run, Suite
from simclic.schedule import plan, records
from simclic.schedule.records import Key, Task
from simclic.store.claim import owner
from simclic.store.run_folder import RunFolder

WORDS = ("done", "running", "queued", "waiting", "failed", "stopped", "unknown", "missing")


@dataclass(frozen=True)
class State:
    """One job. word: one of WORDS. why: of a failure, a stop or a wait. note, left: of what runs, and the seconds it may take.
    speed: images per second of a pre-training. job, node, log: where it runs or ran, and where it told of what went wrong."""

    run: str
    stage: str
    word: str
    why: str = ""
    note: str = ""
    left: float | None = None
    speed: float | None = None
    job: str = ""
    node: str = ""
    log: str = ""

    @property
    def name(self) -> str:
        """Stage and Run."""
        return f"{self.stage} {self.run}"


@dataclass
class States:
    """All jobs that exhibits ask for. lines: (exhibit, stage) -> its jobs, with those of earlier lines. silent: what Slurm does
    not answer, and what is therefore not known."""

    lines: dict[tuple[str, str], list[Key]] = field(default_factory=dict)
    jobs: dict[Key, State] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)

    def counts(self, keys: Iterable[Key]) -> dict[str, int]:
        """How many jobs there are of each word."""
        found = dict.fromkeys(WORDS, 0)
        for key in keys:
            found[self.jobs[key].word] += 1
        return found


Asked = dict[Key, tuple[Run, Protocol | None, str]]  # with the stage


def states(suites: Iterable[Suite], runs: Path, root: Path) -> States:
    """Look at everything; data sets are looked for under `root`. Raises InputError for a run.json that disagrees with its Run."""
    told, asked = States(), Asked()
    for suite in suites:
        for exhibit in suite.exhibits:
            for job in exhibit.jobs:
                run, protocol = job.run, job.protocol
                assert protocol is not None  # an exhibit shows results
                asked[run.name, ""] = (run, None, job.encoder.stage)
                asked[run.name, protocol.name] = (run, protocol, job.stage)
                for key in ((run.name, ""), (run.name, protocol.name)):
                    kept = told.lines.setdefault((f"{suite.name} {exhibit.name}".strip(), asked[key][2]), [])
                    kept.append(key)
    told.lines = {at: list(dict.fromkeys(keys)) for at, keys in told.lines.items()}
    left = _looked(asked, runs, told)
    if left:
        _ask(left, runs, told)
    absent = {name: data.missing(name, root) for name in dict.fromkeys(run.dataset for run, _, _ in left.values())}
    for key, (run, _, _) in left.items():
        if told.jobs[key].word == "missing" and absent[run.dataset]:
            told.jobs[key] = replace(told.jobs[key], why=absent[run.dataset])
    return told


def _looked(asked: Asked, runs: Path, told: States) -> Asked:
    """What results and recorded failures say; returns the jobs of which they say nothing."""
    left, needed = Asked(), set()
    for key in sorted(asked, key=lambda key: not key[1]):  # results first: they say which encoders are still needed
        run, protocol, stage = asked[key]
        if protocol:
            word, why, _ = plan.look(runs, run, protocol, verify=False)  # the report verifies; this has to be quick
            if word != "done":
                needed.add(run)
        else:
            word, why, _ = plan.look_at_encoder(runs, run, run in needed)
        if word == "missing":
            left[key] = asked[key]
            continue
        log = job = ""
        if word == "failed":
            record = RunFolder(runs, run).failure_record(protocol.stage if protocol else "pretrain")
            log, job, why = record.get("log", ""), record.get("job", ""), record.get("reason", why)
        told.jobs[key] = State(run.name, stage, "failed" if word == "broken" else word, why, job=job, log=log)
    return left


def _ask(left: Asked, runs: Path, told: States) -> None:
    """Ask tasks and Slurm about the jobs that are left."""
    tasks: dict[Key, Task] = {}
    for launch in records.launches(runs):
        for task in launch.tasks():
            for key in task.keys:
                if key in left:
                    tasks.setdefault(key, task)  # the newest launch comes first
    known = _slurm({task.id: task.launch.title(task.array) for task in tasks.values() if task.id}, told)
    for key in sorted(left, key=lambda key: bool(key[1])):  # encoders first: results wait for them
        run, protocol, stage = left[key]
        encoder = told.jobs.get((run.name, ""))
        one = _of_task(tasks[key], key, known, encoder, runs) if key in tasks else None
        waits = bool(protocol) and encoder is not None and encoder.word not in ("done", "missing")
        if one is None and protocol is None and (holder := RunFolder(runs, run).owner()):
            one = {"word": "running", "node": holder["host"], "job": holder.get("job") or f"process {holder['pid']}"}
        if (one is None or one["word"] not in ("running", "unknown")) and waits and encoder is not None:
            one = {**(one or {}), "word": "waiting", "why": _of_encoder(encoder)}
        if one and one["word"] == "running" and protocol is None:
            one = {**_logged(runs, run), **one}
        told.jobs[key] = State(run.name, stage, **(one or {"word": "missing"}))


def _of_encoder(encoder: State) -> str:
    """What a result waits for: the name matters where somebody has to do something."""
    if encoder.word in ("queued", "running"):
        return f"for its pre-training, which is {encoder.word}"
    return f"for {encoder.name}, which {'is' if encoder.word == 'unknown' else 'has'} {encoder.word}"


def _slurm(ids: dict[str, str], told: States) -> dict[str, slurm.Job] | None:
    """What Slurm knows of tasks; None if it does not answer. ids: what each is called, since numbers are given out again where
    a Slurm was set up afresh."""
    if not ids:
        return {}
    try:
        known = {i: job for i, job in slurm.queue().items() if ids.get(i) == job.name}
    except slurm.Silent as e:
        told.silent.append(f"{e}; what waits and what runs is not known, and nothing is taken for lost")
        return None
    try:
        ended = slurm.history({i.split("_")[0] for i in ids.keys() - known.keys()})
        return {**{i: job for i, job in ended.items() if ids.get(i) == job.name}, **known}
    except slurm.Silent as e:
        told.silent.append(f"{e}; why jobs left the queue is known only where they said so themselves")
        return known


def _of_task(task: Task, key: Key, known: dict[str, slurm.Job] | None, encoder: State | None, runs: Path) -> dict[str, Any]:
    """What a task and Slurm say of one of its jobs: the fields of a State."""
    said, log = task.state(), str(task.messages())
    where = {"job": task.id or "local", "node": said.get("node", ""), "log": log}
    if task.launch.values["cluster"] == "local":
        job = slurm.Job("local", "RUNNING" if owner(task.launch.folder) else "")
    elif known is None:
        return {"word": "unknown", **where}
    else:
        job = known.get(task.id) or slurm.Job(task.id, "")
        where["node"] = job.node or where["node"]
    if job.stuck:
        return {"word": "stopped", "why": "what it waited for has failed", **where, "node": ""}
    if job.state == "PENDING":
        return {"word": "queued", "why": job.reason, **where, "node": ""}
    if job.state and job.state not in slurm.ENDED:
        far = said.get("jobs", {}).get(key[0])
        current = far and (not key[1] or encoder is None or encoder.word == "done") and _first(task, key, runs)
        return {"word": "running", "note": far["note"], "left": far["left"], **where} if current else {
            "word": "queued", "why": "next in its task", **where}  # fmt: skip
    why = said.get("elsewhere", {}).get(key[0]) or said.get("why") or ""
    if not why and said.get("word") == "running":
        why = "ended without a word"
    if job.state and job.state != "COMPLETED":
        why = f"{job.state} {job.reason}".strip() + (f"; {why}" if why else "")
    return {"word": "stopped", "why": why or "left the queue without a word", **where}


def _first(task: Task, key: Key, runs: Path) -> bool:
    """Is this the job of its Run that is at work? One after another, encoder first."""
    if not key[1]:
        return True
    for job in task.content:
        if job["name"] == key[0]:
            left = [p["name"] for p in job["protocols"] if not (runs / key[0] / f"{p['name']}.json").exists()]
            return bool(left) and left[0] == key[1]
    return False


def _logged(runs: Path, run: Run) -> dict[str, Any]:
    """What the log of a pre-training says: epoch, images per second, seconds left."""
    rows = RunFolder(runs, run).log_rows()
    if not rows:
        return {"note": "before its first epoch"}
    epoch, speed = rows[-1]["epoch"], rows[-1].get("images/s")
    return {"note": f"epoch {epoch}/{run.epochs}", "speed": speed}
