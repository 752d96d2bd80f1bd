"""The grid: what is chosen, what is handed to SGD, that a bundle changes nothing, and that a killed one loses nothing."""

import contextlib
import copy
import io
import math
import os
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compute_results, spawned, start_process, tiny

from simclic import Finetune, InputError, data, ranks, stop
from simclic.data import Splits
from simclic.data.images import Images
from simclic.errors import Diverged
from simclic.evaluate import finetune
from simclic.evaluate.finetune import FinetuneTask, GridProgress, Member, grid
from simclic.evaluate.finetune.parts import Helpers, read_part, share_settings
from simclic.experiment import ComputeOptions
from simclic.methods.backbones import build_backbone
from simclic.store.claim import Busy
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint

CPU = torch.device("cpu")
GRID = Finetune(steps=6, batch_size=32, lr_low=0.01, lr_count=2, decay_count=1, precision="float32")


@pytest.fixture
def f():
    torch.manual_seed(0)
    return build_backbone(tiny()).eval().requires_grad_(False)


@pytest.fixture
def run(tmp_path, digits, f):
    """Fine-tune on digits in a folder of its own. Returns the result and what is kept of it."""

    def tuned(protocol, how=None, dataset=digits, folder="one", backbone=f, device=CPU, size=16):
        path = tmp_path / folder
        RunFolder(path, tiny()).create_folder("data")
        task = FinetuneTask(protocol, backbone.to(device), dataset, Images(dataset, size, device), 0, how or ComputeOptions())
        return finetune.finetune(task, GridProgress(path, tiny(), protocol))

    return tuned


def bits(found):
    """All that a result says, but for how long it took and in how many pieces."""
    record, truth, scores = found
    told = {k: v for k, v in record.items() if k not in ("seconds", "members", "resumed")}
    return told, truth.tobytes(), scores.tobytes()


def test_chosen_on_val_refitted_on_both_scored_on_test(run, digits, f, small):
    before = copy.deepcopy(f.state_dict())
    record, truth, scores = run(small)
    assert [(row["lr"], row["decay"]) for row in record["curve"]] == list(small.settings)
    assert record["chosen"]["val_error"] == min(row["error"] for row in record["curve"])
    assert (truth == digits.labels[digits.splits.test]).all()
    assert record["error"] == pytest.approx(100 * (scores.argmax(1) != truth).mean())
    assert record["error"] < 90  # three steps from random weights
    assert all(a.equal(b) for a, b in zip(before.values(), f.state_dict().values(), strict=True))


@pytest.mark.parametrize("augment", ["none", "crop+flip"])
def test_a_grid_in_bf16_learns_on_each_device(run, device, augment):
    protocol = Finetune(steps=40, batch_size=64, lr_low=0.01, lr_high=0.1, lr_count=2, decay_count=0, augment=augment)
    record, _, scores = run(protocol, device=torch.device(device), size=32)
    assert protocol.precision == "bf16"
    assert np.isfinite(scores).all()
    assert [row["diverged"] for row in record["curve"]] == [None, None]
    assert record["error"] < 60  # chance is 90


def test_the_paper_asks_for_56_settings():
    settings = Finetune().settings
    rates, decays = ({s[i] for s in settings} for i in (0, 1))
    assert (len(settings), len(set(settings)), len(rates), len(decays)) == (56, 56, 7, 8)
    assert sorted(rates) == pytest.approx([10 ** (-4 + i / 2) for i in range(7)])
    assert sorted(decays) == pytest.approx([0, *(10 ** (-6 + i / 2) for i in range(7))])


def test_each_setting_is_judged_on_val_as_a_member_trained_on_train(run, digits, f, small):
    curve = run(small)[0]["curve"]
    task, val = FinetuneTask(small, f, digits, Images(digits, 16, CPU), 0), digits.splits.val
    for row in curve:
        alone = Member(task, (row["lr"], row["decay"]))
        for step, (x, y) in enumerate(finetune.TrainBatches(task)(digits.splits.train)):
            alone.step(x, y, step)
        predicted = alone.predict_logits(task.images(torch.from_numpy(val))).argmax(1)
        assert row["error"] == pytest.approx(100 * (predicted != digits.labels[val]).mean())


