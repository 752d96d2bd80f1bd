"""BYOL and MoCo beside their papers: losses and gradients written out, momentum encoder, queue, batch norm over parts."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import small_backbone, tiny

from simclic import InputError, Run
from simclic.experiment import METHODS
from simclic.methods.base import build_method
from simclic.methods.byol import BYOL
from simclic.methods.moco_v1 import MoCoV1
from simclic.methods.moco_v2 import MoCoV2
from simclic.methods.moco_v3 import MoCoV3
from simclic.methods.parts import (
    GroupedBatchNorm2d,
    KeyQueue,
    count_prototypes,
    group_batch_norms,
    queue_size,
    scheduled_momentum,
    update_target,
)  # fmt: skip
from simclic.methods.simclic import SimCLIC
from simclic.methods.simclic_two_views import SimCLICOnTwoViews
from simclic.methods.simsiam import SimSiam
from simclic.methods.simsiam_no_augmentation import SimSiamWithoutAugmentation

PLAIN = {"predictor_dim": 512}  # the default, for methods without that predictor


def model(cls, method, **changes):
    """A method in float64 behind a small backbone, its momentum encoder already apart from the encoder."""
    torch.manual_seed(0)
    m = cls(tiny(method=method, batch_size=16, **changes), 100, small_backbone(), 100).double()
    if hasattr(m, "queue"):
        m.queue.float()
    if hasattr(m, "target"):
        with torch.no_grad():
            for p in m.target.parameters():
                p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2), dtype=p.dtype)
    return m


def views():
    return tuple(torch.randn(2, 16, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def byol(m, x1, x2):
    """Eq. 2, both directions summed: squared distances of unit vectors."""
    q1, q2 = (m.q(m.projector(m.backbone(x))) for x in (x1, x2))
    t1, t2 = (m.target(x).detach() for x in (x1, x2))
    return (unit(q1) - unit(t2)).square().sum(dim=1).mean() + (unit(q2) - unit(t1)).square().sum(dim=1).mean()


def info_nce(q, positive, negatives, temperature):
    """MoCo's Eq. 1, summed in words of exponentials."""
    own = ((q * positive).sum(dim=1) / temperature).exp()
    return -(own / (own + (q @ negatives.T / temperature).exp().sum(dim=1))).log().mean()


def moco_v1(m, x1, x2):
    q, k = unit(m.head(m.backbone(x1))), unit(m.target(x2)).detach()
    return info_nce(q, k, m.queue.keys.double(), m.run.temperature)


def moco_v2(m, x1, x2):
    q1, q2 = (unit(m.head(m.backbone(x))) for x in (x1, x2))
    k1, k2 = (unit(m.target(x)).detach() for x in (x1, x2))
    keys, t = m.queue.keys.double(), m.run.temperature
    return (info_nce(q1, k2, keys, t) + info_nce(q2, k1, keys, t)) / 2


def moco_v3(m, x1, x2):
    """Algorithm 1: 2 tau times a cross-entropy, negatives of the batch alone."""
    q1, q2 = (unit(m.predictor(m.projector(m.backbone(x)))) for x in (x1, x2))
    k1, k2 = (unit(m.target(x)).detach() for x in (x1, x2))
    t, loss = m.run.temperature, 0.0
    for q, k in ((q1, k2), (q2, k1)):
        e = (q @ k.T / t).exp()
        loss = loss - 2 * t * (e.diagonal() / e.sum(dim=1)).log().mean()
    return loss


REFERENCES = [
    (BYOL, "byol", byol, {"hidden_dim": 24, **PLAIN}),
    (MoCoV1, "moco-v1", moco_v1, {"queue_size": 40, "norm_groups": 1, **PLAIN}),
    (MoCoV2, "moco-v2", moco_v2, {"queue_size": 40, "norm_groups": 1, "hidden_dim": 24, **PLAIN}),
    (MoCoV3, "moco-v3", moco_v3, {"hidden_dim": 24, **PLAIN}),
]


@pytest.mark.parametrize(("cls", "method", "reference", "changes"), REFERENCES, ids=[r[1] for r in REFERENCES])
def test_loss_and_gradients_are_the_paper_s(cls, method, reference, changes):
    m, (x1, x2) = model(cls, method, **changes), views()
    learned = [p for p in m.parameters() if p.requires_grad]
    expected = reference(m, x1, x2)
    wanted = torch.autograd.grad(expected, learned, allow_unused=True)
    loss = m((x1, x2), torch.arange(16), torch.Generator().manual_seed(3)).loss
    assert loss.item() == pytest.approx(expected.item(), abs=2e-5)  # methods compare in float32
    for got, want in zip(torch.autograd.grad(loss, learned, allow_unused=True), wanted, strict=True):
        assert want is not None
        assert torch.allclose(got, want, atol=2e-5)
    assert not any(p.requires_grad for p in m.target.parameters())


