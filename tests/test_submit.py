"""Submitting to this machine, stopping and giving up: what needs no Slurm to be shown."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import alone, put_command, simclic, wait
from conftest import EXHIBIT, tiny
from rich.console import Console

from simclic import Finetune, InputError, Linear, slurm, stop
from simclic.evaluate.finetune import GridProgress
from simclic.experiment import Job, load
from simclic.files import read_json
from simclic.schedule import ask_nodes, records, snapshot, task
from simclic.schedule import processes as launch
from simclic.schedule.profile import parse_profile
from simclic.schedule.state import Queue, job_state, read_states
from simclic.schedule.submit import Submitted, choose_jobs, executor_for, forget_failures
from simclic.schedule.task_arrays import Array
from simclic.schedule.work import WorkerOptions
from simclic.store.claim import Busy, find_owner, hold_claim
from simclic.store.run_folder import RunFolder

pytest.importorskip("submitit", reason="no submitit here, which knows the keys of a profile")

LINEAR = Linear(l2_low=0.1, l2_count=2, tolerance=1e-2)
LONG = tiny(epochs=3000)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table2.py").write_text(re.sub(r",\s+Finetune\(.*?\)\)", ",)", EXHIBIT, flags=re.S))
    (tmp_path / "local.toml").write_text('cluster = "local"\n')
    return tmp_path


def counts():
    told = read_states([load(Path("table2.py"))], Path("runs"), Path("data"))
    return {word: n for word, n in told.count_states(told.jobs).items() if n}


def test_in_the_background_of_this_machine_killed_and_gone_on_with(here):
    words = ("submit", "table2.py", "--on", "local.toml")
    text = (here / "table2.py").read_text().replace(', "dropout", "history")', ",)").replace("epochs=2", "epochs=10")
    (here / "table2.py").write_text(text)
    assert "2 jobs in 1 task: process " in alone(*words)
    assert "2 jobs wait or run already\nnothing to submit" in simclic(*words)
    first = wait(lambda: "running" in counts() and counts())
    assert first["running"] <= len(os.sched_getaffinity(0))
    run = load(here / "table2.py").jobs[0].run
    wait(lambda: RunFolder(here / "runs", run.name).log_rows())
    (begun,) = records.list_launches(Path("runs"))
    os.kill(find_owner(begun.folder)["pid"], signal.SIGTERM)
    wait(lambda: find_owner(begun.folder) is None)
    told = json.loads(simclic("status", "table2.py", "--json"))
    (state,) = [job for job in told["jobs"] if (job["run"], job["stage"]) == (run.name, "pretrain")]
    assert (state["word"], state["why"]) == ("stopped", "stopped by SIGTERM, as scancel does")
    assert (here / "runs" / run.name / "checkpoint").exists()
    at = len(RunFolder(here / "runs", run.name).log_rows())
    assert at < 10
    assert "2 jobs in 1 task: process " in alone(*words)
    wait(lambda: counts() == {"done": 2})
    assert read_json(here / "runs" / run.name / "pretrain.json")["resumed"][0] >= 11 * at
    wait(lambda: not list((here / "runs/.launches").glob("*.json")))
    assert "nothing to submit: every result is there" in simclic(*words)
    assert "│ all, each job once │" in simclic("status", "table2.py")


def test_the_line_after_a_submission_names_the_store(here, monkeypatch):
    array = SimpleNamespace(stage="all", job_count=2, tasks=[None], minutes=0)
    monkeypatch.setattr("simclic.schedule.submit.submit_jobs", lambda *_: Submitted([(array, "process 1")]))
    words = ("submit", "table2.py", "--on", "local.toml")
    assert simclic(*words).endswith("to see the progress: simclic status table2.py\n")
    assert simclic(*words, "--runs", "my runs").endswith("to see the progress: simclic status table2.py --runs 'my runs'\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_run_saves_at_a_step_boundary_when_it_is_asked_to_stop(here, number):
    """Each process of the tree gets the signal, more than once, as Slurm and terminals send it."""
    (here / "table2.py").write_text((here / "table2.py").read_text().replace("epochs=2", "epochs=3000"))
    process = subprocess.Popen(
        [sys.executable, "-m", "simclic", "run", "table2.py"], start_new_session=True, stderr=subprocess.PIPE
    )
    names = [job.run.name for job in load(here / "table2.py").jobs]
    wait(
        lambda: sum(len(RunFolder(here / "runs", name).log_rows()) > 1 for name in names) >= min(2, len(os.sched_getaffinity(0)))
    )
    for _ in range(3):
        os.killpg(process.pid, number)
        time.sleep(0.02)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"stopped; all finished work is saved" in told
    assert b"Traceback" not in told
    from simclic.train import checkpoint

    trained = [name for name in names if RunFolder(here / "runs", name).log_rows()]
    for name in trained:
        at = checkpoint.load(here / "runs" / name / "checkpoint", name)["step"]
        assert 0 <= at - 11 * len(RunFolder(here / "runs", name).log_rows()) < 11  # not a step is lost
    assert not list(here.glob("runs/*/.*"))
    assert not list(here.glob("runs/*/owner.json"))
    assert not list(here.glob("runs/*/failed-*"))


def begin_task(*jobs, **values):
    """Return the only task of a launch of these jobs in runs/. values: of its profile."""
    profile, runs = parse_profile("p", {"timeout_min": 60, **values}), Path("runs")
    code = snapshot.copy_code(records.launches_folder(runs))
    return records.write_launch([Array("pretrain", [[*jobs]])], profile, code, runs, runs).find_task("pretrain-0", 0)


def stop_task(begun, minutes=0, number=signal.SIGUSR2, work=lambda: None):
    """Return the exit code of a task that does this work and gets a signal after so many minutes."""
    report = task.TaskReport(begun)
    report.began -= 60 * minutes
    work()
    return task._stop_or_requeue(number, report, Path("runs"), begun.parse_jobs())


@pytest.fixture
def requeued(monkeypatch):
    """How often Slurm was asked to start this job again."""
    asked = []
    monkeypatch.setattr(slurm, "requeue_this_job", lambda: asked.append(1))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return asked


def progress(n):
    (Path("runs") / tiny().name).mkdir(exist_ok=True)
    (Path("runs") / tiny().name / "checkpoint").write_bytes(f"state {n}".encode())


def test_too_many_time_limits_are_a_failure_that_says_how_to_go_on(here, requeued):
    begun = begin_task(Job(tiny()), slurm_max_num_timeout=1)
    assert stop_task(begun, minutes=20) == task.UNFINISHED  # a preemption, which counts for nothing
    assert [stop_task(begun, 59, work=lambda n=n: progress(n)) for n in range(2)] == [task.UNFINISHED, 1]
    assert len(requeued) == 2
    told = "pretrain: reached its time limit 2 times, and slurm_max_num_timeout is 1; raise it in the profile"
    assert RunFolder(Path("runs"), tiny()).failure_text("pretrain") == told


def test_two_time_limits_that_bring_nothing_further_are_no_loop(here, requeued):
    begun = begin_task(Job(tiny()))
    assert [stop_task(begun, minutes=m) for m in (59, 31, 20)] == [task.UNFINISHED] * 3  # once, and two preemptions
    assert not RunFolder(Path("runs"), tiny()).failure_text("pretrain")
    assert stop_task(begun, minutes=59) == 1
    assert len(requeued) == 3
    told = "pretrain: made no progress in two time limits of 60 minutes; raise timeout_min in the profile"
    assert RunFolder(Path("runs"), tiny()).failure_text("pretrain") == told


def test_a_time_limit_after_progress_is_none_too_many(here, requeued):
    begun = begin_task(Job(tiny()))
    for n in range(5):
        assert stop_task(begun, 59, work=lambda n=n: n % 2 and progress(n)) == task.UNFINISHED
    assert len(requeued) == 5


def test_a_time_limit_in_a_bundle_brought_it_further(here, requeued):
    """What a fine-tuning grid has done shows in its checkpoint, before any of its settings is finished."""
    grid = Finetune(steps=3)
    begun = begin_task(Job(tiny(), grid))
    RunFolder(Path("runs"), tiny()).create_folder("data")
    grid_progress = GridProgress(Path("runs"), tiny(), grid)
    for step in (1, 2, 3):
        bundle = {"part": "grid", "settings": [], "step": step, "members": []}
        assert stop_task(begun, 59, work=lambda bundle=bundle: grid_progress.save_bundle(bundle)) == task.UNFINISHED
    assert len(requeued) == 3


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_what_was_done_when_the_signal_came_is_not_requeued(here, requeued, number):
    begun = begin_task(Job(tiny()))
    RunFolder(Path("runs"), tiny()).create_folder("data").write_encoder(b"", {})
    assert stop_task(begun, number=number) == 0
    assert not requeued
    assert begun.read_state()["word"] == "ended"


def test_a_signal_makes_no_failure_of_a_task_that_has_just_begun_or_ended(here, monkeypatch):
    """Before Python can handle it, and after Python has restored the default; the command is in the words of a shell."""
    put_command(monkeypatch, here / "srun", "")
    for words in ({}, {"slurm_python": f"env -u HOME {sys.executable}"}):
        python = executor_for(parse_profile("p", words), "linear", here, "name", here)._executor.python
        command = f"{python} -c 'import signal; print(signal.getsignal(signal.SIGUSR2).name)'"
        assert subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout == "SIG_IGN\n"
    begun, before = begin_task(Job(tiny())), {number: signal.getsignal(number) for number in stop.SIGNALS}
    monkeypatch.setattr(task, "_run_jobs", lambda task, stopped: 0)
    try:
        task.run_task(str(begun.launch.folder), begun.array, 0)
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_requeue_survives_what_slurm_sends_to_all_processes_of_a_job(here, monkeypatch):
    """As when another task of the job ends meanwhile."""
    put_command(monkeypatch, here / "scontrol", f'kill -TERM $$; kill -USR2 $$; echo "$@" > {here}/asked')
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    handlers = [signal.getsignal(number) for number in stop.SIGNALS]
    slurm.requeue_this_job()
    assert (here / "asked").read_text() == "requeue 7\n"
    assert [signal.getsignal(number) for number in stop.SIGNALS] == handlers


def test_a_requeue_is_asked_for_until_slurm_answers(monkeypatch):
    """As while its controller restarts; what it refuses for a minute is refused."""
    asked, clock = [], SimpleNamespace(now=0.0)

    def scontrol(*command):
        asked.append(command)
        if len(asked) != 3:
            raise slurm.NoAnswer("scontrol: Unexpected message received for job 7")

    monkeypatch.setattr(slurm, "_run_command", scontrol)
    monkeypatch.setattr(
        slurm, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=lambda s: vars(clock).update(now=clock.now + s))
    )
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slurm.requeue_this_job()
    assert asked == [("scontrol", "requeue", "7")] * 3
    with pytest.raises(slurm.NoAnswer, match="Unexpected message"):
        slurm.requeue_this_job()
    assert 60 <= clock.now < 90


def test_a_requeue_that_slurm_refuses_is_told(here, monkeypatch, capsys):
    begun = begin_task(Job(tiny()))

    def refuse():
        raise slurm.NoAnswer("scontrol: Requested operation is presently disabled")

    monkeypatch.setattr(slurm, "requeue_this_job", refuse)
    assert stop_task(begun) == task.UNFINISHED
    assert "could not be requeued (scontrol: Requested operation" in capsys.readouterr().err
    assert begun.read_state()["word"] == "stopped"


def test_what_is_half_written_by_submitit_is_swept(here, monkeypatch):
    begun = begin_task(Job(tiny()))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    left, other = (begun.launch.folder / begun.array / f"{n}_0_result.pkl.save_tmp" for n in (7, 71))
    left.touch()
    other.touch()
    task._remove_half_written(begun)
    assert (left.exists(), other.exists()) == (False, True)


def test_a_copy_of_the_code_that_was_changed_is_refused(tmp_path):
    folder = snapshot.copy_code(tmp_path)
    assert snapshot.copy_code(tmp_path) == folder
    (folder / "simclic/plan.py").write_text("raise RuntimeError")
    (folder / "simclic/another.py").write_text("")
    with pytest.raises(InputError, match=r"is no longer the code that was submitted: another.py, plan.py differ; submit again"):
        snapshot.check_copy(folder)
    other = snapshot.copy_code(tmp_path / "other")
    with pytest.raises(InputError, match=r"was imported instead of"):
        snapshot.check_running_copy(other)


def test_a_claim_of_the_same_job_before_its_restart_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with hold_claim(tmp_path) as before:
        with pytest.raises(Busy), hold_claim(tmp_path):
            pass
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        with hold_claim(tmp_path), pytest.raises(Busy, match="was taken over by process"):
            before()  # the old process, alive after all, publishes nothing


def test_of_another_machine_slurm_is_asked(tmp_path, monkeypatch):
    with hold_claim(tmp_path):
        there = json.loads((tmp_path / "owner.json").read_text()) | {"host": "elsewhere", "job": "12_3"}
    for lives, taken in ((True, False), (None, False), (False, True)):
        (tmp_path / "owner.json").write_text(json.dumps(there))
        monkeypatch.setattr(slurm, "is_job_alive", lambda job, lives=lives: lives if job == "12_3" else None)
        if taken:
            with hold_claim(tmp_path):
                pass
        else:
            with pytest.raises(Busy, match=re.escape("on elsewhere (job 12_3) is at work on it")), hold_claim(tmp_path):
                pass


@pytest.mark.parametrize("name", ["50%", "a\nb"])
def test_a_place_that_slurm_cannot_name(tmp_path, name):
    with pytest.raises(InputError, match="choose another place with --runs DIR"):
        records.launches_folder(tmp_path / name)


def missing(queued=(), cluster="slurm", retry=False, work=None):
    """What would be submitted of an encoder and its probe."""
    told, jobs, numbers = Submitted(), work or [Job(tiny(), LINEAR)], dict(queued)
    queue = Queue(Path("runs"), jobs, cluster)
    queue.task_number = lambda job: numbers.get(job.name, "")
    return choose_jobs(jobs, queue, retry, told), told


ENCODER, PROBE = Job(tiny()).name, Job(tiny(), LINEAR).name
BOTH = ([Job(tiny())], [Job(tiny(), LINEAR)])


def test_what_is_queued_is_left_alone(here):
    assert missing()[0] == BOTH
    assert missing({ENCODER: "1", PROBE: "2"})[0] == ([], [])
    assert missing({ENCODER: "1"})[0] == ([], BOTH[1])
    assert missing({PROBE: "2"})[0] == BOTH  # its encoder has gone: it will never do anything


def test_an_encoder_that_is_made_elsewhere_is_not_waited_for(here):
    for cluster, job in (("slurm", "local"), ("local", "1")):
        found, told = missing({ENCODER: job}, cluster)
        assert (found, told.later) == (([], []), 1)
    assert missing({ENCODER: "local"}, "local")[0] == ([], BOTH[1])


def test_what_failed_is_left_alone_until_it_is_asked_for(here):
    other = tiny(seed=1)
    work = [Job(tiny(), LINEAR), Job(other, LINEAR)]
    RunFolder(Path("runs"), tiny()).record_failure("pretrain", "diverged")
    found, told = missing(work=work)
    assert (found, told.failed) == (([Job(other)], [Job(other, LINEAR)]), 2)
    assert missing(work=work, retry=True)[0] == BOTH  # that and no more, even while its probe waits in vain
    assert missing({PROBE: "2"}, work=work, retry=True)[0] == BOTH
    assert RunFolder(Path("runs"), tiny()).failure_text("pretrain")  # it is forgotten once it is submitted
    before = forget_failures([*BOTH[0], *BOTH[1]], Path("runs"))
    assert list(before) == [RunFolder(Path("runs"), tiny()).failure_path("pretrain")]
    assert not RunFolder(Path("runs"), tiny()).failure_text("pretrain")


@pytest.mark.parametrize("word", ["PENDING", "REQUEUED", "REQUEUE_HOLD"])
def test_what_slurm_requeues_after_the_failure_of_a_node_waits_again_and_is_not_submitted_twice(here, monkeypatch, word):
    """The first task recorded that it had lost the others, before Slurm knew of the node."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    job, waits = load(here / "table2.py").jobs[0].encoder, "Nodes required for job are DOWN"
    begun = begin_task(job)
    begun.launch.write_slurm_number("pretrain-0", "7")
    lost = "rank 1 of 2 (cpu of b) ended; run it again, and it goes on from the last checkpoint"
    RunFolder(Path("runs"), job.run).record_failure("pretrain", lost)
    task.TaskReport(begun).write_state("ended", launch.Outcome(failures={job.run.name: lost}))

    def state_if(word):
        monkeypatch.setattr(slurm, "read_queue", lambda: {"7": slurm.Job("7", word, waits, name=begun.title)})
        queue = Queue(Path("runs"), [job])
        return job_state(job, Path("runs"), queue), queue.task_number(job)

    state, number = state_if(word)
    assert (state.state, state.reason, number) == ("queued", waits, "7")
    again = f"pretrain {job.run.name}: {waits}; again, after: rank 1 of 2 (cpu of b) ended\n"
    assert again in simclic("status", "table2.py")
    state, number = state_if("RUNNING")  # its first start, which Slurm has not given up yet
    assert (state.state, number) == ("failed", "")
    monkeypatch.setattr(snapshot, "check_running_copy", lambda code: None)
    monkeypatch.setattr(task, "run_locally", lambda *words: launch.Outcome(finished=state_if("RUNNING")[1] == "7"))
    begins = task._run_jobs(begun, [])  # it starts again
    assert (begins, state_if("RUNNING")[0].state) == (0, "queued")
    assert not RunFolder(Path("runs"), job.run).failure_text()