def test_what_is_chosen_does_not_depend_on_the_test_images(run, digits, small):
    labels = digits.labels.copy()
    labels[digits.splits.test] = np.roll(labels[digits.splits.test], 1)
    one, other = run(small)[0], run(small, dataset=replace(digits, labels=labels), folder="other")[0]
    assert (one["curve"], one["chosen"]) == (other["curve"], other["chosen"])
    assert one["error"] != other["error"]


def test_the_refit_is_what_a_member_trained_on_train_and_val_is(run, digits, f, small):
    record, _, scores = run(small)
    task = FinetuneTask(small, f, digits, Images(digits, 16, CPU), 0)
    alone = Member(task, (record["chosen"]["lr"], record["chosen"]["decay"]))
    for step, (x, y) in enumerate(finetune.TrainBatches(task)(digits.splits.fit)):
        alone.step(x, y, step)
    assert (alone.predict_logits(task.images(torch.from_numpy(digits.splits.test))) == scores).all()


@pytest.mark.parametrize(("over", "handed"), [(True, 0.01), (False, 0.001)])
def test_weight_decay_is_handed_to_sgd_divided_by_the_learning_rate(digits, f, over, handed):
    task = FinetuneTask(Finetune(steps=1, decay_over_lr=over), f, digits, Images(digits, 16, CPU), 0)
    (group,) = Member(task, (0.1, 0.001)).optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["nesterov"], group["momentum"]) == (0.1, pytest.approx(handed), True, 0.9)


@pytest.mark.parametrize("augment", ["none", "crop+flip"])
def test_a_member_alone_is_the_member_in_a_bundle_bit_for_bit(run, augment):
    protocol = replace(GRID, augment=augment)
    four, two, one = (run(protocol, ComputeOptions(members=n), folder=str(n)) for n in (4, 2, 1))
    assert [found[0]["members"] for found in (four, two, one)] == [4, 2, 1]
    assert bits(four) == bits(two) == bits(one)


def test_backbones_that_draw_draw_the_same_in_a_bundle(run):
    class Dropping(torch.nn.Module):
        num_features = 192

        def forward(self, x):
            return torch.nn.functional.dropout(x.flatten(1)[:, :192], 0.3, self.training)

    drops = Dropping()
    assert bits(run(GRID, ComputeOptions(members=4), folder="a", backbone=drops)) == bits(
        run(GRID, ComputeOptions(members=1), folder="b", backbone=drops)
    )


def test_batch_norm_in_train_mode_or_as_it_was(digits, f):
    for mode, moved in (("train", True), ("eval", False)):
        task = FinetuneTask(replace(GRID, batch_norm=mode), f, digits, Images(digits, 16, CPU), 0)
        member = Member(task, (0.1, 0.0))
        x, y = next(iter(finetune.TrainBatches(task)(digits.splits.train)))
        member.step(x, y, 0)
        (name,) = [n for n in f.state_dict() if n.endswith("running_mean")][:1]
        assert member.model[0].state_dict()[name].equal(f.state_dict()[name]) is not moved
        assert not next(member.model[0].parameters()).equal(next(f.parameters()))


def test_a_member_that_diverges_is_marked_and_loses(run):
    wild = Finetune(steps=12, lr_low=0.01, lr_high=1e30, lr_count=2, decay_count=0, augment="none", precision="float32")
    record, _, scores = run(wild)
    first, second = record["curve"]
    assert (first["lr"], first["error"]) == (1e30, None)
    assert 2 <= first["diverged"] <= 12
    assert second["diverged"] is None
    assert record["chosen"]["lr"] == 0.01
    assert np.isfinite(scores).all()
    calm = replace(wild, lr_high=0.01, lr_count=1)
    alone = run(calm, folder="alone")[0]
    assert alone["curve"] == [second]  # the other did not disturb it
    with pytest.raises(Diverged, match="all 1 settings of the fine-tuning grid diverged"):
        run(replace(wild, lr_low=1e30, lr_count=1), folder="all")


