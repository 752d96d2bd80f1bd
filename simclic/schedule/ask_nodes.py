"""Run functions on nodes of a cluster, in small jobs that are submitted like the real ones, and return their answers."""

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from types import MappingProxyType
from typing import Any

from simclic import files, slurm, stop
from simclic.errors import InputError
from simclic.schedule import records, snapshot
from simclic.schedule.profile import Profile
from simclic.schedule.submit import executor_for, talk_to_sbatch

Question = Callable[[], dict[str, Any]]  # runs on a node; its result is written as JSON


@dataclass(frozen=True)
class Answer:
    """The result of a question, or in `problem` why there is none, and in `way` what to do about it.

    job: its Slurm id. queued: state and reason of a job that was cancelled in the queue. final: asking again would not help.
    """

    job: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    way: str = ""
    queued: str = ""
    final: bool = True


def ask_nodes(
    profile: Profile, runs: Path, verb: str, questions: Mapping[str, Question], seconds: float, say: Callable[[str], None],
    beside: Mapping[str, Callable[[], Any]] = MappingProxyType({}),
) -> dict[str, Answer]:  # fmt: skip
    """Return the answers by stage. questions: by the stage whose resources a job asks for. seconds: how long to wait for all.
    beside: what the other tasks of such a job do meanwhile.

    What is not answered by then is cancelled, and what is in Slurm at any other end, too. A Slurm that is silent for a while is
    asked again. The folder of a job that ended without an answer stays, for its log.
    """
    folder, answers, jobs = records.make_question_folder(runs, verb), dict[str, Answer](), dict[str, str]()
    title = f"simclic-{folder.name}"  # by which Slurm finds them even if sbatch never told their numbers
    gone: dict[str, float] = {}  # when a job had left the queue: a shared file system may show its answer some seconds later
    stop.handle_signals(signal.SIGHUP)  # ended by SIGTERM or with its terminal, it still cancels on the way out
    try:
        code = snapshot.copy_code(folder.parent)
        for stage, question in questions.items():
            try:
                with talk_to_sbatch():
                    executor = executor_for(profile, stage, folder / stage, title, code)
                    jobs[stage] = executor.submit(
                        _write_answer, folder / f"{stage}.json", code, Path.cwd(), question, beside.get(stage)
                    ).job_id
            except InputError as e:
                way = "wait until some of your jobs have ended" if slurm.TOO_MANY.search(str(e)) else "mend the profile"
                answers[stage] = Answer(problem=str(e), way=way)
        ends = time.monotonic() + seconds
        while waiting := {stage: job for stage, job in jobs.items() if stage not in answers}:
            queue, silence = _queue()
            now = time.monotonic()
            for stage, job in waiting.items():
                path = folder / f"{stage}.json"
                if path.exists():
                    answers[stage] = Answer(job, **(files.read_json(path) or {})["answer"])
                elif silence:
                    if now > ends:
                        answers[stage] = Answer(
                            job, problem=f"{silence}; job {job} is cancelled", way="ask again later", final=False
                        )
                elif job not in queue and now > gone.setdefault(stage, now) + 5:
                    problem = f"job {job} ended without an answer{_explain_end(folder, job)}"
                    answers[stage] = Answer(job, problem=problem, way=f"does the node see {folder}? its log is there")
                elif job in queue and now > ends:
                    answers[stage] = _late_answer(queue[job], seconds)
            words = (f"job {job} {queue[job].state.lower() if job in queue else 'has ended'}" for job in waiting.values())
            say(silence or ", ".join(words))
            time.sleep(0 if waiting.keys() <= answers.keys() else 1)
        return answers
    finally:
        if not all((folder / f"{stage}.json").exists() for stage in questions):
            _cancel(title, jobs.values())
        if not any("without an answer" in answer.problem for answer in answers.values()):
            rmtree(folder, ignore_errors=True)


def _queue() -> tuple[dict[str, slurm.Job], str]:
    """Return what waits and runs, or why Slurm does not answer."""
    try:
        return slurm.read_queue(), ""
    except slurm.NoAnswer as e:
        return {}, str(e)


def _cancel(title: str, known: Collection[str]) -> None:
    """Cancel the jobs of a name. Raise slurm.NoAnswer if Slurm does not answer and some are known to be there."""
    silence = ""
    for _ in range(3 if known else 1):
        try:
            return slurm.cancel_jobs_named(title)
        except slurm.NoAnswer as e:
            silence = str(e)
    if known:
        raise slurm.NoAnswer(f"{silence}; cancel what it has of this yourself: scancel --name={title}")


def _write_answer(path: Path, code: Path, cwd: Path, question: Question, beside: Callable[[], Any] | None) -> None:
    """Write the answer to a file. This runs on the node, in each task of the job, of which the first answers."""
    if slurm.task_of_job():
        if beside:
            beside()
        return
    try:
        snapshot.check_running_copy(code)
        os.chdir(cwd)
        answer: dict[str, Any] = {"content": question()}
    except (InputError, OSError) as e:
        answer = {"problem": str(e)}
    files.write_json(path, {"answer": answer})


def _late_answer(job: slurm.Job, seconds: float) -> Answer:
    never = job.reason.startswith("Partition") or job.reason in ("BadConstraints", "InvalidAccount", "InvalidQOS")
    problem, way = f"job {job.id} has not answered in {seconds:.0f} s", "wait longer with --wait SECONDS"
    return Answer(job.id, problem=problem, way=way, queued=f"{job.state} {job.reason}", final=never)


def _explain_end(folder: Path, job: str) -> str:
    """Return which tasks of a job failed, with their nodes and the last lines of their logs; else the last line of the job."""
    log, tasks = _read_log(folder, job, 0), dict[str, list[int]]()
    for task, node, end in slurm.list_ended_tasks("\n".join(log)):
        own = [line for line in _read_log(folder, job, task) if not line.startswith(("srun: ", "slurmstepd"))]
        tasks.setdefault(f"on {node}: {': '.join((end, *own[-1:]))}", []).append(task)
    ends = [f"task {', '.join(map(str, numbers))} {end}" for end, numbers in tasks.items()]
    text = "; ".join(ends) or "".join(log[-1:])
    return text and f": {text}"


def _read_log(folder: Path, job: str, task: int) -> list[str]:
    """Return the lines of the log of a task that are not empty."""
    text = "\n".join(path.read_text(errors="replace") for path in folder.glob(f"*/{job}_{task}_log.err"))
    return [line for line in text.split("\n") if line.strip()]
