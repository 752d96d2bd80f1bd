"""On a real Slurm: submitted, finished, interrupted in every way, and no number the worse for it."""

import getpass
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import pytest
from commands import alone, simclic
from conftest import ROOT, compute_results, tiny
from layouts import fill
from reaper import cluster_folder

from simclic import Knn, Linear, slurm
from simclic.__main__ import main
from simclic.experiment import Job
from simclic.files import read_json
from simclic.provenance import collect_provenance
from simclic.schedule import profile, records, snapshot
from simclic.schedule.submit import Submitted, _submit_arrays
from simclic.schedule.task_arrays import Array
from simclic.store import results as store
from simclic.store.claim import find_owner as store_owner
from simclic.store.run_folder import RunFolder

UP, DOWN = ROOT / "slurm/testcluster/up", ROOT / "slurm/testcluster/down"
LINEAR = Linear(l2_low=0.1, l2_count=2, tolerance=1e-2)

EXHIBIT = '''"""A small exhibit."""
from simclic import Figure, Knn, Linear, grid

FIGURE = Figure(name="rates", caption="Small", x="base_lr", protocols=(
    Linear(l2_low=0.1, l2_count=2, tolerance=1e-2),{also}), runs=grid(
    dataset="digits", backbone="test_resnet", image_size=16, projector_dim=32, predictor_dim=8, epochs={epochs},
    precision="float32", perturbation="noise", {more}))
'''


def find_ports(count):
    """The first of so many ports in a row that are free, where other sessions begin to look elsewhere."""

    def is_free(port):
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("", port))
            return True
        return False

    starts = range(20000 + 10 * (os.getpid() % 1000), 32760, 10)
    return next(base for base in starts if all(map(is_free, range(base, base + count))))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Slurm of our own, with more places than there are cores."""
    if not shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin"):
        assert not os.environ.get("SIMCLIC_NEEDS_SLURM"), "these tests must run here, and there is no Slurm"
        pytest.skip("no Slurm here: apt-get install what slurm/testcluster/up names")
    pytest.importorskip("submitit", reason="no submitit here: pip install submitit")
    with pytest.MonkeyPatch.context() as patch:
        worker, place = (
            os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"),
            cluster_folder(os.environ["SIMCLIC_TESTS"]),
        )
        place.mkdir(exist_ok=True)
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # a copy of the code is compiled by its first task alone
        patch.setenv("SIMCLIC_TESTCLUSTER", str(place / worker))
        patch.setenv("SIMCLIC_TESTCLUSTER_PORT", str(find_ports(4)))

        def up(*words):
            done = subprocess.run([UP, "--cpus", "8", *words], stdout=subprocess.PIPE, text=True, check=True, timeout=120)
            return done.stdout.split("=", 1)[1].strip()

        patch.setenv("SLURM_CONF", up())
        yield up
        subprocess.run([DOWN], check=True, timeout=120)


@pytest.fixture
def here(cluster, tmp_path, monkeypatch):
    """A folder to work in, whose name would hurt a careless shell; whatever is left in the queue is cancelled."""
    place = tmp_path / "a b;touch pwned;$(touch pwned)'\""
    place.mkdir()
    monkeypatch.chdir(place)
    write_profile(place)
    yield place
    subprocess.run(["scancel", "--user=root", "--user", str(os.getuid())], check=False)
    wait("an empty queue", lambda: not slurm.read_queue())
    assert not list(tmp_path.rglob("pwned"))


def write_profile(place, **changes):
    lines = {"slurm_partition": '"debug"', "cpus_per_task": 1, "timeout_min": 20, "slurm_signal_delay_s": 30} | changes
    pack = {"least_min": lines.pop("least_min", 0.001), "images_per_second": 10}
    text = [f"{k} = {v}" for k, v in lines.items()] + ["[pack]"] + [f"{k} = {v}" for k, v in pack.items()]
    (place / "profile.toml").write_text("\n".join(text))


def exhibit(place, more="", epochs=2, also=""):
    (place / "small.py").write_text(EXHIBIT.format(epochs=epochs, more=more, also=also))


def submit(code=0):
    return simclic("submit", "small.py", "--on", "profile.toml", code=code)


def jobs():
    """Every job that is not done, by stage and name."""
    with redirect_stdout(io.StringIO()) as told:
        main(["status", "small.py", "--json"])
    return json.loads(told.getvalue())


def wait(what, happened, seconds=180.0, every=0.1):
    """Wait for something, asking every so many seconds; what it returns."""
    ends = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < ends, (
            f"waited for {what} in vain: {subprocess.run(['squeue'], capture_output=True, text=True).stdout}"
        )
        time.sleep(every)
    return found


def rows(run, runs=Path("runs")):
    """The log of a pre-training, without how fast it was."""
    return [{k: v for k, v in row.items() if k != "images/s"} for row in RunFolder(runs, run.name).log_rows()]


def epochs(run, n):
    """Wait until so many epochs are logged."""
    wait(f"{n} epochs", lambda: len(rows(run)) >= n)
    return len(rows(run))


def record(run, runs=Path("runs")):
    return read_json(runs / run.name / "pretrain.json")


def finished():
    wait("the end of all jobs", lambda: not slurm.read_queue(), 400, every=0.5)  # squeue costs as much as a step of training


def equal(run, runs, others):
    """Is it, bit by bit, what the other folder holds?"""
    ours, theirs = record(run, runs), record(run, others)
    assert ours["backbone_sha256"] == theirs["backbone_sha256"]
    assert rows(run, runs) == rows(run, others)
    mine, yours = RunFolder(runs, run).read_result(LINEAR), RunFolder(others, run).read_result(LINEAR)
    assert mine["curve"] == yours["curve"]
    assert mine["predictions_sha256"] == yours["predictions_sha256"]


KILLED = """
import os, signal, sys
from submitit.core.utils import JobPaths
move, count = JobPaths.move_temporary_file, [0]
def die(self, *a, **k):
    count[0] += 1
    if count[0] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    move(self, *a, **k)