def test_a_finished_bundle_is_not_trained_again(run, tmp_path, monkeypatch):
    whole = run(GRID, ComputeOptions(members=4), folder="whole")
    add, trained = GridProgress.add_rows, []

    def stop(kept, rows):
        add(kept, rows)
        if len(kept.rows) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GridProgress, "add_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            run(GRID, ComputeOptions(members=1))
    init = Member.__init__
    monkeypatch.setattr(Member, "__init__", lambda m, task, setting, *a: trained.append(setting) or init(m, task, setting, *a))
    resumed = run(GRID, ComputeOptions(members=1))
    assert trained == [*GRID.settings[2:], (whole[0]["chosen"]["lr"], whole[0]["chosen"]["decay"])]
    assert bits(resumed) == bits(whole)


# Killed in the middle of a bundle: in a process of its own, through the same door as in `simclic run`.
KILLED = Finetune(steps=12, batch_size=16, lr_low=0.01, lr_count=2, decay_count=1, precision="float32")
EVERY = ComputeOptions(minutes=0.0, members=3)


def child(runs, die_at):
    """Do the work of one Run; die at the `die_at`-th step of all members, if that is asked for."""
    step, count = Member.step, [0]

    def counted(*a):
        if count[0] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count[0] += 1
        step(*a)

    Member.step = counted
    compute_results(tiny(), (KILLED,), runs, compute=EVERY)


def worked(runs, die_at=-1):
    process = start_process(child, runs, die_at)
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert worked(folder) == 0
    return folder


@pytest.fixture
def uncut(whole):
    """The result of a grid that nothing killed."""
    return RunFolder(whole, tiny()).read_result(KILLED)


@pytest.fixture
def broken(whole, tmp_path):
    """A folder with the same encoder, from which a grid begins."""
    return shutil.copytree(whole, tmp_path / "broken", ignore=shutil.ignore_patterns("finetune-*"))


def test_kill_9_in_a_bundle_and_in_the_refit_resumes_bit_for_bit(broken, uncut):
    """4 settings x 12 steps in bundles of 2, then 12 of the refit: 60 in all."""
    resumed = []
    for die_at in (7, 11, 20, 5, 13):  # counted from wherever it begins again
        assert worked(broken, die_at) == -signal.SIGKILL
        assert RunFolder(broken, tiny()).read_result(KILLED) is None
        (saved,) = (broken / tiny().name).glob("checkpoint-finetune-*[0-9a-f]")
        content = checkpoint.load(saved, f"{tiny().name}/{KILLED.name}")
        resumed.append((content["part"], len(RunFolder(broken, tiny()).read_partial_result(KILLED)["curve"]), content["step"]))
    assert worked(broken) == 0
    assert [part for part, _, _ in resumed] == ["grid"] * 4 + ["refit"]
    assert all(step > 0 for _, _, step in resumed)
    assert len({rows for _, rows, _ in resumed}) > 1
    found = RunFolder(broken, tiny()).read_result(KILLED)
    assert uncut["resumed"] == []
    assert found["resumed"] == [step for _, _, step in resumed]
    assert found["curve"] == uncut["curve"]
    assert found["predictions_sha256"] == uncut["predictions_sha256"]
    assert not [p for p in (broken / tiny().name).iterdir() if p.name.startswith(("checkpoint", "partial"))]


LONG = replace(KILLED, steps=400, lr_count=1, decay_count=0)


def test_asked_to_stop_it_saves_and_loses_no_step(tmp_path):
    process, ours = spawned(listening, tmp_path)
    assert ours.recv() == "stepping"
    process.terminate()
    steps = ours.recv()
    process.join()
    path = tmp_path / tiny().name / f"checkpoint-{LONG.name}"
    assert 0 < steps < LONG.steps
    assert checkpoint.load(path, f"{tiny().name}/{LONG.name}")["step"] == steps


