"""A training that is killed at any moment ends bit-identical to one that was not."""

import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import start_process, tiny

from simclic import InputError, Run, data, files
from simclic.data import Splits
from simclic.data.images import Images
from simclic.errors import Diverged
from simclic.experiment import METHODS, ComputeOptions
from simclic.store.claim import Busy, hold_claim
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint, loop, numerics, pretrain

CPU = torch.device("cpu")
STEPS = 32
RUN = {"epochs": 2, "batch_size": 16}
RUNS = {"simclic": tiny(perturbation="history", **RUN), "simsiam": tiny(method="simsiam", **RUN)}


@cache
def small(batch_size):
    """Digits to train on, for 16 steps an epoch, or for 4 of larger batches."""
    digits, n = data.load("digits", "ericsson", Path()), batch_size * (16 if batch_size == 16 else 4)
    return replace(digits, splits=Splits(digits.splits.train[: n - 56], digits.splits.val[:56], digits.splits.test))


def state(training, path):
    """SHA-256 over every weight, statistic, momentum and row of the history, and every metric."""
    h, parts = hashlib.sha256(), training.state_dict()
    for name, value in sorted(parts["model"].items()):
        h.update(name.encode() + value.cpu().numpy().tobytes())
    for group in parts["optimizer"]["state"].values():
        h.update(group["momentum_buffer"].cpu().numpy().tobytes())
    for line in (path / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        del row["images/s"]
        h.update(json.dumps(row).encode())
    return h.hexdigest()


def trained(path, run=RUNS["simclic"], minutes=0.0, device=CPU):
    """Train to the end; returns the state's digest and where it was resumed."""
    made, original = [], loop.Training
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Training", lambda *a: made.append(original(*a)) or made[-1])
        path.mkdir(exist_ok=True)
        dataset = small(run.batch_size)
        images = Images(dataset, run.image_size, device)
        _, record = loop.train(
            run,
            dataset,
            images,
            RunFolder(path.parent, path.name),
            lambda share, note: None,
            options=ComputeOptions(minutes=minutes),
        )
    return state(made[0], path), record["resumed"]


class Uncut(NamedTuple):
    """A training that was never stopped and never saved: the state's digest at its end; a checkpoint's content on the way."""

    digest: str
    content: bytes
    log: bytes


def uncut(path, run, at):
    stored = io.BytesIO()

    def keep(_, content):
        if content["step"] == at:
            torch.save(content, stored)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", keep)
        digest, resumed = trained(path, run)
    assert resumed == []
    return Uncut(digest, stored.getvalue(), (path / "log.jsonl").read_bytes())


def go_on(path, run, before, change):
    """Train from a checkpoint's content, changed, to the end; the state's digest and where it was resumed."""
    path.mkdir()
    (path / "log.jsonl").write_bytes(before.log)
    checkpoint.save(path / "checkpoint", change(torch.load(io.BytesIO(before.content), weights_only=False)))
    return trained(path, run, minutes=10)


LATE = 26  # late in an epoch: its probe has much to forget


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    return {method: uncut(tmp_path_factory.mktemp(method), run, LATE) for method, run in RUNS.items()}


@pytest.fixture
def whole(wholes):
    """The digest of SimCLIC's."""
    return wholes["simclic"].digest


# In processes of their own, which kill themselves.


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_step(step):
    original = numerics.first_nonfinite

    def watched(loss, at, first):
        if at == step:
            die()
        return original(loss, at, first)

    numerics.first_nonfinite = watched


def kill_at_seam(seam, save):
    """Die at one seam of the `save`-th checkpoint."""
    count, write, fsync, rename = [0], checkpoint.save, os.fsync, os.replace

    def counted(path, content):
        count[0] += 1
        if count[0] == save and seam == "before it":
            die()
        write(path, content)
        if count[0] == save and seam == "after it":
            die()

    class Half(io.FileIO):
        def write(self, payload):
            if self.tell() > 50_000:
                super().write(bytes(payload)[: len(payload) // 2])
                die()
            return super().write(payload)

    def synced(number):
        if count[0] == save and seam == "before fsync":
            die()
        fsync(number)

    def renamed(source, target):
        first = str(target).endswith("checkpoint.previous")
        if count[0] == save and seam == ("before the first rename" if first else "between the renames"):
            die()
        rename(source, target)

    def opened(path, mode):
        return Half(path, mode) if count[0] == save and seam == "half written" else open(path, mode)

    checkpoint.save, os.fsync, os.replace = counted, synced, renamed
    files.open = opened


def child(path, run, device, act, *arguments):
    if device.type == "cuda":  # a GPU repeats its bits if it is asked to
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
    act(*arguments)
    (path / "result.json").write_text(json.dumps(trained(path, run, device=device)))


def nothing():
    pass


def run_child(path, act, *arguments, run=RUNS["simclic"], device=CPU):
    """The exit code of a training in a process of its own."""
    process = start_process(child, path, run, device, act, *arguments)
    process.join()
    return process.exitcode


@pytest.mark.parametrize(("method", "kills"), [("simclic", 5), ("simsiam", 3)])
def test_killed_at_random_steps(tmp_path, wholes, method, kills):
    steps = sorted(random.Random(0).sample(range(1, STEPS), kills))
    for step in steps:
        assert run_child(tmp_path, kill_at_step, step, run=RUNS[method]) == -signal.SIGKILL
        assert not (tmp_path / "result.json").exists()
    assert run_child(tmp_path, nothing, run=RUNS[method]) == 0
    digest, resumed = json.loads((tmp_path / "result.json").read_text())
    assert digest == wholes[method].digest
    assert resumed == steps  # a checkpoint after every step: not one is lost, and none began at 0 again
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("method", RUNS)
def test_killed_in_bf16_on_each_device(tmp_path, device, method):
    run, device = replace(RUNS[method], precision="bf16", image_size=32, epochs=1), torch.device(device)
    for name, kill in (("whole", None), ("killed", 9)):
        (tmp_path / name).mkdir()
        if kill:
            assert run_child(tmp_path / name, kill_at_step, kill, run=run, device=device) == -signal.SIGKILL
        assert run_child(tmp_path / name, nothing, run=run, device=device) == 0
    (whole, _), (digest, resumed) = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed"))
    assert (digest, resumed) == (whole, [9])


SEAMS = ("before it", "half written", "before fsync", "before the first rename", "between the renames", "after it")


@pytest.mark.parametrize("seam", SEAMS)
def test_killed_while_a_checkpoint_is_written(tmp_path, whole, seam):
    assert run_child(tmp_path, kill_at_seam, seam, 20) == -signal.SIGKILL
    assert not (tmp_path / "result.json").exists()
    digest, resumed = trained(tmp_path)
    assert resumed == [20 if seam == "after it" else 19]
    assert digest == whole


@pytest.mark.parametrize("g", ["dropout", "noise"])
def test_the_other_perturbations_resume_exactly_too(tmp_path, g, monkeypatch):
    run = tiny(perturbation=g, **RUN)
    expected, _ = trained(tmp_path / "whole", run, minutes=10)
    save, counted = checkpoint.save, []

    def stop(path, content):
        save(path, content)
        counted.append(content["step"])
        if len(counted) == 21:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", run)
    np.random.seed(5)
    torch.manual_seed(5)
    random.seed(5)  # none of these is part of the state, and none may matter
    digest, resumed = trained(tmp_path / "stopped", run)
    assert (digest, resumed) == (expected, [21])


def fresh(part, content, run):
    """A checkpoint's content as if one part of the state had been forgotten."""
    start = loop.Training(run, 1797, CPU).state_dict()
    kinds = {
        "weights": lambda n: n.endswith((".weight", ".bias")),
        "batch norm statistics": lambda n: "running" in n,
        "history": lambda n: n == "z_before",
        "which images have a history": lambda n: n == "seen",
    }
    if part in kinds:
        content["model"] = {n: start["model"][n] if kinds[part](n) else v for n, v in content["model"].items()}
    elif part == "momentum":
        content["optimizer"]["state"] = {}
    elif part == "step":
        content["step"] -= 1
    else:
        content["watch"][part] = start["watch"][part]
    return content


PARTS = ("weights", "batch norm statistics", "history", "which images have a history", "momentum", "step")


WATCHED = ("sums", "features", "z", "index")
CASES = [("simclic", part) for part in (*PARTS, *WATCHED, "nothing")]
CASES += [("simsiam", part) for part in ("weights", "batch norm statistics", "momentum", "step", "sums", "nothing")]


@pytest.mark.parametrize(("method", "part"), CASES)
def test_every_part_of_the_state_is_needed(tmp_path, wholes, method, part):
    def forget(content):
        return content if part == "nothing" else fresh(part, content, RUNS[method])

    digest, resumed = go_on(tmp_path / "on", RUNS[method], wholes[method], forget)
    assert resumed == [LATE - (part == "step")]
    assert (digest == wholes[method].digest) == (part == "nothing")


def short(method):
    """A Run of any method that takes 8 steps, small in whatever it reads."""
    small = {"hidden_dim": 16, "queue_size": 24, "prototypes": 12, "norm_groups": 4}
    small |= {"teacher_temperature": 0.07, "teacher_warmup": 1.0, "noise_images": 8}
    read = {name: value for name, value in small.items() if name not in Run(method=method).unread}
    predictor = {} if "predictor_dim" not in Run(method=method).unread else {"predictor_dim": Run().predictor_dim}
    return tiny(method=method, epochs=2, batch_size=32, base_lr=1.0, **read, **predictor)


OTHERS = [method for method in METHODS if method not in RUNS]


def list_parts(state):
    """The parts of a method's state: the weights of its modules, their statistics, and each other tensor, as a queue's."""
    kinds = {name: name.rpartition(".")[2] for name in state if not name.endswith("num_batches_tracked")}
    shared = {name: "weights" if kind in ("weight", "bias") else kind[:7] for name, kind in kinds.items()}
    return {(name.split(".")[0] if kind in ("weights", "running") else name, kind) for name, kind in shared.items()}


@pytest.mark.parametrize("method", OTHERS)
def test_every_method_resumes_exactly_and_every_part_of_its_state_is_needed(tmp_path, method):
    run = short(method)
    before = uncut(tmp_path / "whole", run, 6)
    start = loop.Training(run, 1797, CPU, 4 * run.batch_size).state_dict()["model"]
    for part in [*sorted(list_parts(start)), None]:

        def forget(content, part=part):
            model = {n: start[n] if list_parts([n]) == {part} else v for n, v in content["model"].items()}
            return content | {"model": model}

        digest, resumed = go_on(tmp_path / f"{part}", run, before, forget)
        assert (part, digest == before.digest, resumed) == (part, part is None, [6])


def saved(path, *steps):
    for step in steps:
        checkpoint.save(path, {"run": tiny().name, "step": step})


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "zeros"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, capsys, damage):
    path = tmp_path / "checkpoint"
    saved(path, 1, 2)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    whole = path.read_bytes()
    path.write_bytes({"flipped": bytes(raw), "cut": whole[:-1], "empty": b"", "zeros": whole[:-50] + bytes(50)}[damage])
    assert checkpoint.load(path, tiny().name)["step"] == 1
    assert "checkpoint: damaged (SHA-256 differs), renamed to .damaged; trying the previous one" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.damaged", "checkpoint.previous"]
    (tmp_path / "checkpoint.previous").write_bytes(b"x")
    assert checkpoint.load(path, tiny().name) is None


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    saved(tmp_path / "checkpoint", 1)
    with pytest.raises(
        InputError, match=r"is a checkpoint of digits-noise-.* or of another version, not of digits-history-.*; delete it"
    ):
        checkpoint.load(tmp_path / "checkpoint", tiny(perturbation="history").name)


def fill_disk():
    """From the fifth checkpoint on no file may grow beyond 100 kB."""
    save, count = checkpoint.save, iter(range(100))

    def limited(path, content):
        if next(count) == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            save(path, content)
        except InputError as e:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            (path.parent / "told").write_text(str(e))
            os._exit(9)

    checkpoint.save = limited


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path, whole):
    assert run_child(tmp_path, fill_disk) == 9
    told = (tmp_path / "told").read_text()
    assert "checkpoint: cannot be written (File too large;" in told
    assert "the previous checkpoint is kept" in told
    (tmp_path / "told").unlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "checkpoint.previous", "log.jsonl"]
    assert trained(tmp_path) == (whole, [4])


