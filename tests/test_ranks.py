"""One pre-training on several processes is the same pre-training."""

import io
import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from multiprocessing import connection
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import spawned, start_process, tiny
from rich.console import Console
from torch import nn

from simclic import Finetune, InputError, Run, data, ranks, stop
from simclic.data.images import Images
from simclic.errors import RankLost
from simclic.experiment import METHODS, PERTURBATIONS, ComputeOptions, Job, count_cores
from simclic.schedule import doctor
from simclic.schedule.doctor import check_machine
from simclic.schedule.processes import run_locally
from simclic.schedule.profile import parse_profile
from simclic.schedule.task import explain_lost_task
from simclic.schedule.work import WorkerOptions
from simclic.store.run_folder import RunFolder
from simclic.train import loop
from simclic.train.pretrain import train_as_rank

CPU = torch.device("cpu")
STEPS, BATCH = 20, 16
CASES = {f"simclic {name}": {"method": "simclic", "perturbation": name} for name in PERTURBATIONS}
CASES |= {name: {"method": name} for name in METHODS if name != "simclic"}


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """Each rank wants a core: on a machine of one they take turns. Watches look often, before a short training has ended."""
    if count_cores() == 1:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("simclic.schedule.processes.wait", lambda pipes, timeout: connection.wait(pipes, timeout / 10))


class Small(nn.Module):
    """A backbone of two convolutions with batch norms, (B, 3, 16, 16) to (B, 16)."""

    num_features = 16

    def __init__(self):
        super().__init__()
        convolutions = [nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in ((3, 8), (8, 16))]
        self.layers = nn.Sequential(convolutions[0], nn.BatchNorm2d(8), nn.ReLU(), convolutions[1], nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, x):
        return self.layers(x).mean(dim=(2, 3))


def small_run(settings):
    """A Run on digits whose heads are small, too."""
    wanted = {"hidden_dim": 16, "predictor_dim": 8, "prototypes": 32, "queue_size": 64} | settings
    reads = {"method", "perturbation", *METHODS[settings["method"]].reads}
    same = {"dataset": "digits", "image_size": 16, "projector_dim": 8, "batch_size": BATCH, "precision": "float32", "epochs": 2}
    return Run(**same, **{name: value for name, value in wanted.items() if name in reads})