def listening(runs, pipe):
    """Fine-tune until asked to stop; tell when it began and how many steps were done."""
    stop.handle_signals()
    step, count = Member.step, [0]

    def told(*a):
        step(*a)
        count[0] += 1
        if count[0] == 1:
            pipe.send("stepping")

    Member.step = told
    try:
        compute_results(tiny(), (LONG,), runs)
    except stop.Stopped:
        pipe.send(count[0])


def scarce(runs, members, room, pipe):
    """Fine-tune where no more than `room` bytes can be had: really, by the kernel's word."""
    torch.manual_seed(0)
    digits = data.load("digits", "ericsson", runs)
    f = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4000)).requires_grad_(False)
    f.num_features = 4000
    RunFolder(runs, tiny()).create_folder("data")
    protocol = Finetune(steps=2, batch_size=16, lr_count=4, decay_count=1, augment="none", precision="float32")
    images = Images(digits, 16, CPU)
    images(torch.arange(16))
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)  # loads some hundred MB of torch, now that there is room
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if room:
        resource.setrlimit(resource.RLIMIT_AS, (now + room, now + room))
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            found = finetune.finetune(
                FinetuneTask(protocol, f, digits, images, 0, ComputeOptions(members=members)),
                GridProgress(runs, tiny(), protocol),
            )
            result = (found[0]["members"], found[0]["curve"], found[2].tobytes())
        except InputError as e:
            result = str(e)
    pipe.send((result, told.getvalue()))


def without(tmp_path, room):
    """What becomes of a grid in so much memory, and what is said of it."""
    process, ours = spawned(scarce, tmp_path / str(room), 8, room)
    result, told = ours.recv()
    process.join()
    return result, told


def test_a_bundle_that_does_not_fit_into_memory_splits_itself_and_says_so(tmp_path):
    (eight, *plenty), silent = without(tmp_path, 0)
    assert (eight, silent) == (8, "")
    (fewer, *scant), told = without(tmp_path, 150 << 20)
    assert fewer in (2, 4)
    assert told.startswith("warning: cpu has not enough memory for 8 members of the grid at a time; going on with 4\n")
    assert scant == plenty
    message, told = without(tmp_path, 10 << 20)
    assert message.startswith("cpu has not enough memory for one member of the grid, batches of 16 at 16 pixels; ")
    assert [line.split("; ")[1] for line in told.splitlines()] == ["going on with 4", "going on with 2", "going on with 1"]


def test_half_of_a_bundle_that_was_saved_goes_on_when_it_is_split(run, tmp_path, digits, f):
    whole = run(GRID, ComputeOptions(members=4), folder="whole")
    RunFolder(tmp_path / "one", tiny()).create_folder("data")
    kept, task = (
        GridProgress(tmp_path / "one", tiny(), GRID),
        FinetuneTask(GRID, f, digits, Images(digits, 16, CPU), 0, ComputeOptions(minutes=0, members=4)),
    )
    saves, save = [], kept.save_bundle

    def full(content):
        save(content)
        saves.append(content["step"])
        if content["step"] == 3 and len(saves) == 3:
            raise MemoryError

    kept.save_bundle = full
    assert bits(finetune.finetune(task, kept)) == bits(whole)
    assert saves[:6] == [1, 2, 3, 4, 5, 1]  # half of its members go on from there, the others begin again


class Spy(torch.nn.Module):
    """A small backbone that notes in which precision it computed."""

    num_features = 8

    def __init__(self):
        super().__init__()
        self.linear, self.seen = torch.nn.Linear(768, 8), []

    def forward(self, x):
        z = self.linear(x.flatten(1))
        self.seen.append((self.training, z.dtype))
        return z


