"""What of a grid outlives its process, and when: checkpoints by the clock, the seconds of all processes, what is not whole."""

import json
import resource
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny

from simclic import Finetune, InputError
from simclic.data.images import Images
from simclic.errors import Diverged
from simclic.evaluate import finetune
from simclic.evaluate.finetune import FinetuneTask, GridProgress, Member, grid
from simclic.evaluate.finetune.bundle import Bundle
from simclic.experiment import ComputeOptions
from simclic.files import write_json
from simclic.methods.backbones import build_backbone
from simclic.store.run_folder import PARTIAL, RunFolder

CPU = torch.device("cpu")
GRID = Finetune(steps=6, batch_size=32, lr_low=0.01, lr_count=2, decay_count=1, augment="none", precision="float32")


@pytest.fixture
def f():
    torch.manual_seed(0)
    return build_backbone(tiny()).eval().requires_grad_(False)


@pytest.fixture
def task(digits, f):
    return FinetuneTask(GRID, f, digits, Images(digits, 16, CPU), 0)


@pytest.fixture
def kept(tmp_path):
    RunFolder(tmp_path, tiny()).create_folder("data")
    return GridProgress(tmp_path, tiny(), GRID)


def left(kept):
    return [p.name for p in kept.path.parent.iterdir() if p.name.startswith("checkpoint")]