@pytest.mark.parametrize(("cls", "method", "reference", "changes"), REFERENCES, ids=[r[1] for r in REFERENCES])
def test_the_momentum_encoder_follows_by_its_schedule(cls, method, reference, changes):
    m = model(cls, method, **changes, target_momentum=0.9)
    head = m.head if method in ("moco-v1", "moco-v2") else m.projector
    online = [p.detach().clone() for p in (*m.backbone.parameters(), *head.parameters())]
    before = [p.detach().clone() for p in m.target.parameters()]
    m.after_step(0.25)
    momentum = 0.9 if method == "moco-v1" else 1 - 0.1 * (math.cos(math.pi / 4) + 1) / 2
    for was, now, source in zip(before, m.target.parameters(), online, strict=True):
        assert torch.allclose(now, momentum * was + (1 - momentum) * source)


def test_momentum_rises_to_1_or_stays():
    rising, constant = Run(method="byol"), Run(method="moco-v1")
    assert [round(scheduled_momentum(rising, share), 6) for share in (1e-9, 0.5, 1.0)] == [0.99, 0.995, 1.0]
    assert {scheduled_momentum(constant, share) for share in (0.0, 0.5, 1.0)} == {0.99}
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = a.weight.clone()
    update_target(a, b, 1.0)
    assert a.weight.equal(before)


@pytest.mark.parametrize("count", [1, 3, 7, 8, 9, 20])
def test_a_queue_holds_the_newest_keys_whatever_their_number(count):
    queue, pushed = KeyQueue(8, 2), []
    for n in range(5):
        keys = torch.arange(count * n, count * (n + 1), dtype=torch.float32)[:, None].expand(-1, 2)
        queue.push_keys(keys)
        pushed += keys[:, 0].tolist()
    newest = pushed[-8:]
    assert sorted(queue.keys[:, 0].tolist())[-len(newest) :] == sorted(newest)
    assert set(queue.state_dict()) == {"keys", "next"}


def test_a_step_is_not_among_its_own_negatives():
    """The queue that a loss sees holds keys of earlier steps alone, and keys go in after it."""
    m, (x1, x2) = model(MoCoV1, "moco-v1", queue_size=40, norm_groups=1, **PLAIN), views()
    before = m.queue.keys.clone()
    m((x1, x2), None, torch.Generator().manual_seed(3))
    k = unit(m.target(x2))
    assert torch.allclose(m.queue.keys[:16], k.float(), atol=1e-6)
    assert m.queue.keys[16:].equal(before[16:])
    assert not torch.isclose(before[:, None], k[None].float()).all(dim=2).any()


def test_parts_of_a_batch_are_normalised_apart():
    torch.manual_seed(0)
    x = torch.randn(12, 5, 3, 3)
    whole, grouped = torch.nn.BatchNorm2d(5), torch.nn.BatchNorm2d(5)
    for norm in (whole, grouped):
        norm.weight.data.uniform_(1, 2)
        norm.bias.data.uniform_(1, 2)
    grouped.load_state_dict(whole.state_dict())
    group_batch_norms(f := torch.nn.Sequential(grouped), Run(method="moco-v1", batch_size=12, norm_groups=3))
    apart = [torch.nn.BatchNorm2d(5) for _ in range(3)]
    for norm in apart:
        norm.load_state_dict(whole.state_dict())
    expected = torch.cat([norm(part) for norm, part in zip(apart, x.chunk(3), strict=True)])
    assert torch.allclose(f(x), expected, atol=1e-6)
    assert torch.allclose(grouped.running_mean, torch.stack([n.running_mean for n in apart]).mean(dim=0))
    assert torch.allclose(grouped.running_var, torch.stack([n.running_var for n in apart]).mean(dim=0))
    assert isinstance(grouped, GroupedBatchNorm2d)
    whole.load_state_dict(grouped.state_dict())  # the same names: what is stored is a plain backbone
    assert torch.allclose(f.eval()(x), whole.eval()(x))


@pytest.mark.parametrize(
    ("trained", "batch", "size"),
    [(1020, 128, 256), (1880, 128, 512), (2944, 128, 1024), (50_000, 128, 4096), (75_750, 256, 4096), (1_281_167, 256, 65_536)],
)
def test_a_queue_follows_from_the_number_of_images(trained, batch, size):
    assert queue_size(Run(method="moco-v2", batch_size=batch), trained) == size