@pytest.mark.parametrize(("precision", "inside"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_the_backbone_computes_in_its_precision_and_logits_are_float32(digits, precision, inside):
    task = FinetuneTask(replace(GRID, precision=precision), Spy(), digits, Images(digits, 16, CPU), 0)
    member, heads = Member(task, (0.01, 0.0)), []
    member.model[1].register_forward_hook(lambda module, given, logits: heads.append((given[0].dtype, logits.dtype)))
    x, y = next(iter(finetune.TrainBatches(task)(digits.splits.train)))
    member.step(x, y, 0)
    member.predict_logits(x)
    assert member.model[0].seen == [(True, inside), (False, inside)]
    assert heads == [(torch.float32, torch.float32)] * 2


def test_the_new_layer_hangs_on_the_seed(digits, f):
    heads = [
        Member(FinetuneTask(GRID, f, digits, Images(digits, 16, CPU), seed), (0.1, 0.0)).model[1].weight for seed in (0, 1, 0)
    ]
    assert heads[0].equal(heads[2])
    assert not heads[0].equal(heads[1])


def test_as_many_members_as_fit_into_memory(digits, f, monkeypatch):
    task = FinetuneTask(GRID, f, digits, Images(digits, 16, CPU), 0)
    each = sum(2 * p.nbytes for p in f.parameters()) + sum(b.nbytes for b in f.buffers())
    for free, count in ((2e12, 56), (20.5 * each, 10), (each, 1), (0, 1)):
        monkeypatch.setattr("simclic.evaluate.finetune.grid.available_memory", lambda device, free=free: free)
        assert grid.count_fitting_members(task, 56) == min(count, int(4e9 // each))
    monkeypatch.setattr("simclic.evaluate.finetune.grid.MAX_CHECKPOINT_BYTES", 3 * each)
    monkeypatch.setattr("simclic.evaluate.finetune.grid.available_memory", lambda device: 2e12)
    assert grid.count_fitting_members(task, 56) == 3
    assert grid.count_fitting_members(replace(task, options=ComputeOptions(members=5)), 56) == 5


def test_a_checkpoint_of_something_else_is_not_gone_on_from(run, tmp_path):
    whole = run(GRID, ComputeOptions(members=4), folder="whole")
    for part, settings in (("refit", GRID.settings), ("grid", GRID.settings[1:])):
        RunFolder(tmp_path / "one", tiny()).create_folder("data")
        kept = GridProgress(tmp_path / "one", tiny(), GRID)
        kept.save_bundle({"part": part, "settings": list(settings), "step": 5, "members": []})
        found = run(GRID, ComputeOptions(members=4))
        assert found[0]["resumed"] == []
        assert bits(found) == bits(whole)
        kept.delete_bundle()
        (tmp_path / "one" / tiny().name / f"partial-{GRID.name}.json").unlink()


def test_what_is_kept_is_written_by_its_owner_alone_and_rows_before_the_checkpoint_goes(tmp_path, monkeypatch):
    RunFolder(tmp_path, tiny()).create_folder("data")
    left = tmp_path / tiny().name / f".checkpoint-{GRID.name}.1234abcd"
    left.write_bytes(b"half")
    kept = GridProgress(tmp_path, tiny(), GRID)
    assert not left.exists()
    content = {"part": "grid", "settings": [], "step": 1, "members": []}
    kept.save_bundle(content)

    def lost():
        raise Busy("taken over")

    other = GridProgress(tmp_path, tiny(), GRID, check_claim=lost)
    for write in (lambda: other.save_bundle({**content, "step": 2}), lambda: other.add_rows([{"lr": 0.1}])):
        with pytest.raises(Busy):
            write()
    assert GridProgress(tmp_path, tiny(), GRID).load_bundle()["step"] == 1
    assert GridProgress(tmp_path, tiny(), GRID).rows == []
    monkeypatch.setattr(RunFolder, "write_partial_result", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        kept.add_rows([{"lr": 0.1}])
    assert GridProgress(tmp_path, tiny(), GRID).load_bundle()["step"] == 1


def test_another_encoder_s_rows_and_bundles_are_not_read(run, tmp_path):
    RunFolder(tmp_path, tiny()).create_folder("data")
    kept = GridProgress(tmp_path, tiny(), GRID, "one encoder")
    kept.add_rows([{"lr": 0.1}])
    kept.save_bundle({"part": "grid", "settings": [], "step": 1, "members": []})
    assert GridProgress(tmp_path, tiny(), GRID, "one encoder").rows
    assert GridProgress(tmp_path, tiny(), GRID, "one encoder").load_bundle()["step"] == 1
    assert GridProgress(tmp_path, tiny(), GRID, "another").rows == []
    assert GridProgress(tmp_path, tiny(), GRID, "another").load_bundle() is None


def test_evaluation_sees_what_the_protocol_resizes_to(eleven, tmp_path):
    """Twice as large before the same 16 pixels are cut out of the centre: other images, in another decoded file."""
    run = tiny(dataset="pets", epochs=1, batch_size=4)
    plain = Finetune(steps=2, batch_size=4, lr_count=1, decay_count=0, precision="float32")
    larger = replace(plain, eval_resize=2.0)
    compute_results(run, (plain, larger), tmp_path, eleven)
    assert {p.name.split("-")[1] for p in (eleven / "prepared").glob("pets-*.npy")} == {"16", "32"}
    a, b = (RunFolder(tmp_path, run.name).read_predictions(protocol.name)[1] for protocol in (plain, larger))
    assert a.shape == b.shape
    assert not np.allclose(a, b, atol=1e-3)


def test_labels_that_cannot_be_learned_or_judged_by_are_refused(run, digits):
    def refused(message, **changes):
        with pytest.raises(InputError, match=message):
            run(GRID, dataset=replace(digits, **changes))

    splits, labels = digits.splits, digits.labels
    train = splits.train[labels[splits.train] != 3]
    refused("^class 3 has no training image; add one or leave the class out$", splits=Splits(train, splits.val, splits.test))
    refused(
        "^label 12 of image 5 is out of range: 10 classes are 0 to 9", labels=np.where(np.arange(len(labels)) == 5, 12, labels)
    )
    for part in ("val", "test"):
        several = np.eye(10, dtype=np.int64)[labels]
        several[getattr(splits, part), 4] = 0
        refused(f"^class 4 is shown by no {part} image, so that its average precision cannot be computed; ", labels=several)


def test_a_class_without_val_image_is_chosen_without(run, digits):
    """As class 2 of Cars in the split that the baselines used."""
    splits, labels = digits.splits, digits.labels
    val = splits.val[labels[splits.val] != 7]
    for metric in ("top-1", "mean per class"):
        changed = replace(digits, splits=Splits(splits.train, val, splits.test), facts=replace(digits.facts, metric=metric))
        record, *_ = run(GRID, dataset=changed)
        assert record["sizes"]["val"] == len(val)
        assert 0 <= record["chosen"]["val_error"] <= 100


def test_several_classes_an_image_take_binary_cross_entropy_without_what_is_not_judged():
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], requires_grad=True)
    labels = torch.tensor([[1, 0, -1], [0, 1, 1]])
    p = torch.sigmoid(logits)
    by_hand = -torch.stack([p[0, 0], 1 - p[0, 1], 1 - p[1, 0], p[1, 1], p[1, 2]]).log().mean()
    value = finetune.finetune_loss(logits, labels)
    assert value.item() == pytest.approx(by_hand.item(), rel=1e-6)
    value.backward()
    assert logits.grad[0, 2] == 0
    one = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    assert finetune.finetune_loss(logits, torch.tensor([0, 1])).equal(one)


def test_a_grid_compiles_once_for_all_members(run):
    from torch._dynamo.utils import counters

    counters.clear()
    one = replace(GRID, steps=1)
    few = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 8), torch.nn.BatchNorm2d(4), torch.nn.Flatten()).eval()  # compiles soon
    few.num_features = 16
    plain, compiled = (run(one, ComputeOptions(compile=c), folder=str(c), backbone=few) for c in (False, True))
    assert compiled[0]["compiled"] == "yes"
    assert counters["stats"]["unique_graphs"] == 1  # the trial's serves all members
    assert compiled[2] == pytest.approx(plain[2], abs=1e-3)


def test_the_learning_rate_falls_on_a_cosine(digits, f):
    task = FinetuneTask(GRID, f, digits, Images(digits, 16, CPU), 0)
    member, rates = Member(task, (0.01, 0.0)), []
    for step, (x, y) in enumerate(finetune.TrainBatches(task)(digits.splits.train)):
        member.step(x, y, step)
        rates += [group["lr"] for group in member.optimizer.param_groups]
    assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * step / 6)) for step in range(6)])