def hold(path):
    with hold_claim(path):
        (path / "held").write_text("")
        time.sleep(100)


def test_of_two_processes_on_a_run_one_trains_and_the_other_says_who_does(digits, tmp_path):
    folder = tmp_path / tiny().name
    folder.mkdir()
    process = start_process(hold, folder)
    while not (folder / "held").exists():
        time.sleep(0.05)
    with pytest.raises(Busy, match=rf"{tiny().name}: process {process.pid} on .* is at work on it"):
        pretrain.pretrain(tiny(), digits, tmp_path, CPU)
    assert not (folder / "failed.json").exists()
    process.kill()
    process.join()
    pretrain.pretrain(tiny(), digits, tmp_path, CPU)  # a claim whose process is gone counts for nothing
    assert not (folder / "owner.json").exists()


def test_who_was_taken_over_publishes_nothing(tmp_path):
    with hold_claim(tmp_path) as still_ours:
        still_ours()
        owner = json.loads((tmp_path / "owner.json").read_text())
        (tmp_path / "owner.json").write_text(json.dumps(owner | {"nonce": "another", "host": "elsewhere"}))
        with pytest.raises(Busy, match=r"was taken over by process .* on elsewhere"):
            still_ours()
    assert json.loads((tmp_path / "owner.json").read_text())["nonce"] == "another"  # theirs stays
    with (
        pytest.raises(Busy, match=r"on elsewhere is at work on it; if that machine is gone, delete .*owner.json"),
        hold_claim(tmp_path),
    ):
        pass


