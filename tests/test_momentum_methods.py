"""BYOL and MoCo beside their papers: losses and gradients written out, momentum encoder, queue, batch norm over parts."""

import math

import pytest
import torch
from conftest import small_backbone, tiny
from torch.testing import assert_close

from simclic import InputError, Run
from simclic.experiment import METHODS
from simclic.methods.base import build_method
from simclic.methods.byol import BYOL
from simclic.methods.infomin import InfoMin
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
from simclic.methods.simclic import cosine, noise
from simclic.methods.simclic_two_views import SimCLICOnTwoViews
from simclic.train import loop

PLAIN = {"predictor_dim": 512}  # the default, for methods without that predictor


def model(cls, method, **changes):
    """A method in float64 behind a small backbone, its momentum encoder already apart from the encoder."""
    torch.manual_seed(0)
    m = cls(tiny(method=method, batch_size=16, **changes), 100, small_backbone(), 100).double()
    if hasattr(m, "queue"):
        m.queue.float().push_keys(unit(torch.randn(30, m.d)))  # of 40 places
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


def held_keys(m):
    """The keys that a queue holds; at first there are none."""
    return m.queue.keys[: int(m.queue.pushed)].double().clone()


def moco_v1(m, x1, x2):
    q, k = unit(m.head(m.backbone(x1))), unit(m.target(x2)).detach()
    return info_nce(q, k, held_keys(m), m.run.temperature)


def moco_v2(m, x1, x2):
    q1, q2 = (unit(m.head(m.backbone(x))) for x in (x1, x2))
    k1, k2 = (unit(m.target(x)).detach() for x in (x1, x2))
    keys, t = held_keys(m), m.run.temperature
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


TWO = "simclic-two-views"

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
    """Of its eight places those are compared that are filled: none before the first step."""
    queue, pushed = KeyQueue(8, 2), []
    for n in range(5):
        similarity = queue.compare_keys(torch.ones(1, 2))[0]
        assert sorted(similarity[similarity.isfinite()].tolist()) == pushed[-8:]
        keys = torch.arange(count * n, count * (n + 1), dtype=torch.float32)[:, None].expand(-1, 2) / 2
        queue.push_keys(keys)
        pushed += keys.sum(dim=1).tolist()
    assert set(queue.state_dict()) == {"keys", "pushed"}


@pytest.mark.parametrize("method", ["moco-v1", "moco-v2"])
def test_a_step_is_not_among_its_own_negatives(method):
    """The queue that a loss sees holds keys of earlier steps alone, and keys go in after it; in the order of their images."""
    m, (x1, x2) = model(*REFERENCES[1 if method == "moco-v1" else 2][:2], queue_size=70, norm_groups=1, **PLAIN), views()
    before, similarities, original = m.queue.keys.clone(), [], m.queue.compare_keys
    m.queue.compare_keys = lambda q: similarities.append(original(q)) or similarities[-1]
    m((x1, x2), None, torch.Generator().manual_seed(3))
    assert all(similarity.isfinite().sum(dim=1).eq(30).all() for similarity in similarities)
    new = torch.cat([unit(m.target(x)) for x in ([x2] if method == "moco-v1" else [x1, x2])]).float()
    assert torch.allclose(m.queue.keys[30 : 30 + len(new)], new, atol=1e-6)
    assert m.queue.keys[:30].equal(before[:30])


def test_without_keys_there_is_nothing_to_learn_from_yet():
    """Random keys, which the official code begins with, would make all queries alike: it is by that that they differ."""
    torch.manual_seed(0)
    m = MoCoV2(tiny(method="moco-v2", batch_size=16, norm_groups=1, **PLAIN), 100, small_backbone(), 100)
    loss = m(tuple(view.float() for view in views()), None, torch.Generator()).loss
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in m.parameters() if p.requires_grad)


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
    ("changes", "message"),
    [
        ({"method": "moco-v2", "queue_size": 893}, "queue_size=893: must be at most 892, the 1,020 training images less a batch"),
        ({"method": "swav", "prototypes": 1021}, "prototypes=1021 is more than the 1,020 training images; use fewer, or 0"),
        ({"method": "moco-v2", "batch_size": 1020, "norm_groups": 1}, "queue_size=1: must be at most 0, the 1,020 training"),
        ({"method": "moco-v1", "batch_size": 8}, "norm_groups=8: a batch must be so many parts of equal size, of two images"),
        ({"method": "moco-v2", "norm_groups": 3}, "and batch_size=128 is not; change one of the two, or set norm_groups=1"),
        ({"method": "moco-v2", "backbone": "test_byobnet"}, "norm_groups=8 with backbone='test_byobnet': its BatchNormAct2d can"),
        ({"stem": "small", "backbone": "test_vit"}, "stem='small' with backbone='test_vit': only ResNets have such a stem"),
    ],
)
def test_what_cannot_be_is_one_line(changes, message):
    with pytest.raises(InputError) as e:
        build_method(Run(**{"backbone": "test_resnet", **changes}), 2000, 1020)
    assert message in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("changes", "message"),
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
def test_a_field_that_a_method_does_not_have_is_one_line(changes, message):
    with pytest.raises(InputError) as e:
        Run(**changes)
    assert message in str(e.value)


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