def test_fewer_members_than_were_saved_go_on(run, tmp_path, monkeypatch):
    whole = run(GRID, ComputeOptions(members=4), folder="whole")
    save, scores = GridProgress.save_bundle, finetune.grid.Bundle.predict_logits
    counts = []

    def dies(kept, content):
        save(kept, content)
        if content["step"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GridProgress, "save_bundle", dies)
        with pytest.raises(KeyboardInterrupt):
            run(GRID, ComputeOptions(members=4, minutes=0))
    monkeypatch.setattr(finetune.grid.Bundle, "predict_logits", lambda b, i: counts.append(len(b.members)) or scores(b, i))
    found = run(GRID, ComputeOptions(members=1))
    assert counts == [1] * 5
    assert found[0]["resumed"] == [3]
    assert bits(found) == bits(whole)


# What is being done when the process dies, at which of its calls, and whether that call is still made.
SEAMS = {
    "in the checkpoint": (os, "fsync", 9, False),
    "after the rows": (RunFolder, "write_partial_result", 2, True),
    "while it scores": (Member, "predict_logits", 4, False),
    "before the result": (RunFolder, "write_result", 1, False),
}


def cut(runs, seam):
    """Do the work of one Run that has its encoder; die at a seam of its fine-tuning."""
    where, name, at, done = SEAMS[seam]
    act, count = getattr(where, name), [0]

    def fatal(*a, **k):
        count[0] += 1
        if count[0] < at or done:
            found = act(*a, **k)
        if count[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(where, name, fatal)
    compute_results(tiny(), (KILLED,), runs, compute=EVERY)


@pytest.mark.parametrize("seam", SEAMS)
def test_killed_at_a_seam_it_ends_with_the_same_bits_and_nothing_left(broken, uncut, seam):
    process = start_process(cut, broken, seam)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert RunFolder(broken, tiny()).read_result(KILLED) is None
    assert worked(broken) == 0
    found = RunFolder(broken, tiny()).read_result(KILLED)
    assert found["curve"] == uncut["curve"]
    assert found["predictions_sha256"] == uncut["predictions_sha256"]
    assert not [p for p in (broken / tiny().name).iterdir() if p.name.strip(".").startswith(("checkpoint", "partial"))]


def test_rows_are_in_the_order_of_the_settings_whoever_trained_them_and_none_is_lost(tmp_path):
    every, folder = KILLED.settings, RunFolder(tmp_path, tiny()).create_folder("d1")

    def progress(part=0):
        return GridProgress(tmp_path, tiny(), KILLED, "of", part=part)

    def add_rows(progress, settings):
        progress.add_rows([{"lr": lr, "decay": decay, "error": 1.0, "diverged": None} for lr, decay in settings])

    add_rows(progress(), every[:1])
    add_rows(progress(part=1), every[2:3])  # and then both were killed
    again = progress()
    with share_settings(every, again, None) as settings:
        assert settings == [every[1], every[3]]
        add_rows(again, settings)
    assert [(row["lr"], row["decay"]) for row in again.rows] == list(every)  # of equal errors the first is chosen

    def lose_part(port):
        folder.partial_path(KILLED, 1).write_bytes(b"damaged")
        with read_part((1, ranks.LOOPBACK, port)):
            pass

    def share():
        progress().folder.partial_path(KILLED).unlink()
        with share_settings(every, alone := progress(), Helpers(1, lose_part)) as settings:
            add_rows(alone, settings)

    with pytest.raises(InputError, match=f"{KILLED.name}: no result of 2 settings, since .* damaged; run it again"):
        share()