def test_a_damaged_record_is_named_and_nothing_is_submitted(here):
    begun = begin_task(Job(tiny()))
    path = begun.launch.folder / "launch.json"
    path.write_text(path.read_text()[:-30])
    told = simclic("submit", "table2.py", "--on", "local.toml", code=2)
    assert "launch.json: is not a whole JSON file; cancel (scancel) the jobs that squeue lists as simclic-" in told
    assert told.count("\n") == 1
    failed = RunFolder(Path("runs"), tiny()).failure_path("pretrain")
    path.unlink()
    failed.parent.mkdir(parents=True, exist_ok=True)
    failed.write_text("half")
    assert "is not a whole JSON file" in simclic("status", "table2.py", code=1)


def test_two_processes_never_compute_one_result(tmp_path):
    launch.run_locally([Job(tiny())], WorkerOptions(tmp_path, tmp_path), Console(file=io.StringIO()))
    with hold_claim(tmp_path / tiny().name, f"owner-{LINEAR.name}"):
        outcome = launch.run_locally([Job(tiny(), LINEAR)], WorkerOptions(tmp_path, tmp_path), Console(file=io.StringIO()))
    assert "is at work on it" in outcome.postponed[tiny().name]
    assert not outcome.failures
    assert not RunFolder(tmp_path, tiny()).failure_text()