def train_all(cases):
    """The loss of every step, and all weights and states in the end, of each case."""
    digits, ended = data.load("digits", "ericsson", Path()), {}
    fit = torch.from_numpy(digits.splits.fit)
    for name, settings in cases.items():
        run, images, losses = small_run(settings), Images(digits, 16, CPU), []
        training = loop.Training(run, len(images), CPU, len(fit))
        if training.model.visits_first:
            training.visit_images(images, loop.shuffled_batches(fit, BATCH, range(10), 0, "visit"))
        batches = training.stream_batches(images, loop.shuffled_batches(fit, BATCH, range(STEPS), 0, "order"))
        for step, (pixels, index) in enumerate(batches):
            if step % (STEPS // 2) == 0:
                training.model.before_epoch(2 * step // STEPS)
            out = training.train_step(training.prepare_views(pixels, images), index, run.lr, (step + 1) / STEPS)
            losses.append(out.loss.detach())
            training.step += 1
        ended[name] = {"losses": torch.stack(losses), **training.model.state_dict()}
    return ended


def train_ranks(cases, rank, count, ports, path):
    """Train as one of some ranks, or alone."""
    # In double precision two sums in another order stay alike for 20 steps; in single they differ in the last bits at first, and
    # soon in the first digits at these learning rates.
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    loop.build_backbone = lambda run: Small()
    if count == 1:
        torch.save(train_all(cases), path)
        return
    if rank == 0:
        store = ranks.serve_store()
        ports.send(store.port)
    else:
        store = torch.distributed.TCPStore("127.0.0.1", ports.recv(), is_master=False)
    with ranks.join(store, rank, count, CPU, is_local=True):
        torch.save(train_all(cases), path)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What each case ended with: on one process, and on both of two."""
    folder, (theirs, ours) = tmp_path_factory.mktemp("ranks"), multiprocessing.Pipe(duplex=False)
    parts = [(0, 1, None), (0, 2, ours), (1, 2, theirs)]
    processes = [start_process(train_ranks, CASES, *part, folder / str(n)) for n, part in enumerate(parts)]
    for process in processes:
        process.join()
    return [torch.load(folder / str(n)) for n in range(3)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_what_one_trains(ended, name):
    """Every loss, weight, statistic, history, queue, bank and centre, after 20 steps and in double precision."""
    one, first, second = (each[name] for each in ended)
    assert len(one["losses"]) == STEPS
    assert not one["losses"][0].equal(one["losses"][-1])  # it does train
    assert one.keys() == first.keys()
    for part, value in one.items():
        assert torch.allclose(first[part].double(), value.double(), rtol=1e-6, atol=1e-8), part
        assert first[part].equal(second[part]), part  # ranks never drift apart, not by a bit


def test_a_rank_has_equal_rows_of_each_batch():
    assert ranks.own_rows(6) == slice(0, 6)  # of a single process, all
    x = torch.rand(4, 3)
    assert ranks.gather_rows(x) is x
    assert ranks.agree(True, False) == [True, False]


@pytest.mark.parametrize(
    ("batch", "norm", "line"),
    [
        (15, nn.BatchNorm2d(2), "batch_size=15 is not a multiple of ranks=2"),
        (1, nn.BatchNorm2d(2), "batch_size=1 is not a multiple of ranks=2"),
        (16, nn.BatchNorm1d(2), "ranks=2: a BatchNorm1d of this backbone cannot see all rows"),
    ],
)
def test_what_cannot_be_spread_is_one_line(monkeypatch, batch, norm, line):
    monkeypatch.setattr("simclic.ranks.spread.count_ranks", lambda: 2)
    model = nn.Sequential(norm)
    model.register_forward_hook(ranks.gather_output)
    with pytest.raises(InputError, match=line):
        ranks.Spread(model, batch)


# Started, stopped and resumed as the command line does it.

RUN = tiny(epochs=3, perturbation="history")  # of 3 x 11 steps


def run_with(path, count, watch=lambda running, outcome: None, run=RUN, minutes=0.0):
    """The outcome of a Run on `count` ranks, and the record of its encoder."""
    options = WorkerOptions(path, path, ComputeOptions(ranks=count, minutes=minutes))
    outcome = run_locally([Job(run)], options, Console(file=io.StringIO()), watch)
    return outcome, RunFolder(path, run).encoder_record()


def signal_rank(number, rank, sent=None):
    """A watch that sends a signal to a rank as soon as there is a checkpoint; at most once, and appends the time to `sent`."""
    sent = [] if sent is None else sent

    def watch(running, outcome):
        for process in running:
            if not sent and process.share > 0.1 and process.ranks.processes:
                os.kill((process.ranks.processes[rank] if rank else process.process).pid, number)
                sent.append(time.monotonic())

    return watch


def test_a_rank_that_is_killed_is_named_and_the_run_goes_on_with_any_number(tmp_path):
    sent = []
    outcome, record = run_with(tmp_path, 2, signal_rank(signal.SIGKILL, 1, sent))
    assert record is None
    (why,) = outcome.failures.values()
    assert re.fullmatch(r"rank 1 of 2 \(cpu of \S+\) ended or did not answer for 45 s; run it again, .* last checkpoint", why)
    assert time.monotonic() - sent[0] < 60
    outcome, record = run_with(tmp_path, 1)
    assert not outcome.failures
    assert record["ranks"] == [2, 1]
    assert len(record["resumed"]) == 1
    assert 0 < record["resumed"][0] < 3 * 11


def test_a_rank_that_is_killed_before_it_joins_is_named_at_once(tmp_path):
    def kill(running, outcome):
        for rank in (rank for process in running for rank in process.ranks.processes.values()):
            rank.kill()

    began = time.monotonic()
    outcome, record = run_with(tmp_path, 2, kill)
    assert record is None
    why = "rank 1 of 2 failed before it could take part: its process ended with exit code -9; run it again"
    assert list(outcome.failures.values()) == [why]
    assert time.monotonic() - began < 120  # where a slow start may take ten minutes


def test_a_rank_that_cannot_read_its_data_says_why(tmp_path):
    store = ranks.serve_store()

    def load_dataset():
        raise InputError("digits: gone")

    with pytest.raises(InputError, match="digits: gone"):
        train_as_rank(RUN, load_dataset, tmp_path, CPU, ComputeOptions(ranks=2), (1, ranks.LOOPBACK, store.port))
    why = "rank 1 of 2 failed before it could take part: InputError: digits: gone; run it again"
    with pytest.raises(RankLost, match=re.escape(why)), ranks.join(store, 0, 2, CPU, is_local=True):
        pass


def test_a_rank_that_sees_other_data_does_not_take_part(tmp_path, digits):
    RunFolder(tmp_path, RUN).create_folder("another digest")
    store = ranks.serve_store()
    with pytest.raises(InputError, match=f"data 'another digest' there, '{digits.digest}' here"):
        train_as_rank(RUN, lambda: digits, tmp_path, CPU, ComputeOptions(ranks=2), (1, ranks.LOOPBACK, store.port))


def test_a_first_rank_that_is_killed_takes_the_others_along(tmp_path):
    ranks = []

    def watch(running, outcome):
        ranks.extend(process for each in running for process in each.ranks.processes.values() if process not in ranks)
        kill(running, outcome)

    kill = signal_rank(signal.SIGKILL, 0)
    outcome, record = run_with(tmp_path, 2, watch)
    assert record is None
    assert list(outcome.failures.values()) == ["rank 0 of 2 here was killed (exit code -9); out of memory?"]
    assert len(ranks) == 1
    assert not ranks[0].is_alive()


def test_a_stop_reaches_all_ranks_and_saves_once_and_the_same_bits_follow(tmp_path):
    whole = run_with(tmp_path / "whole", 2, minutes=10)[1]
    outcome, record = run_with(tmp_path / "stopped", 2, signal_rank(signal.SIGTERM, 1), minutes=10)
    assert record is None
    assert "its work is saved" in next(iter(outcome.failures.values()))
    folder = RunFolder(tmp_path / "stopped", RUN).path
    assert [path.name for path in folder.glob("*checkpoint*")] == ["checkpoint"]
    resumed = run_with(tmp_path / "stopped", 2)[1]
    assert resumed["ranks"] == [2, 2]
    assert resumed["backbone_sha256"] == whole["backbone_sha256"]


def test_a_training_that_diverges_ends_all_ranks_with_one_line(tmp_path):
    outcome, record = run_with(tmp_path, 2, run=tiny(base_lr=1e30))
    assert record is None
    assert "the loss is not finite at step" in next(iter(outcome.failures.values()))


def test_more_ranks_than_cores_are_a_line(tmp_path):
    with pytest.raises(InputError, match=rf"ranks=4096 is more than the {count_cores()} CPU cores here; use {count_cores()}"):
        run_with(tmp_path, 4096)


def test_the_store_of_ranks_on_one_machine_is_reached_from_no_other():
    store = ranks.serve_store()
    socket.create_connection((ranks.LOOPBACK, store.port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", store.port))  # this machine, too, as any other address of it


def lose_store(port, pipe):
    """Wait for the store of a first rank that ends. Send what is printed on stderr meanwhile."""
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        store = ranks.reach_store(ranks.LOOPBACK, port.recv())
        store.set("reached", "")
        with suppress(RuntimeError):
            store.wait(["start"], timedelta(seconds=60))
        printed.seek(0)
        pipe.send(printed.read().decode())


def serve_and_end(port):
    store = ranks.serve_store()
    port.send(store.port)
    while not store.check(["reached"]):
        time.sleep(0.05)
    os._exit(1)


def test_nothing_is_printed_by_ranks_whose_first_one_ended():
    theirs, ours = multiprocessing.Pipe(duplex=False)
    first = start_process(serve_and_end, ours)
    other, answer = spawned(lose_store, theirs)
    assert answer.recv() == ""
    for process in (first, other):
        process.join()


def hang(rank, port, pipe):
    """Two ranks, of which the second does not take part in a step."""
    sys.modules["simclic.ranks.join"].SILENCE = timedelta(seconds=5)
    if rank == 0:
        store = ranks.serve_store()
        port.send(store.port)
    else:
        store = ranks.reach_store(ranks.LOOPBACK, port.recv())
    try:
        with ranks.join(store, rank, 2, CPU, is_local=True):
            time.sleep(3600 * rank)
            ranks.agree(False)
    except RankLost as e:
        pipe.send(str(e))


def test_a_rank_that_hangs_is_named(tmp_path):
    theirs, ours = multiprocessing.Pipe(duplex=False)
    first, answer = spawned(hang, 0, ours)
    second, _ = spawned(hang, 1, theirs)
    assert answer.recv().startswith("rank 1 of 2 (cpu of ")
    second.kill()
    for process in (first, second):
        process.join()


def leave(rank, port, pipe):
    """Two ranks, of which the second is slow to read what the first says last: at the end, and when both are stopped."""

    def take_part(stops):
        if rank == 0:
            store = ranks.serve_store()
            port.send(store.port)
        else:
            store = ranks.reach_store(ranks.LOOPBACK, port.recv())
        with suppress(stop.Stopped), ranks.join(store, rank, 2, CPU, is_local=True):
            with ranks.first_alone():
                time.sleep(rank)
            if stops:
                raise stop.Stopped

    for stops in (False, True):
        take_part(stops)
        pipe.send(stops)


def test_the_first_rank_leaves_last(tmp_path):
    """With it ends the store, without which a slow rank would fail after all was done or saved."""
    theirs, ours = multiprocessing.Pipe(duplex=False)
    first, _ = spawned(leave, 0, ours)
    second, answer = spawned(leave, 1, theirs)
    for process in (second, first):
        process.join()
        assert process.exitcode == 0
    assert [answer.recv() for _ in range(2)] == [False, True]


def test_the_doctor_lets_ranks_reach_each_other(tmp_path):
    (two,) = (each for each in check_machine(tmp_path, tmp_path, (), ranks=2) if each.what == "ranks")
    assert (two.passed, two.text) == (True, "2 reached each other on cpu")
    (many,) = (each for each in check_machine(tmp_path, tmp_path, (), ranks=4096) if each.what == "ranks")
    assert not many.passed
    assert many.text.startswith(f"ranks=4096 is more than the {count_cores()} CPU cores here")


@pytest.mark.parametrize(("mode", "warns"), [("CANCEL", True), ("GANG,CANCEL", True), ("REQUEUE", False), ("OFF", False)])
def test_the_doctor_says_where_a_preempted_task_is_cancelled(tmp_path, monkeypatch, mode, warns):
    monkeypatch.setattr(doctor.slurm, "read_settings", lambda: {"PreemptMode": mode})
    monkeypatch.setattr(doctor.slurm, "read_history", lambda ids: {})
    monkeypatch.setattr(doctor, "ask_nodes", lambda *given: {})
    findings = doctor.check_cluster(parse_profile("p", {}), tmp_path, tmp_path, [], 1.0, print)
    told = [each for each in findings if each.what == "preemption"]
    assert len(told) == warns
    assert all(each.passed is None and each.way.startswith("submit again after a preemption") for each in told)


def test_two_processes_train_a_grid_to_the_bits_of_one_whatever_is_killed(tmp_path):
    grid = Finetune(steps=8, batch_size=16, lr_low=0.01, lr_count=3, decay_count=1, precision="float32")
    run, killed, seen = Run(dataset="digits", backbone="test_resnet", image_size=16, epochs=0, perturbation="none"), [], []

    def tune(folder, count, watch=lambda running, outcome: None):
        options = WorkerOptions(tmp_path / folder, tmp_path, ComputeOptions(ranks=count, members=1, minutes=0.0))
        return run_locally([Job(run, grid)], options, Console(file=io.StringIO()), watch)

    def kill(running, outcome):
        files = [path.name for path in (tmp_path / "two" / run.name).glob("*finetune*-1*")]
        for process in (rank for each in running for rank in each.ranks.processes.values() if files and not killed):
            process.kill()
            killed.extend(files)

    def note(running, outcome):
        seen.extend(rank for process in running for rank in process.ranks.processes)

    (why,) = tune("two", 2, kill).failures.values()
    assert killed
    assert why == "rank 1 of 2 failed before it was done: its process ended with exit code -9; run it again"
    assert not tune("two", 2, note).failures
    assert set(seen) == {1}
    assert not tune("one", 1).failures
    two, one = (RunFolder(tmp_path / folder, run) for folder in ("two", "one"))
    theirs, ours = (folder.read_result(grid) for folder in (two, one))
    assert len(ours["curve"]) == 6
    assert {name: ours[name] for name in ("curve", "error", "chosen", "predictions_sha256")} == {
        name: theirs[name] for name in ("curve", "error", "chosen", "predictions_sha256")
    }
    assert not [path.name for path in two.path.iterdir() if path.name.strip(".").startswith(("partial", "checkpoint"))]


def test_different_kinds_of_device_are_one_line():
    store = ranks.serve_store()
    store.set("rank 1", json.dumps({"host": "n2", "device": "cuda:0", "kind": "NVIDIA A100"}))
    line = r"ranks=2 are on different devices \(cpu, NVIDIA A100\); ask for one kind, or set ranks=1"
    with pytest.raises(InputError, match=line), ranks.join(store, 0, 2, CPU, is_local=True):
        pass


def test_a_task_of_a_job_that_was_lost_is_named(tmp_path):
    log = tmp_path / "log.err"
    task = SimpleNamespace(messages=lambda job: log)
    assert explain_lost_task(task) == ""
    log.write_text("srun: error: n2: task 1: Killed\nsrun: launch/slurm: _step_signal: Terminating StepId=3.0\n")
    assert explain_lost_task(task) == "task 1 of this job on n2 ended: Killed; the work of the others is saved: submit again"
    log.write_text("srun: error: n3: tasks 4,6-7: Killed\nsrun: error: n1: tasks 0-1: Terminated\n")
    assert explain_lost_task(task).startswith("task 4 of this job on n3 ended: Killed; ")
    log.write_text("srun: error: n1: task 0: Exited with exit code 75\n")  # itself
    assert explain_lost_task(task) == ""
