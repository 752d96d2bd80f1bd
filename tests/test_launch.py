"""Doing the work: real processes, real images, interrupted and resumed."""

import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import simclic, wait
from conftest import ROOT, compute_results, spawned, tiny
from rich.console import Console

from simclic import Finetune, InputError, Linear, data, load
from simclic.experiment import Job
from simclic.schedule import child
from simclic.schedule import processes as launch
from simclic.schedule.plan import plan
from simclic.schedule.processes import _record_outcome
from simclic.schedule.run_progress import RunProgress
from simclic.schedule.work import WorkerOptions
from simclic.store.run_folder import RunFolder

SIMCLIC = [sys.executable, "-m", "simclic"]


def stamps(runs):
    """Every finished file and when it was written."""
    return {p: p.stat().st_mtime_ns for p in runs.glob("*/*") if p.is_file() and not p.name.startswith(".")}


def result_files(finished):
    """Of these files, those of the results. A result's numbers are written after its predictions, and make it finished."""
    return {p for p in finished if p.name.startswith(("finetune", "linear")) and p.with_suffix(".json") in finished}


def test_run_reports_and_a_second_run_trains_nothing(finished, tmp_path, monkeypatch):
    first = (finished / "told.txt").read_text()
    assert "3 encoders to go" in first
    assert "about 0 s left" in first
    assert first.rstrip().endswith("reports/out/index.html")
    assert (finished / "reports/out/index.html").is_file()
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "here"))
    before = stamps(Path("runs"))
    assert len(before) == 3 * (5 + 2 * 2)  # run, log, weights, features, record; two results with predictions
    assert "nothing to train" in simclic("run", "table2.py")
    assert stamps(Path("runs")) == before


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(exhibit, tmp_path, monkeypatch):
    """Each process of the tree gets the signal, as terminals send it. On one core, so that one Run is begun after another."""
    monkeypatch.chdir(tmp_path)
    exhibit.write_text(exhibit.read_text().replace(', "history")', ")"))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        process = subprocess.Popen([*SIMCLIC, "run", exhibit], stderr=subprocess.PIPE, text=True, start_new_session=True)
    finally:
        os.sched_setaffinity(0, cores)
    wait(lambda: list(tmp_path.glob("runs/*/linear-*.json")))
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; all finished work is saved" in told
    assert "Traceback" not in told
    kept = stamps(tmp_path / "runs")
    done = result_files(kept)
    assert 2 <= len(done) < 2 * 4  # it was in the middle
    for left in (".*", "owner*.json", "failed-*"):  # nothing half-written, nothing at work, no failure
        assert not list(tmp_path.glob(f"runs/*/{left}"))
    simclic("run", exhibit)
    after = stamps(tmp_path / "runs")
    assert {p: after[p] for p in done} == {p: kept[p] for p in done}
    assert len(result_files(after)) == 2 * 4


def test_numbers_do_not_depend_on_how_many_processes_there_are(finished, tmp_path, monkeypatch):
    before = int(re.search(r"computing on .*, (\d+) at a time", (finished / "told.txt").read_text())[1])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1} if before == 1 else {0})
    jobs = [job for job in load(finished / "table2.py").jobs if job.run.perturbation != "dropout"]
    told = io.StringIO()
    launch.run_locally(jobs, WorkerOptions(tmp_path, tmp_path), Console(file=told))
    assert f"{2 if before == 1 else 1} at a time" in told.getvalue()
    assert len(jobs) == 4
    for job in jobs:
        one, other = (RunFolder(runs, job.run).read_result(job.protocol) for runs in (finished / "runs", tmp_path))
        assert one["curve"] == other["curve"]
        assert one["predictions_sha256"] == other["predictions_sha256"]
        assert one["threads"] == other["threads"] == 1


def test_one_failure_does_not_stop_the_others_and_is_recorded(tmp_path):
    jobs = [
        Job(tiny(base_lr=1e30), Linear(l2_low=0.1, l2_count=2, tolerance=1e-2)),
        Job(tiny(perturbation="dropout"), Linear(l2_low=0.1, l2_count=2, tolerance=1e-2)),
    ]
    outcome = launch.run_locally(jobs, WorkerOptions(tmp_path, tmp_path), Console(file=io.StringIO()))
    assert outcome.finished == 1
    assert list(outcome.failures) == [tiny(base_lr=1e30).name]
    assert "diverged: the loss is not finite at step" in outcome.failures[tiny(base_lr=1e30).name]
    assert "pretrain: diverged: the loss is not finite" in RunFolder(tmp_path, tiny(base_lr=1e30)).failure_text()
    assert RunFolder(tmp_path, tiny(perturbation="dropout")).read_result(jobs[1].protocol) is not None


def ended(tmp_path, outcome, code, file=None):
    """What becomes of a process that ended like this. file: where the line about it goes."""
    told = launch.Outcome()
    process = launch.Process([Job(tiny())], ["cpu"], 1.0, type("P", (), {"exitcode": code})(), None, outcome=outcome)
    RunFolder(tmp_path, tiny()).create_folder("d1")
    _record_outcome(process, told, tmp_path, RunProgress(Console(file=file or io.StringIO()), 1.0, 1))
    return told


def test_why_a_run_failed_is_printed_as_it_is(tmp_path):
    why = "needs lightly: pip install 'simclic[methods]'; [/red] \x1b[31m"
    ended(tmp_path, ("failed", why), 0, file := io.StringIO())
    assert file.getvalue().endswith(": failed: needs lightly: pip install 'simclic[methods]'; [/red] \\x1b[31m\n")