def test_a_process_number_that_is_another_process_by_now_is_no_owner(tmp_path):
    with hold_claim(tmp_path):
        owner = json.loads((tmp_path / "owner.json").read_text())
    for change in ({"started": "1"}, {"boot": "before"}):
        (tmp_path / "owner.json").write_text(json.dumps(owner | change))
        with hold_claim(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_a_weight_that_is_not_finite_never_reaches_a_checkpoint(tmp_path, monkeypatch):
    step = loop.Training.train_step

    def spoiled(self, *arguments):
        out = step(self, *arguments)
        if self.step == 9:
            next(self.model.parameters()).data[0] = float("inf")
        return out

    monkeypatch.setattr(loop.Training, "train_step", spoiled)
    with pytest.raises(Diverged, match=r"a weight is not finite at step 10 of 32, epoch 1"):
        trained(tmp_path)
    assert checkpoint.load(tmp_path / "checkpoint", tiny(perturbation="history", **RUN).name)["step"] == 9


def test_a_zombie_is_no_owner(tmp_path):
    process = start_process(hold, tmp_path)
    while not (tmp_path / "held").exists():
        time.sleep(0.05)
    owner = json.loads((tmp_path / "owner.json").read_text())
    process.kill()
    process.join()
    with subprocess.Popen(["true"]) as child:  # which ends, and nobody asks how
        while (ticks := Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split())[0] != "Z":
            time.sleep(0.05)
        (tmp_path / "owner.json").write_text(json.dumps(owner | {"pid": child.pid, "started": ticks[19]}))
        with hold_claim(tmp_path):
            pass


def test_of_two_that_find_a_dead_claim_one_gets_it(tmp_path, monkeypatch):
    with hold_claim(tmp_path):
        dead = json.loads((tmp_path / "owner.json").read_text()) | {"started": "1"}
    (tmp_path / "owner.json").write_text(json.dumps(dead))
    rename, others = os.rename, []

    def slow(source, target):
        if not others:  # between our judgement and our move another takes over
            others.append(hold_claim(tmp_path))
            others[0].__enter__()
        rename(source, target)

    monkeypatch.setattr("simclic.store.claim.os.rename", slow)
    with pytest.raises(Busy, match=f"process {os.getpid()} on .* is at work on it"), hold_claim(tmp_path):
        pass
    assert others
    others[0].__exit__(None, None, None)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_save_left_is_removed(digits, tmp_path):
    folder = tmp_path / tiny().name
    folder.mkdir()
    (folder / ".checkpoint.0123abcd").write_bytes(b"half")
    pretrain.pretrain(tiny(), digits, tmp_path, CPU)
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