def test_prototypes_follow_from_the_number_of_images():
    asked = ((1020, 128), (50_000, 128), (1_281_167, 3000))  # images, and the most that a method wants
    assert [count_prototypes(Run(method="swav"), *one) for one in asked] == [102, 128, 3000]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "moco-v2", "queue_size": 893}, "queue_size=893: must be at most 892, the 1,020 training images less a batch"),
        ({"method": "swav", "prototypes": 1021}, "prototypes=1021 is more than the 1,020 training images; use fewer, or 0"),
        ({"method": "moco-v1", "batch_size": 8}, "norm_groups=8: a batch must be so many parts of equal size, of two images"),
        ({"method": "moco-v2", "norm_groups": 3}, "and batch_size=128 is not; change one of the two, or set norm_groups=1"),
        ({"method": "moco-v2", "backbone": "test_byobnet"}, "norm_groups=8 with backbone='test_byobnet': its BatchNormAct2d can"),
        ({"stem": "small", "backbone": "test_vit"}, "stem='small' with backbone='test_vit': only ResNets have such a stem"),
    ],
)
def test_what_cannot_be_is_one_line(changes, told):
    with pytest.raises(InputError) as e:
        build_method(Run(**{"backbone": "test_resnet", **changes}), 2000, 1020)
    assert told in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "moco-v4"}, "method='moco-v4' is not one of simclic, "),
        ({"method": "mocov3"}, "; did you mean 'moco-v3'?"),
        ({"method": "byol", "temperature": 0.5}, "temperature=0.5 has no effect with method='byol'; remove it"),
        ({"queue_size": 64}, "queue_size=64 has no effect with method='simclic'; remove it"),
        ({"method": "byol", "perturbation": "dropout"}, "perturbation='dropout' has no effect with method='byol'; remove it"),
        ({"method": "byol", "epochs": 0}, "method='byol' has no effect with epochs=0; remove it"),
        ({"warmup_epochs": 10, "epochs": 10}, "warmup_epochs=10 with epochs=10: must be fewer; set warmup_epochs=0"),
    ],
)
def test_a_field_that_a_method_does_not_have_is_one_line(changes, told):
    with pytest.raises(InputError) as e:
        Run(**changes)
    assert told in str(e.value)


def test_a_method_has_defaults_of_its_own_and_a_change_of_method_takes_the_new_ones():
    byol = Run(method="byol")
    assert (byol.optimizer, byol.base_lr, byol.projector_dim, byol.hidden_dim) == ("larc", 1.0, 256, 4096)
    assert Run(method="byol", base_lr=0.05).base_lr == 0.05
    assert len({Run(method="byol", base_lr=lr).name for lr in (1.0, 0.05, 0.3)}) == 3
    assert Run(method="byol", base_lr=1.0) == byol
    assert Run.parse(byol.values) == byol
    (moved,) = Run(method="moco-v2", temperature=0.3, batch_size=64).moved(method="simclic")
    assert moved == Run(batch_size=64)
    (moved,) = Run(method="byol", seed=3).moved(method="moco-v2")
    assert moved == Run(method="moco-v2", seed=3)
    assert Run(method="byol", base_lr=0.7).moved(method="simsiam")[0].base_lr == 0.7  # it was asked for


def test_simsiam_without_augmentation_is_simclic_without_perturbation_but_for_h_s_learning_rate():
    x = views()[0]
    torch.manual_seed(0)
    control = SimSiamWithoutAugmentation(tiny(method="simsiam-no-augmentation"), 0, small_backbone()).double()
    torch.manual_seed(0)
    simclic = SimCLIC(tiny(perturbation="none"), 0, small_backbone()).double()
    losses = [m(x).loss for m in (control, simclic)]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-9)
    gradients = [torch.autograd.grad(loss, list(m.parameters())) for loss, m in zip(losses, (control, simclic), strict=True)]
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*gradients, strict=True))
    assert [g["fixed_lr"] for g in control.parameter_groups()] == [False, True]
    assert [g["fixed_lr"] for g in simclic.parameter_groups()] == [False]


def test_simclic_on_two_views_without_perturbation_is_simsiam():
    torch.manual_seed(0)
    two = SimCLICOnTwoViews(tiny(method="simclic-two-views", perturbation="none"), 0, small_backbone()).double()
    torch.manual_seed(0)
    simsiam = SimSiam(tiny(method="simsiam"), 0, small_backbone()).double()
    assert two(views()).loss.item() == pytest.approx(simsiam(views()).loss.item(), abs=1e-6)


def test_simclic_on_two_views_predicts_the_other_view_perturbed():
    m, (x1, x2) = model(SimCLICOnTwoViews, "simclic-two-views", perturbation="noise", eps=2.0), views()
    loss = m((x1, x2), None, torch.Generator().manual_seed(3)).loss
    z1, z2 = (m.projector(m.backbone(x)) for x in (x1, x2))
    generator = torch.Generator().manual_seed(3)
    tilde1 = m.perturb(z1, None, generator)[0].detach()
    tilde2 = m.perturb(z2, None, generator)[0].detach()
    by_hand = -0.5 * F.cosine_similarity(m.h(z1), tilde2).mean() - 0.5 * F.cosine_similarity(m.h(z2), tilde1).mean()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_defaults_of_a_method_are_values_that_its_fields_take(method):
    run = Run(method=method)
    for name, value in METHODS[method].defaults.items():
        assert Run.checked(name, value) == getattr(run, name)
    assert run.passes >= max(1, METHODS[method].views)
    assert run.data_augmentation == (METHODS[method].views > 0)
