"""The methods that assign images to prototypes, SwAV and DINO: their losses, what is frozen when, and when they collapse."""

import copy
import math

import pytest
import torch
from conftest import small_backbone
from lightly.loss import DINOLoss
from torch.testing import assert_close

from simclic import InputError, Run
from simclic.files import read_json
from simclic.methods import parts
from simclic.methods.dino import DINO
from simclic.methods.swav import SwAV
from simclic.train import loop, pretrain, watch

CPU = torch.device("cpu")
SMALL = {"dataset": "digits", "backbone": "test_resnet", "image_size": 16, "hidden_dim": 24, "prototypes": 10, "batch_size": 16}


def build(cls, **changes):
    torch.manual_seed(0)
    run = Run(**{"method": cls.__name__.lower(), "epochs": 4, **SMALL, **changes})
    return cls(run, 0, small_backbone(), trained=100)


def views(seed=1):
    return tuple(torch.randn(2, 16, 3, 2, 2, generator=torch.Generator().manual_seed(seed)))


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def same_loss_and_gradients(m, loss, reference, expected):
    """The loss of m in float32, and that of its copy in float64; zero and no gradient are the same."""
    assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    learned = [(a, b) for a, b in zip(m.parameters(), reference.parameters(), strict=True) if a.requires_grad]
    assert sum(b.grad is not None for _, b in learned) > 5
    for a, b in learned:
        assert_close(a.grad.double(), torch.zeros_like(b) if b.grad is None else b.grad, rtol=1e-3, atol=1e-5)