def test_a_claim_says_running_whatever_is_known_of_slurm(here, monkeypatch):
    begin_task(Job(tiny()))  # for Slurm, which is not here
    monkeypatch.setenv("PATH", str(here))
    for job, name in ((Job(tiny()), "owner"), (Job(tiny(), LINEAR), f"owner-{LINEAR.name}")):
        (Path("runs") / tiny().name).mkdir(exist_ok=True)
        with hold_claim(Path("runs") / tiny().name, name):
            state = job_state(job, Path("runs"), Queue(Path("runs"), [job, job.encoder]))
        assert (state.state, state.job_id) == ("running", f"process {os.getpid()}")
        assert job_state(job, Path("runs"), Queue(Path("runs"), [job, job.encoder])).state != "running"


def test_without_slurm_it_says_so(here, monkeypatch):
    (here / "profile.toml").write_text("timeout_min = 5\n")
    monkeypatch.setenv("PATH", str(here))
    told = simclic("submit", "table2.py", "--on", "profile.toml", code=2)
    assert told == "error: squeue: not found; is this a machine that can reach a Slurm cluster?\n"


class Accepted:
    """An executor whose jobs Slurm accepts."""

    def submit(self, *words):
        return SimpleNamespace(job_id="12")


def test_a_silent_slurm_is_asked_again_and_keeps_no_question(here, monkeypatch):
    asked, cancelled = [], []

    def queue():
        asked.append(1)
        if len(asked) != 2:
            raise slurm.NoAnswer("squeue: no answer in two minutes")
        return {"12": slurm.Job("12", "PENDING", "Resources")}

    def cancel(name):
        cancelled.append(name)
        if len(cancelled) < 3:
            raise slurm.NoAnswer("scancel: no answer in two minutes")

    monkeypatch.setattr(ask_nodes, "executor_for", lambda *words: Accepted())
    monkeypatch.setattr(slurm, "read_queue", queue)
    monkeypatch.setattr(slurm, "cancel_jobs_named", cancel)
    monkeypatch.setattr(stop, "handle_signals", lambda *more: None)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    words = []
    found = ask_nodes.ask_nodes(parse_profile("p", {}), Path("runs"), "doctor", {"linear": dict}, 0.1, words.append)
    assert found["linear"].problem == "squeue: no answer in two minutes; job 12 is cancelled"
    assert words[:2] == ["squeue: no answer in two minutes", "job 12 pending"]
    assert len(cancelled) == 3
    assert re.fullmatch(r"simclic-doctor-[0-9a-f]{8}", cancelled[0])
    monkeypatch.setattr(slurm, "cancel_jobs_named", lambda name: queue())
    with pytest.raises(slurm.NoAnswer, match="cancel what it has of this yourself: scancel --name=simclic-doctor-"):
        ask_nodes.ask_nodes(parse_profile("p", {}), Path("runs"), "doctor", {"linear": dict}, 0, words.append)