def train_steps(two_views, **changes):
    """All weights after ten steps on one batch, with the learning rate falling, and the losses."""
    training = loop.Training(tiny(**changes), 40, torch.device("cpu"))
    x = torch.randn(2, 16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    losses = []
    for step in range(10):
        training.step = step
        losses.append(training.train_step(tuple(x) if two_views else x[0], torch.arange(16), 0.05 * (10 - step)).loss.item())
    return {n: v for n, v in training.model.state_dict().items() if not n.startswith(("z_before", "seen"))}, losses


@pytest.mark.parametrize(
    ("control", "other", "two_views"),
    [
        ({"method": "simsiam-no-augmentation", "fixed_predictor_lr": False}, {"perturbation": "none"}, False),
        ({"method": TWO, "perturbation": "none"}, {"method": "simsiam", "fixed_predictor_lr": False}, True),
        ({"method": TWO, "perturbation": "noise", "eps": 0.0}, {"method": TWO, "perturbation": "history", "tau": 0.0}, True),
    ],
)
def test_a_control_differs_in_nothing_but_what_it_says(control, other, two_views):
    """Bit for bit: without augmentation, SimSiam is SimCLIC without perturbation, but for the predictor's fixed learning rate."""
    (weights, losses), (expected, expected_losses) = (train_steps(two_views, **changes) for changes in (control, other))
    assert losses == expected_losses
    assert all(value.equal(expected[name]) for name, value in weights.items())
    assert weights.keys() == expected.keys()
    if control.pop("fixed_predictor_lr", None) is False:
        assert not all(value.equal(expected[name]) for name, value in train_steps(two_views, **control)[0].items())


def on_two_views(**changes):
    torch.manual_seed(0)
    m = SimCLICOnTwoViews(tiny(method=TWO, **changes), 40, small_backbone())
    return m, tuple(torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(1)))


def test_p_of_a_view_is_compared_with_g_of_the_other_one():
    m, (x1, x2) = on_two_views(perturbation="noise", eps=5.0)
    out = m((x1, x2), generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    z1, z2 = (m.projector(m.backbone(x)) for x in (x1, x2))
    target1, target2 = noise(z1, 5.0, generator=generator).detach(), noise(z2, 5.0, generator=generator).detach()
    expected = 0.5 * cosine(m.h(z1), target2).mean() + 0.5 * cosine(m.h(z2), target1).mean()
    assert_close(out.loss, expected)
    learned = list(m.parameters())
    assert_close(torch.autograd.grad(out.loss, learned), torch.autograd.grad(expected, learned))


def test_both_views_are_mixed_with_the_past_of_the_first():
    m, x = on_two_views(perturbation="history", tau=0.5)
    index = torch.tensor([7, 3, 30, 39])
    first, targets, original = m(x, index).z.detach(), [], m.g
    assert m.z_before[index].equal(first)
    m.g = lambda *a: targets.append((a, original(*a))) or targets[-1][1]
    m(x, index)
    assert len(targets) == 2
    for (z, _, before), mixed in targets:
        assert before.equal(first)
        assert_close(mixed, 0.5 * first + 0.5 * z)


@pytest.mark.parametrize("method", METHODS)
def test_the_defaults_of_a_method_are_values_that_its_fields_take(method):
    run = Run(method=method)
    for name, value in METHODS[method].defaults.items():
        assert Run.checked(name, value) == getattr(run, name)
    assert run.passes >= max(1, METHODS[method].views)
    assert run.data_augmentation == (METHODS[method].views > 0)


def test_infomin_s_image_and_jigsaw_are_both_to_match_the_key():
    """MoCo's loss (Eq. 1) of the image and of its nine patches, half of each, with the same key and queue."""
    m, (x1, x2) = model(InfoMin, "infomin", queue_size=40, norm_groups=1, **PLAIN), views()
    patches = torch.randn(16, 9, 3, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    keys, q = m.queue.keys[:30].double(), unit(m.head(m.backbone(x1)))
    joined = torch.cat([m.jigsaw.patch(m.backbone(patches[:, n])) for n in range(9)], dim=1)
    k, expected = unit(m.target(x2)).detach(), 0.0
    for query in (q, unit(m.jigsaw.join(joined))):
        own, others = ((query * k).sum(dim=1) / 0.15).exp(), (query @ keys.T / 0.15).exp().sum(dim=1)
        expected = expected - (own / (own + others)).log().mean() / 2
    loss = m((x1, x2, patches), None, torch.Generator().manual_seed(0)).loss
    learned = [p for p in m.parameters() if p.requires_grad]
    assert loss.item() == pytest.approx(expected.item(), abs=2e-5)
    for got, want in zip(torch.autograd.grad(loss, learned), torch.autograd.grad(expected, learned), strict=True):
        assert_close(got, want, atol=2e-5, rtol=1e-4)
    assert_close(m.queue.keys[30:40].double(), k[:10], atol=1e-6, rtol=1e-5)
