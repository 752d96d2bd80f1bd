"""The grid: what is chosen, what is handed to SGD, and that the backbone stays what it was."""

import copy

import numpy as np
import pytest
import torch
from conftest import tiny

from simclic import Finetune, finetune
from simclic.data.images import Images
from simclic.method import backbone
from simclic.spec import Diverged

CPU = torch.device("cpu")


@pytest.fixture
def f():
    torch.manual_seed(0)
    return backbone(tiny()).eval().requires_grad_(False)


def test_chosen_on_val_refitted_on_both_scored_on_test(digits, f, small):
    before = copy.deepcopy(f.state_dict())
    record, truth, scores = finetune.finetune(small, f, digits, Images(digits, 16, CPU), 0, lambda share, note: None)
    assert [(row["lr"], row["decay"]) for row in record["curve"]] == list(small.settings)
    assert record["chosen"]["val_error"] == min(row["error"] for row in record["curve"])
    assert (truth == digits.labels[digits.splits.test]).all()
    assert record["error"] == pytest.approx(100 * (scores.argmax(1) != truth).mean())
    assert record["error"] < 90  # three steps from random weights
    assert all(a.equal(b) for a, b in zip(before.values(), f.state_dict().values(), strict=True))


def test_the_refit_sees_train_and_val_and_nobody_sees_test(digits, f, small, monkeypatch):
    seen = []
    train = finetune.train
    monkeypatch.setattr(finetune, "train", lambda *a: seen.append(a[4]) or train(*a))
    finetune.finetune(small, f, digits, Images(digits, 16, CPU), 0, lambda share, note: None)
    assert all(s is digits.splits.train for s in seen[:-1])
    assert len(seen) == len(small.settings) + 1
    assert (seen[-1] == digits.splits.fit).all()


@pytest.mark.parametrize(("over", "handed"), [(True, 0.01), (False, 0.001)])
def test_weight_decay_is_handed_to_sgd_divided_by_the_learning_rate(digits, f, over, handed, monkeypatch):
    made = []
    sgd = torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda *a, **k: made.append((a[1], k)) or sgd(*a, **k))
    protocol = Finetune(steps=1, decay_over_lr=over, augment="none")
    images, labels = Images(digits, 16, CPU), torch.from_numpy(digits.labels)
    finetune.train(protocol, 0.1, 0.001, finetune.Task(f, images, labels, 10, 0), digits.splits.train)
    ((lr, options),) = made
    assert (lr, options["weight_decay"], options["nesterov"], options["momentum"]) == (0.1, pytest.approx(handed), True, 0.9)


def test_members_see_the_same_images_with_the_same_crops(digits, f, monkeypatch):
    drawn = {}
    crops = Images.random_crops
    images, labels = Images(digits, 16, CPU), torch.from_numpy(digits.labels)
    for lr in (0.1, 0.01):
        kept = drawn.setdefault(lr, [])
        monkeypatch.setattr(Images, "random_crops", lambda *a, kept=kept: kept.append(crops(*a)) or kept[-1])
        finetune.train(Finetune(steps=2), lr, 0.0, finetune.Task(f, images, labels, 10, 0), digits.splits.train)
    assert all(a.equal(b) for a, b in zip(drawn[0.1], drawn[0.01], strict=True))
    assert not drawn[0.1][0].equal(drawn[0.1][1])


def test_a_member_that_diverges_loses(digits, f):
    wild = Finetune(steps=12, lr_low=0.01, lr_high=1e30, lr_count=2, decay_count=0, augment="none")
    record, _, scores = finetune.finetune(wild, f, digits, Images(digits, 16, CPU), 0, lambda share, note: None)
    assert record["curve"][0] == {"lr": 1e30, "decay": 0.0, "error": None}
    assert record["chosen"]["lr"] == 0.01
    assert np.isfinite(scores).all()
    wild = Finetune(steps=12, lr_high=1e30, lr_count=1, decay_count=0, augment="none")
    with pytest.raises(Diverged, match="all 1 settings of the fine-tuning grid diverged"):
        finetune.finetune(wild, f, digits, Images(digits, 16, CPU), 0, lambda share, note: None)


def test_several_classes_an_image_take_binary_cross_entropy_without_what_is_not_judged():
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], requires_grad=True)
    labels = torch.tensor([[1, 0, -1], [0, 1, 1]])
    p = torch.sigmoid(logits)
    by_hand = -torch.stack([p[0, 0], 1 - p[0, 1], 1 - p[1, 0], p[1, 1], p[1, 2]]).log().mean()
    value = finetune.loss(logits, labels)
    assert value.item() == pytest.approx(by_hand.item(), rel=1e-6)
    value.backward()
    assert logits.grad[0, 2] == 0
    one = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    assert finetune.loss(logits, torch.tensor([0, 1])).equal(one)