def sinkhorn(scores, eps):
    """SwAV, Eq. 4 and 5 and Appendix A: scores (B, K) to assignments of which each row has sum 1."""
    q = (scores / eps).exp().T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
        q = q / q.sum(dim=0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_swav_s_loss_and_gradients_are_the_paper_s(epoch):
    """Eq. 2: the code of each view, of batch and queue, predicted by the other view at the temperature."""
    m, x = build(SwAV, queue_from=0.5, frozen_prototypes=1), views()
    m.before_epoch(epoch)
    reference = copy.deepcopy(m).double()
    with torch.no_grad():
        earlier_keys = [queue.keys.clone() for queue in (reference.queue1, reference.queue2)]
    z = [unit(reference.head(reference.backbone(view.double()))) for view in x]
    c = reference.prototypes if epoch else reference.prototypes.detach()
    loss = 0.0
    for s, t in ((0, 1), (1, 0)):
        of_codes = torch.cat([z[s], earlier_keys[s]]) if epoch == 2 else z[s]
        q = sinkhorn((of_codes @ c.T).detach(), 0.05)[:16]
        loss = loss - (q * (z[t] @ c.T / 0.1).log_softmax(dim=1)).sum(dim=1).mean() / 2
    out = m(x)
    same_loss_and_gradients(m, out.loss, reference, loss)
    assert_close(out.z.double(), z[0], rtol=1e-4, atol=1e-5)
    for queue, new, old in zip((m.queue1, m.queue2), z, earlier_keys, strict=True):
        assert_close(queue.keys[:16].double(), new, rtol=1e-4, atol=1e-5)
        assert_close(queue.keys[16:].double(), old[16:])


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("norm", [True, False])
def test_dino_s_loss_gradients_and_centre_are_the_paper_s(epoch, norm):
    """Eq. 1, 3 and 4 and Algorithm 1, with a teacher that is another network and a centre that is not 0."""
    m, x = build(DINO, head_norm=norm), views()
    m.before_epoch(epoch)
    for w in m.target.parameters():
        w.add_(0.1 * torch.randn_like(w))
    m.cross_entropy.center.normal_(std=0.1)
    reference, centre = copy.deepcopy(m).double(), m.cross_entropy.center.double().clone()[0, 0]

    def scores(backbone, head, view):
        return unit(head.layers(backbone(view.double()))) @ unit(head.prototypes if epoch else head.prototypes.detach()).T

    student = [scores(reference.backbone, reference.head, view) for view in x]
    teacher = [scores(*reference.target, view).detach() for view in x]
    loss = 0.0
    for t, s in ((0, 1), (1, 0)):
        p_t, p_s = ((teacher[t] - centre) / 0.04).softmax(dim=1), (student[s] / 0.1).softmax(dim=1)
        loss = loss - (p_t * p_s.log()).sum(dim=1).mean() / 2
    same_loss_and_gradients(m, m(x).loss, reference, loss)
    moved = 0.9 * centre + 0.1 * torch.cat(teacher).mean(dim=0)
    assert_close(m.state_dict()["cross_entropy.center"][0, 0].double(), moved, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
@pytest.mark.parametrize("cls", [SwAV, DINO])
def test_prototypes_have_length_1_and_turn_only_after_the_frozen_epochs(cls, optimizer, monkeypatch):
    monkeypatch.setattr(loop.base, "build_method", lambda run, *_: build(cls, optimizer=optimizer, frozen_prototypes=2))
    training = loop.Training(build(cls, optimizer=optimizer, frozen_prototypes=2).run, 0, CPU)
    directions = []
    for epoch in range(4):
        training.model.before_epoch(epoch)
        training.train_step(views(epoch), torch.arange(16), 0.5, (epoch + 1) / 4)
        c = training.model.prototypes if cls is SwAV else training.model.head.prototypes
        directions.append(unit(c.detach()).clone())
        if cls is SwAV:
            assert_close(c.norm(dim=1), torch.ones(10))
    assert_close(directions[0], unit(build(cls).get_parameter("prototypes" if cls is SwAV else "head.prototypes")))
    assert_close(directions[0], directions[1])
    assert not torch.allclose(directions[1], directions[2], atol=1e-4)
    assert not torch.allclose(directions[2], directions[3], atol=1e-4)


@pytest.mark.parametrize(("queue_from", "first"), [(0.0, 1), (0.2, 1), (0.25, 2), (0.4, 2), (1.0, None)])
def test_the_queue_is_used_from_its_epoch_on_and_is_full_by_then(queue_from, first):
    m = build(SwAV, epochs=5, queue_from=queue_from)
    used = []
    for epoch in range(5):
        m.before_epoch(epoch)
        m.load_state_dict(copy.deepcopy(m.state_dict()))
        used.append(m.queue_is_used())
    assert used == [first is not None and epoch >= first for epoch in range(5)]
    for size in (1, 50, 84):  # of 100 images less a batch of 16
        m, random = build(SwAV, queue_size=size), build(SwAV, queue_size=size).queue1.keys
        for step in range(100 // 16):
            m(views(step))
        assert (m.queue1.keys != random).any(dim=1).all()


def test_the_teacher_s_temperature_rises_and_its_weights_follow():
    m = build(DINO, teacher_temperature=0.07, teacher_warmup=0.5, target_momentum=0.9, target_schedule="constant")
    before = [w.clone() for w in m.target.parameters()]
    seen = []
    for share in (0.0, 0.25, 0.5, 1.0):
        m.share.fill_(share)
        seen.append(m.scheduled_temperature())
    assert seen == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert build(DINO).scheduled_temperature() == 0.04
    with torch.no_grad():
        for w in m.parameters():
            if w.requires_grad:
                w.add_(1)
    m.after_step(0.25)
    for w, old in zip(m.target.parameters(), before, strict=True):
        assert_close(w, old + 0.1)


@pytest.mark.parametrize(
    ("method", "trained", "batch", "count"),
    [
        ("swav", 50_000, 256, 256), ("swav", 1_281_167, 4096, 3000), ("swav", 1_020, 128, 102), ("swav", 18, 8, 2),
        ("dino", 50_000, 256, 4096), ("dino", 1_281_167, 4096, 64058), ("dino", 1_020, 128, 102),
    ],
)  # fmt: skip
def test_the_number_of_prototypes_follows_from_the_images(method, trained, batch, count):
    small = {name: value for name, value in SMALL.items() if name not in ("prototypes", "batch_size")}
    m = {"swav": SwAV, "dino": DINO}[method](Run(method=method, **small, batch_size=batch), 0, small_backbone(), trained=trained)
    assert len(m.prototypes if method == "swav" else m.head.prototypes) == count


@pytest.mark.parametrize("cls", [SwAV, DINO])
def test_more_prototypes_than_images_are_refused(cls):
    with pytest.raises(InputError, match=r"^prototypes=101 is more than the 100 training images; use fewer, or 0 for a number"):
        build(cls, prototypes=101)


def test_a_queue_with_images_of_the_batch_is_refused():
    with pytest.raises(InputError, match=r"^queue_size=85: must be at most 84, the 100 training images less a batch of 16"):
        build(SwAV, queue_size=85)


def test_prototypes_in_use_are_those_that_tell_images_apart():
    def used(rows):
        return parts.prototypes_in_use(torch.tensor(rows)).item()

    assert used([[1.0, 0, 0, 0]] * 6) == pytest.approx(1)  # all on one
    assert used([[0.25] * 4] * 6) == pytest.approx(1)  # equal on all
    assert used(torch.eye(4).repeat(3, 1).tolist()) == pytest.approx(4)
    assert used([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]) == pytest.approx(2)
    p = torch.rand(7, 5, dtype=torch.float64)
    p = p / p.sum(dim=1, keepdim=True)
    information = sum(p[i, k] / 7 * math.log(p[i, k] / p.mean(dim=0)[k]) for i in range(7) for k in range(5))
    assert parts.prototypes_in_use(p).item() == pytest.approx(math.exp(information))


@pytest.mark.parametrize(
    ("why", "changes"),
    [("", {"epochs": 3}), ("equal on all", {"epochs": 3, "teacher_temperature": 1.0}), ("all on one", {"epochs": 5})],
)
def test_dino_collapses_in_either_way_and_the_record_says_so(why, changes, digits, tmp_path, monkeypatch):
    """Section 5.3: without sharpening the teacher's output is uniform, without centring one prototype has all."""
    if why == "all on one":
        monkeypatch.setattr(DINOLoss, "update_center", lambda *_: None)
    of_dino = {"hidden_dim": 64, "prototypes": 32, "batch_size": 64, "base_lr": 6.0, "target_momentum": 0.9}
    run = Run(method="dino", **{**SMALL, **of_dino, **changes}, precision="float32")
    pretrain.pretrain(run, digits, tmp_path, CPU)
    record = read_json(tmp_path / run.name / "pretrain.json")
    assert record["collapsed"].startswith("all images have nearly the same prototypes: 1.00" if why else "")
    assert (record["collapsed"] == "") == (why == "")
    if why:
        assert record["last"]["loss"] == pytest.approx(math.log(32) if why == "equal on all" else 0, abs=0.01)


def test_prototypes_that_tell_images_apart_are_no_collapse_however_near_the_vectors_are():
    row = {"spread": 0.05, "rank": 3.0, "rank_of": 128}
    assert watch.explain_collapse(row | {"prototypes in use": 2.0}) == ""
    assert watch.explain_collapse(row | {"prototypes in use": 1.001}) == (
        "all images have nearly the same prototypes: 1.001 in use, where 1 tells no two apart"
    )