def test_the_time_left_is_never_negative():
    progress = RunProgress(Console(file=(file := io.StringIO())), 0.1 + 0.7, 2)
    progress.started -= 9
    for price in (0.7, 0.1 + 1e-12):
        progress.print_ended("a", price, "done")
    assert "[100%, 9 s, about 0 s left] a: done" in file.getvalue()


def test_a_process_that_is_killed_is_a_failure_with_its_exit_code(tmp_path):
    told = ended(tmp_path, None, -9)
    assert told.failures == {tiny().name: "its process was killed (exit code -9); out of memory?"}
    assert RunFolder(tmp_path, tiny()).failure_text().startswith("pretrain: its process was killed")


ROOM = "cpu has not enough memory for batches of 128 at 16 pixels; use a larger one, or fewer processes on it"
SAID = (
    (OSError(28, "Full", "a/b"), "stopped", "a/b: Full; free some, or choose another place with --runs DIR"),
    (OSError(13, "Permission denied", "a/b"), "stopped", "a/b: Permission denied"),
    (MemoryError(), "stopped", ROOM),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: ..."), "stopped", ROOM),
    (RuntimeError("boom"), "crashed", "Traceback"),
)


def meets(folder, pipe):
    """A child process whose work meets one error after another; the last ends it."""
    for error, _, _ in SAID:
        child.run_jobs = lambda *_, error=error: (_ for _ in ()).throw(error)
        child.run_child(pipe, [Job(tiny())], WorkerOptions(folder, folder, folder=str(folder)), {})


def test_what_a_child_says_of_an_error(tmp_path):
    process, ours = spawned(meets, tmp_path)
    for _, kind, told in SAID:
        found = ours.recv()
        assert (found[0], found[1][: len(told)]) == (kind, told)
        assert kind == "crashed" or found[1] == told
    process.join()
    assert process.exitcode == 1


def test_where_torch_finds_no_memory_to_start_in_it_is_a_line(exhibit, tmp_path):
    found = subprocess.run(
        [*SIMCLIC, "run", str(exhibit)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31)),
    )  # fmt: skip
    assert found.returncode == 2
    assert "error: torch cannot be imported here" in found.stderr.splitlines()[-1]  # killed, or by what the linker says
    assert "Traceback" not in found.stderr


def test_a_programming_error_keeps_its_traceback_and_stops_nobody(tmp_path):
    told = ended(tmp_path, ("crashed", "Traceback ...\nValueError: boom"), 1)
    assert told.failures == {tiny().name: "ValueError: boom"}
    assert "Traceback" in told.crashes[tiny().name]


def test_a_folder_that_cannot_be_written_fails_that_run_alone(tmp_path):
    (tmp_path / tiny().name).write_text("a file where the folder should be")
    jobs = [Job(run, Linear(l2_low=0.1, l2_count=2, tolerance=1e-2)) for run in (tiny(), tiny(epochs=1))]
    outcome = launch.run_locally(jobs, WorkerOptions(tmp_path, tmp_path), Console(file=io.StringIO()))
    assert outcome.finished == 1
    assert not outcome.crashes
    assert "cannot be written (File exists)" in outcome.failures[tiny().name]


def test_work_tells_how_far_it_is(tmp_path):
    told = []
    protocols = (
        Linear(l2_low=0.1, l2_count=3, tolerance=1e-2),
        Finetune(steps=2, lr_count=1, decay_count=0, augment="none", precision="float32"),
    )
    errors = compute_results(tiny(), protocols, tmp_path, tell=lambda share, note: told.append(share))
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] <= 1
    assert set(errors) == {"linear evaluation", "fine-tuned"}
    result = json.loads((tmp_path / tiny().name / f"{protocols[0].name}.json").read_text())
    assert result["sizes"] == {"train": 1078, "val": 359, "test": 360, "fit": 1437}
    assert {"error", "metric", "chosen", "curve", "seed", "seconds", "device", "versions", "commit"} <= set(result)


def test_a_worker_reads_the_record_of_its_encoder_once(tmp_path, monkeypatch):
    protocols, read, read_bytes = [Linear(l2_low=0.1, l2_count=count, tolerance=1e-2) for count in (2, 3)], [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or read_bytes(path))
    compute_results(tiny(epochs=1), protocols, tmp_path)
    assert read.count("pretrain.json") == 1


def test_a_worker_loads_the_images_of_its_run_once(tmp_path, monkeypatch):
    protocols, loaded, load_data = [Linear(l2_low=0.1, l2_count=count, tolerance=1e-2) for count in (2, 3)], [], data.load
    monkeypatch.setattr(data, "load", lambda name, *given, **more: loaded.append(name) or load_data(name, *given, **more))
    assert len(compute_results(tiny(epochs=1), protocols, tmp_path)) == 1  # of the last of one title
    assert loaded == ["digits"]


def test_an_absent_data_set_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="CIFAR10 is not there"):
        compute_results(tiny(dataset="cifar10"), (Linear(),), tmp_path)


def test_the_whole_miniature_can_be_planned():
    made = plan([load(ROOT / "benchmarks/digits.py")], ROOT / "nowhere", ROOT / "nowhere")
    assert not made.absent
    assert {job.run.dataset for job in made.open_results} == {"digits"}