@pytest.mark.parametrize(("tick", "steps"), [(25.0, [3, 6]), (15.0, [5]), (1.0, [])])
def test_a_checkpoint_every_so_many_minutes_and_before_scoring_if_a_minute_is_at_risk(tick, steps, task, kept, monkeypatch):
    clock, saves = [0.0], []

    def monotonic():
        clock[0] += tick
        return clock[0]

    monkeypatch.setattr("simclic.evaluate.finetune.bundle.time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(kept, "save_bundle", lambda content: saves.append(content["step"]))
    task = replace(task, options=ComputeOptions(minutes=1.0))
    feed = finetune.TrainBatches(task)
    Bundle(task, GRID.settings[:1], "grid").train(feed, task.dataset.splits.train, kept)
    assert saves == steps


def test_the_seconds_of_all_processes_count(tmp_path, monkeypatch):
    RunFolder(tmp_path, tiny()).create_folder("data")
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("simclic.evaluate.finetune.grid_progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    content = {"part": "grid", "settings": [], "step": 4, "members": []}
    first = GridProgress(tmp_path, tiny(), GRID)
    clock.now = 10.0
    first.save_bundle(content)
    clock.now = 100.0  # killed, and started again
    second = GridProgress(tmp_path, tiny(), GRID)
    clock.now = 103.0
    second.resume_from(second.load_bundle())
    assert (second.seconds, second.resumed) == (10.0, [4])
    clock.now = 105.0
    second.add_rows([{"lr": 0.1}])
    clock.now = 200.0
    third = GridProgress(tmp_path, tiny(), GRID)
    clock.now = 201.0
    assert (third.seconds, third.resumed, third.rows) == (13.0, [4], [{"lr": 0.1}])


def test_the_seconds_of_parts_are_those_of_their_work_whatever_is_killed(tmp_path, monkeypatch):
    """The first process saves a bundle after 10 s, the other one its rows after 7 s; then both are killed."""
    RunFolder(tmp_path, tiny()).create_folder("data")
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("simclic.evaluate.finetune.grid_progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    (lr, decay), *_ = settings = GRID.settings
    first, other = (GridProgress(tmp_path, tiny(), GRID, part=part) for part in (0, 1))
    clock.now = 7.0
    other.add_rows([{"lr": lr, "decay": decay, "error": 1.0}])
    clock.now = 10.0
    first.save_bundle({"part": "grid", "settings": [], "step": 4, "members": []})
    clock.now = 100.0
    for _ in range(2):  # once more, killed before anything is saved
        again = GridProgress(tmp_path, tiny(), GRID)
        again.merge_parts(settings)
        again.resume_from(again.load_bundle())
        again.resume_from(again.load_bundle())  # memory did not suffice
        assert (again.seconds, len(again.rows)) == (17.0, 1)
    clock.now = 105.0
    with again.stop_clock():
        clock.now = 200.0
    assert again.seconds == 22.0


def test_rows_that_are_damaged_or_of_another_version_are_computed_again(kept, tmp_path):
    kept.add_rows([{"lr": 0.1}])
    path = kept.path.with_name(f"partial-{GRID.name}.json")
    whole = path.read_text()
    assert GridProgress(tmp_path, tiny(), GRID).rows == [{"lr": 0.1}]
    path.write_text(whole[:-20])
    assert GridProgress(tmp_path, tiny(), GRID).rows == []
    path.write_text(whole.replace("0.1", "0.2"))
    assert GridProgress(tmp_path, tiny(), GRID).rows == []
    values = json.loads(whole)
    del values["sha256"]
    write_json(path, {**values, "schema": PARTIAL + 1})
    assert GridProgress(tmp_path, tiny(), GRID).rows == []


def test_a_checkpoint_that_cannot_be_written_says_whether_there_is_one_before(kept):
    content = {"part": "grid", "settings": [], "step": 1, "members": [torch.zeros(100_000)]}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def refused():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            with pytest.raises(InputError, match=r"cannot be written \(File too large; .* are free\)") as e:
                kept.save_bundle(content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return str(e.value)

    assert refused().endswith("there is no checkpoint yet; free some space and run the same command again")
    kept.save_bundle(content)
    assert refused().endswith("the previous checkpoint is kept, and the same command resumes from it")
    assert kept.load_bundle()["step"] == 1
    assert left(kept) == [kept.path.name]


def test_weights_that_overflow_in_the_last_step_have_diverged_there(task, kept):
    wild = replace(GRID, steps=1, lr_high=1e30, decay_count=0)
    record, _, _ = finetune.finetune(replace(task, protocol=wild), kept)
    first, second = record["curve"]
    assert (first["lr"], first["error"], first["diverged"]) == (1e30, None, 1)
    assert second["diverged"] is None
    assert second["error"] is not None


def test_a_refit_that_diverges_leaves_its_rows_and_no_checkpoint(task, kept, monkeypatch):
    scores, at_risk = Bundle.predict_logits, []

    def none(bundle, index):
        if bundle.phase == "refit":
            at_risk.extend(left(kept))
            return [None]
        return scores(bundle, index)

    monkeypatch.setattr(Bundle, "predict_logits", none)
    with pytest.raises(Diverged, match=r"^the refit diverged at lr .*, decay .*, step 6$"):
        finetune.finetune(replace(task, options=ComputeOptions(minutes=0.0)), kept)
    assert at_risk
    assert left(kept) == []
    assert len(kept.folder.read_partial_result(GRID)["curve"]) == 4


def test_members_lie_in_memory_as_convolutions_like_it(task):
    member = Member(task, (0.1, 0.0))
    x, y = next(iter(finetune.TrainBatches(task)(task.dataset.splits.train)))
    member.step(x, y, 0)
    convolutions = [p for p in member.model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert convolutions
    assert all(p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in convolutions)


def test_processes_that_share_a_gpu_share_its_memory(task, monkeypatch):
    each = sum(2 * p.nbytes for p in task.f.parameters()) + sum(b.nbytes for b in task.f.buffers())
    monkeypatch.setattr("simclic.evaluate.finetune.grid.available_memory", lambda device: 24.5 * each)
    monkeypatch.setattr("simclic.evaluate.finetune.grid.MAX_CHECKPOINT_BYTES", 1e12)
    assert [grid.count_fitting_members(replace(task, options=ComputeOptions(per_gpu=n)), 56) for n in (1, 2, 3)] == [12, 6, 4]


def test_bundles_are_about_as_large(task, kept, monkeypatch):
    scores, counts = Bundle.predict_logits, []
    monkeypatch.setattr(Bundle, "predict_logits", lambda b, i: counts.append(len(b.members)) or scores(b, i))
    finetune.finetune(replace(task, options=ComputeOptions(members=3)), kept)
    assert counts == [2, 2, 1]


def test_a_loss_that_was_once_not_finite_stays_so(task):
    member = Member(task, (0.1, 0.0))
    x, y = next(iter(finetune.TrainBatches(task)(task.dataset.splits.train)))
    for step, factor in enumerate((1.0, np.nan, 1.0)):
        member.step(x * factor, y, step)
    assert member.diverged_at == 2