JobPaths.move_temporary_file = die
from simclic.__main__ import main
main(sys.argv[1:])
"""


def test_submitted_by_one_that_is_killed_and_another_finished_reported_and_equal_to_one_process(here):
    exhibit(here, "tau=None, seed=(0, 1), ")
    node("drain")
    done = subprocess.run([sys.executable, "-c", KILLED, "submit", "small.py", "--on", "profile.toml"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len({job.id for job in slurm.read_queue().values()}) == 2  # Slurm has them, one without what they are to do
    (lost,) = records.list_launches(Path("runs"))
    assert not lost.slurm_number("pretrain-0")
    assert "pretrain  2 jobs in 2 tasks" in (told := submit())
    assert "linear    2 jobs in 2 tasks" in told
    assert not [job for job in slurm.read_queue().values() if lost.folder.name in job.name and job.state == "PENDING"]
    with pytest.MonkeyPatch.context() as patch:  # whatever the environment calls its user
        patch.setenv("LOGNAME", "nobody")
        patch.setenv("USER", "nobody")
        assert "4 jobs wait or run already\nnothing to submit" in submit()
    node("resume")
    finished()
    assert jobs()["total"]["done"] == 4
    assert "nothing to submit: every result is there" in submit()
    simclic("report", "small.py")
    for seed in (0, 1):
        compute_results(tiny(seed=seed), (LINEAR,), here / "by hand")
        equal(tiny(seed=seed), here / "runs", here / "by hand")
        assert [row["epoch"] for row in rows(tiny(seed=seed))] == [1, 2]  # trained once
        assert record(tiny(seed=seed))["job"].split("_")[0] == records.list_launches(Path("runs"))[0].slurm_number("pretrain-0")
        found = RunFolder(here / "runs", tiny(seed=seed)).read_result(LINEAR)
        assert re.fullmatch(r"\d+_[01]", found["job"])
        assert (found["node"], found["device"], found["restarts"]) == (os.uname().nodename, "cpu", 0)
        assert found["seconds"] > 0
        assert found["commit"] == collect_provenance()["commit"]
    for folder in (here / "runs/.launches", *(here / "runs/.launches").glob("2*"), *(here / "runs/.launches").glob("2*/*-*/")):
        assert folder.stat().st_mode & 0o777 == 0o700, folder


@pytest.fixture(scope="module")
def whole(cluster, tmp_path_factory):
    """A training of seconds that nothing interrupted, and where it lies."""
    runs = tmp_path_factory.mktemp("whole")
    compute_results(tiny(epochs=12), (LINEAR,), runs)
    return tiny(epochs=12), runs


@contextmanager
def frozen(run):
    """Stop the process that is at work on a Run, so that a training of seconds lasts. Yields its id."""
    process = wait("somebody at work", lambda: store_owner(Path("runs") / run.name))["pid"]
    os.kill(process, signal.SIGSTOP)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def pending(process, number):
    """Has a stopped process been sent this signal? If it is gone, it was sent it before it was stopped."""
    try:
        mask = re.search(r"^ShdPnd:\s+(\w+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)[1]
    except OSError:
        return True
    return int(mask, 16) >> (number - 1) & 1


def limit(job):
    """Let the time limit of a job, in whole minutes, end it half a minute to a minute and a half from now."""
    *hours, minutes, seconds = subprocess.run(
        ["squeue", "--noheader", "--jobs", job, "--format=%M"], capture_output=True, text=True, check=True
    ).stdout.split(":")
    assert not hours
    subprocess.run(["scontrol", "update", f"jobid={job}", f"timelimit={int(minutes) + 1 + (int(seconds) >= 30)}"], check=True)


def test_whatever_interrupts_a_training_it_ends_bit_identical(here, whole):
    """A real time limit, which sends USR2 as a preemption does, scontrol requeue and a node that goes down, one after another."""
    long, runs = whole
    exhibit(here, epochs=long.epochs)
    write_profile(here, slurm_signal_delay_s=60)  # a limit that is a minute away or less is met at once
    submit()
    job = wait("the job", lambda: [j for j in slurm.read_queue().values() if j.name.endswith("pretrain-0")])[0].id

    @contextmanager
    def interrupted():
        """Where it is further than before, and stopped for now: the rest of the training takes seconds. Then it is requeued."""
        epochs(long, len(rows(long)) + 1)
        with frozen(long) as process:
            begun = len(rows(long))
            assert begun < long.epochs
            yield process
        wait("the requeue", lambda: slurm.read_queue()[job].state == "PENDING")
        assert len(rows(long)) >= begun

    with interrupted() as process:
        limit(job)
        wait("the time limit", lambda: pending(process, signal.SIGUSR2))
        subprocess.run(["scontrol", "update", f"jobid={job}", "timelimit=20"], check=True)
    assert records.list_launches(Path("runs"))[0].find_task("pretrain-0", 0).read_state()["word"] == "requeued"
    assert (Path("runs") / long.name / "checkpoint").exists()
    with interrupted() as process:
        subprocess.run(["scontrol", "requeue", job], check=True)
        wait("the signal", lambda: pending(process, signal.SIGTERM))
    with interrupted() as process:
        node("down")
        wait("the signal", lambda: pending(process, signal.SIGTERM))
    node("resume")
    finished()
    found = record(long)
    equal(long, here / "runs", runs)
    assert found["restarts"] == 3
    assert len(found["resumed"]) >= 2
    assert all(step > 0 for step in found["resumed"])


def test_two_tasks_compute_one_training_are_requeued_once_and_another_data_set_is_evaluated_on(here):
    """Each starts one rank; a signal before a time limit reaches both, the first saves and requeues, and the same two go on."""
    run, on_birds = tiny(epochs=4), Knn(k=3, on="./birds")
    fill(here / "birds", 10)
    exhibit(here, epochs=run.epochs, also='Knn(k=3, on="./birds")')
    with open("profile.toml", "a") as f:
        f.write("\n[pretrain]\ntasks_per_node = 2\n[how]\nranks = 2\n")
    submit()
    job = wait("the job", lambda: [j for j in slurm.read_queue().values() if j.name.endswith("pretrain-0")])[0].id
    epochs(run, 1)
    with frozen(run) as process:
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
        wait("the signal", lambda: pending(process, signal.SIGUSR2))
    finished()
    found = record(run)
    assert found["ranks"] == [2, 2]
    assert found["restarts"] == 1
    assert found["resumed"][0] > 0
    assert not jobs()["jobs"]
    errors = compute_results(run, [on_birds], here / "runs", here / "data")  # the stored one
    assert RunFolder(here / "runs", run).read_result(on_birds)["job"]
    assert [name.endswith(", on birds") for name in errors] == [True]


def test_scancel_stays_cancelled_and_accounting_is_not_needed(here, cluster):
    run = tiny(epochs=16)
    exhibit(here, epochs=16)
    submit()
    epochs(run, 3)
    subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)
    finished()
    kept = len(rows(run))
    assert kept < 16
    assert (Path("runs") / run.name / "checkpoint").exists()  # saved on its way out
    assert next(job["why"] for job in jobs()["jobs"] if job["stage"] == "pretrain").startswith("CANCELLED by")
    stop("slurmdbd")
    told = jobs()
    (state,) = [job for job in told["jobs"] if job["stage"] == "pretrain"]
    assert state["word"] == "stopped"
    assert state["why"] == "stopped by SIGTERM, as scancel does"
    assert "why jobs ended is known only if they recorded it" in told["silent"][0]
    assert not slurm.read_queue()  # nobody has put it back
    submit()  # without accounting
    wait("the rest of the training", lambda: record(run))
    cluster()  # accounting is back
    assert [row["epoch"] for row in rows(run)] == list(range(1, 17))
    assert record(run)["resumed"][0] >= kept * 11


def test_children_of_a_failed_training_refuse_and_code_that_is_edited_after_submission_does_not_run(here, tmp_path, monkeypatch):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "simclic", source / "simclic", ignore=shutil.ignore_patterns("__pycache__"))
    exhibit(here, "base_lr=(1e30, 0.05)")
    write_profile(here, least_min=5)  # both in one task: the failure stays with the one that failed
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(source))
        assert "pretrain  2 jobs in 1 task" in alone("submit", "small.py", "--on", "profile.toml")
    for path in source.rglob("*.py"):
        path.write_text("raise RuntimeError('edited')\n")
    finished()
    bad, good = tiny(base_lr=1e30), tiny()
    assert RunFolder(Path("runs"), good).read_result(LINEAR)["error"] < 90
    states = {(job["run"], job["stage"]): job for job in jobs()["jobs"]}
    assert states[bad.name, "pretrain"]["word"] == "failed"
    assert "diverged: the loss is not finite" in states[bad.name, "pretrain"]["why"]
    assert states[bad.name, "linear"]["word"] == "waiting"
    assert states[bad.name, "linear"]["why"] == f"for pretrain {bad.name}, which has failed"
    refused = next(iter((here / "runs/.launches").glob("2*/linear-*/*_log.err"))).read_text()
    assert f"error: {bad.name}: {bad.name}: waits for its pre-training (diverged: the loss is not finite" in refused
    told = simclic("status", "small.py", code=1)
    assert "_log.err" in told
    assert "2 jobs failed before, or wait for one that did: simclic status ... --retry-failed\nnothing to submit" in submit()
    assert "pretrain  1 jobs in 1 task" in simclic("status", "small.py", "--retry-failed")
    assert len(slurm.read_queue()) == 2  # that encoder and its probe


def test_a_child_whose_parent_slurm_has_forgotten_looks_for_itself(here, cluster):
    cluster("--min-job-age", "2")
    exhibit(here)
    submit()
    queue = {job.name.rsplit("-", 2)[1]: job.id for job in slurm.read_queue().values()}
    subprocess.run(["scontrol", "hold", queue["linear"]], check=True)
    wait("the pre-training", lambda: record(tiny()))
    wait(
        "the purge",
        lambda: subprocess.run(["scontrol", "show", "job", queue["pretrain"]], capture_output=True, check=False).returncode,
    )
    (here / "runs" / tiny().name / "pretrain.json").unlink()
    subprocess.run(["scontrol", "release", queue["linear"]], check=True)
    finished()
    cluster()
    refused = next(iter((here / "runs/.launches").glob("2*/linear-*/*_log.err"))).read_text()
    assert "waits for its pre-training (there is no pretrain.json)" in refused
    assert RunFolder(Path("runs"), tiny()).read_result(LINEAR) is None
    states = {job["stage"]: job["word"] for job in jobs()["jobs"]}
    assert states == {"pretrain": "stopped", "linear": "waiting"}


def test_of_two_tasks_of_one_run_one_trains(here):
    run = tiny()
    on = profile.read_profile(here / "profile.toml")
    array = Array("pretrain", [[Job(run)] for _ in range(2)])
    begun = records.write_launch(
        [array], on, snapshot.copy_code(records.launches_folder(Path("runs"))), Path("runs"), Path("data")
    )
    _submit_arrays(begun, [array], on, Submitted())

    def states():
        return {i: job.state for i, job in slurm.read_history({begun.slurm_number("pretrain-0")}).items()}

    with frozen(run):
        wait("the end of the other", lambda: len(slurm.read_queue()) == 1)
    finished()

    wait("what accounting says of the end", lambda: "RUNNING" not in states().values(), 60)  # it hears a little later
    ended = states()
    owners = {record(run)["job"]}
    assert sorted(ended.values()) == ["COMPLETED", "FAILED"], ended
    assert {i for i, state in ended.items() if state == "COMPLETED"} == owners
    for task in begun.list_tasks():
        if task.slurm_id not in owners:
            (why,) = task.read_state()["elsewhere"].values()
            assert re.search(rf"process \d+ on .* \(job {min(owners)}\) is at work on it", why)
    assert record(run)["resumed"] == []
    assert [row["epoch"] for row in rows(run)] == [1, 2]


def many(place, count):
    """An exhibit of so many untrained encoders, and a probe of each."""
    untrained = {"dataset": "digits", "backbone": "test_resnet", "image_size": 8, "epochs": 0, "perturbation": "none"}
    words = f"x='image_size', protocols=({LINEAR!r},), runs=grid(seed=tuple(range({count})), **{untrained})"
    text = f'"""Many."""\nfrom simclic import Figure, Linear, grid\nFIGURE = Figure(name="size", caption="", {words})\n'
    (place / "small.py").write_text(text)


def test_many_short_jobs_at_once(here):
    many(here, 4)
    write_profile(here, least_min=30, cpus_per_task=2)
    assert "pretrain  4 jobs in 1 task" in submit()  # two at a time
    finished()
    total = jobs()["total"]
    assert (total["done"], sum(total.values())) == (8, 8)
    found = store.results(Path("runs"))
    assert len(found) == 4
    assert not found["problem"].any()


def node(state):
    """Set the node to a state. One that a new controller has not heard of yet cannot be resumed at once."""
    words = ["scontrol", "update", f"nodename={os.uname().nodename}", f"state={state}"]
    words += ["reason=test"] if state != "resume" else []
    up = ["sinfo", "--noheader", "--states=idle,mixed,allocated", "--format=%N"]  # what is up cannot be resumed

    def done():
        return subprocess.run(words, check=False, stderr=subprocess.DEVNULL).returncode == 0 or (
            state == "resume" and subprocess.run(up, capture_output=True, check=True).stdout.strip()
        )

    wait(state, done)


@contextmanager
def impatient():
    """Let the commands of Slurm, which know nothing of it, wait a second for a daemon that is not there."""
    conf = Path(os.environ["SLURM_CONF"])
    with pytest.MonkeyPatch.context() as patch:
        (conf.parent / "impatient.conf").write_text(conf.read_text() + "MessageTimeout=1\n")
        patch.setenv("SLURM_CONF", str(conf.parent / "impatient.conf"))
        yield


def stop(daemon):
    """End a part of the cluster; `cluster()` starts it again."""
    pid = int((Path(os.environ["SIMCLIC_TESTCLUSTER"]) / f"run/{daemon}.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait(f"the end of {daemon}", lambda: not Path(f"/proc/{pid}").exists())


def test_arrays_are_cut_to_what_the_cluster_takes(here, cluster):
    cluster("--max-array-size", "11")
    node("drain")
    many(here, 13)
    told = submit()
    assert re.findall(r"(\w+) +(\d+) jobs in (\d+) task", told) == [("pretrain", n, n) for n in ("11",)] + [
        ("linear", "11", "11"), ("pretrain", "2", "2"), ("linear", "2", "2")
    ]  # fmt: skip
    queued = slurm.read_queue()
    assert len(queued) == 26
    assert max(int(i.split("_")[1]) for i in queued) == 10
    assert "26 jobs wait or run already\nnothing to submit" in submit()
    slurm.cancel_jobs(set(queued))
    node("resume")
    cluster()


def limit_jobs(count):
    """Let this user have so many jobs and tasks in the queue; -1 for any number."""
    words = ["sacctmgr", "--immediate", "modify", "user", getpass.getuser(), "set", f"MaxSubmitJobs={count}"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def test_arrays_are_cut_to_what_the_user_may_submit(here):
    node("drain")
    many(here, 13)
    limit_jobs(10)
    try:
        told = submit(code=1)
        assert re.findall(r"(\w+) +(\d+) jobs in (\d+) task", told) == [
            ("pretrain", "3", "3"), ("linear", "3", "3"), ("pretrain", "3", "3")
        ]  # fmt: skip
        assert "MaxSubmitJobLimit" in told
        assert "17 tasks are left: submit again once some of your jobs have ended" in told
        assert "Slurm took no larger arrays: cut to 3 tasks each" in told
        assert len(slurm.read_queue()) == 9
        words = [(job["stage"], job["word"]) for job in jobs()["jobs"]]
        assert {word: words.count(word) for word in set(words)} == {
            ("calibrate", "queued"): 6, ("calibrate", "missing"): 7, ("linear", "waiting"): 3, ("linear", "missing"): 10
        }  # fmt: skip
        told = submit(code=1)
        assert "9 jobs wait or run already" in told
        assert "linear    1 jobs in 1 task" in told
        assert "16 tasks are left" in told
        assert len(slurm.read_queue()) == 10
        assert "wait until some of your jobs have ended" in simclic("doctor", "--on", "profile.toml", code=1)
        limit_jobs(-1)
        submit()
        assert len(slurm.read_queue()) == 26
    finally:
        limit_jobs(-1)
        slurm.cancel_jobs(set(slurm.read_queue()))
        node("resume")


def test_a_copy_of_the_code_that_is_edited_does_not_run(here):
    exhibit(here, "seed=7")
    node("drain")
    submit()
    code = records.list_launches(Path("runs"))[0].code
    (code / "simclic/metrics.py").write_text("raise RuntimeError('edited')\n")
    node("resume")
    finished()
    told = "".join(p.read_text() for p in (here / "runs/.launches").glob("2*/*/*_log.err"))
    assert "is no longer the code that was submitted: metrics.py differs; submit again" in told
    assert record(tiny(seed=7)) is None


def test_what_slurm_refuses_is_told_and_nothing_is_lost(here):
    exhibit(here, "seed=(0, 1)")
    write_profile(here, slurm_partition='"gpux"')
    told = submit(code=1)
    assert "error: Slurm refused: " in told
    assert "invalid partition specified: gpux" in told
    assert "Traceback" not in told
    write_profile(here)
    assert "pretrain  2 jobs in 2 tasks" in submit()


def test_slurm_that_does_not_answer_loses_nothing(here, cluster):
    exhibit(here)
    node("drain")
    submit()
    stop("slurmctld")
    with impatient():
        told = submit(code=2)
        assert told.startswith("error: squeue: ")
        assert told.count("\n") == 1
        states = jobs()
    assert {job["word"] for job in states["jobs"]} == {"unknown"}
    assert "which jobs wait or run is unknown, and no job counts as lost" in states["silent"][0]
    cluster()
    assert "2 jobs wait or run already\nnothing to submit" in submit()
    node("resume")


def test_the_doctor_asks_a_node(here):
    exhibit(here)
    with open("profile.toml", "a") as f:
        f.write("\n[pretrain]\ntasks_per_node = 2\n[how]\nranks = 2\n")
    told = simclic("doctor", "small.py", "--on", "profile.toml")
    for line in ("linear, finetune: torch: 2.", "pretrain: runs: ", "pretrain: data digits: is there", "checks passed"):
        assert line in told
    assert "pretrain: ranks: 2 of 2 tasks reached each other" in told
    write_profile(here, slurm_account='"nobody"', slurm_partition='"none"')
    assert "invalid partition specified: none" in simclic("doctor", "--on", "profile.toml", code=1)
    assert not list((here / "runs/.launches").glob("doctor-*"))
    wait("the end of the first probe", lambda: not slurm.read_queue())
    node("drain")
    write_profile(here)
    silent = Path("bin/squeue")  # answers every second time
    silent.parent.mkdir()
    silent.write_text(
        f'#!/bin/sh\nif rm {shlex.quote(str(here / "once"))} 2>/dev/null; then exec {shutil.which("squeue")} "$@"; fi\n'
        f": > {shlex.quote(str(here / 'once'))}; echo 'squeue: error: Socket timed out' >&2; exit 1\n"
    )
    silent.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(silent.parent.absolute()), prepend=os.pathsep)
        told = simclic("doctor", "--on", "profile.toml", "--wait", "3")
    assert re.search(r"every stage: (job \d+ has not answered in 3 s|squeue: .*timed out; job \d+ is cancelled)", told)
    assert not slurm.read_queue()
    node("resume")


def test_a_node_is_measured_and_prices_the_plan(here):
    exhibit(here)
    told = simclic("calibrate", "small.py", "--on", "profile.toml")
    assert "test_resnet at 16 pixels, float32: " in told
    values = read_json(here / "runs/.calibrated/profile.json")
    assert (values["device"], values["node"], values["processes"]) == ("cpu", os.uname().nodename, 1)
    assert re.fullmatch(r"\d+", values["job"])
    plan = json.loads(simclic("plan", "small.py", "--on", "profile.toml", "--json"))
    assert set(plan["sources"]) == {"calibrated"}
    assert not list((here / "runs/.launches").glob("calibrate-*"))
    node("drain")
    told = simclic("calibrate", "small.py", "--on", "profile.toml", "--wait", "3", code=2)
    assert re.fullmatch(r"(?s).*error: job \d+ has not answered in 3 s; wait longer with --wait SECONDS\n", told)
    node("resume")