def test_each_task_that_fails_says_so_itself(tmp_path):
    """And not those that Slurm stops then. Such a log is of one of Slurm's jobs of three tasks on two nodes."""
    logs = {
        0: "srun: error: na: task 1: Killed\nsrun: launch/slurm: _step_signal: Terminating StepId=9.0\n"
        "srun: error: nb: tasks 2-3: Exited with exit code 3\nslurmstepd-na: error: *** STEP 9.0 ON na CANCELLED ***\n"
        "srun: error: na: task 0: Terminated\nsrun: Force Terminated StepId=9.0\n",
        1: "on the way\n",
        2: "noise\nGLIBC_2.38 not found\n\n",
        3: "noise\nGLIBC_2.38 not found\n",
    }
    (tmp_path / "pretrain").mkdir()
    for number, text in logs.items():
        (tmp_path / f"pretrain/9_{number}_log.err").write_text(text)
    of_1, of_others = "task 1 on na: Killed: on the way", "task 2, 3 on nb: Exited with exit code 3: GLIBC_2.38 not found"
    assert ask_nodes._explain_end(tmp_path, "9") == f": {of_1}; {of_others}"
    (tmp_path / "pretrain/9_0_log.err").write_text("ValueError: no\nsrun: error: na: task 0: Exited with exit code 1\n")
    assert ask_nodes._explain_end(tmp_path, "9") == ": task 0 on na: Exited with exit code 1: ValueError: no"
    (tmp_path / "pretrain/9_0_log.err").write_text("\nslurmstepd: error: *** JOB 9 CANCELLED DUE TO TIME LIMIT ***\n")
    assert ask_nodes._explain_end(tmp_path, "9") == ": slurmstepd: error: *** JOB 9 CANCELLED DUE TO TIME LIMIT ***"
    assert ask_nodes._explain_end(tmp_path, "8") == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_question_that_is_ended_by_a_signal_leaves_no_job(here, monkeypatch, number):
    """Ctrl-C, kill, and a terminal that closes. Under nohup, the last is ignored."""
    cancelled = []
    monkeypatch.setattr(ask_nodes, "executor_for", lambda *words: Accepted())
    monkeypatch.setattr(slurm, "read_queue", lambda: signal.raise_signal(number) or {})
    monkeypatch.setattr(slurm, "cancel_jobs_named", cancelled.append)
    monkeypatch.setattr(stop._StopRequest, "is_received", False)
    before = {n: signal.signal(n, signal.default_int_handler if n == signal.SIGINT else signal.SIG_DFL) for n in (1, 2, 12, 15)}
    try:
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            ask_nodes.ask_nodes(parse_profile("p", {}), Path("runs"), "doctor", {"linear": dict}, 60, lambda words: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        stop.handle_signals(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert re.fullmatch(r"simclic-doctor-[0-9a-f]{8}", " ".join(cancelled))


def test_sbatch_variables_do_not_reach_a_job(monkeypatch):
    for name in ("SBATCH_PARTITION", "SLURM_JOB_ID", "SLURM_CPU_BIND"):
        monkeypatch.setenv(name, "leak")
    monkeypatch.setenv("SLURM_CONF", "kept")
    found = slurm.clean_environment()
    assert found["SLURM_CONF"] == "kept"
    assert not [name for name, value in found.items() if value == "leak"]
