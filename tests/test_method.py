"""Section 3, equation by equation."""

import pytest
import torch
from conftest import small_backbone, tiny

from simclic import InputError, Run, SimCLIC
from simclic.methods.backbones import build_backbone
from simclic.methods.simclic import cosine, cross_entropy, dropout, history, noise


@pytest.fixture
def z():
    return torch.randn(64, 512, generator=torch.Generator().manual_seed(0))


def model(images=0, **changes):
    torch.manual_seed(0)
    return SimCLIC(tiny(**changes), images, small_backbone())


def batch():
    return torch.randn(16, 3, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("eps", [0.1, 1.0, 20.0])
def test_noise_moves_by_eps_and_keeps_signs(z, eps):
    step = noise(z, eps) - z
    assert torch.allclose(step.norm(dim=1), torch.full((64,), eps), rtol=1e-3)
    assert (noise(z, eps).sign() == z.sign()).all()
    assert noise(z, 0.0).equal(z)


def test_noise_is_uniform_before_it_is_scaled(z):
    step = (noise(z, 1.0) - z).abs()
    step = step / step.max(dim=1, keepdim=True).values
    shares = torch.histc(step, 4, 0, 1) / step.numel()
    assert torch.allclose(shares, torch.full((4,), 0.25), atol=0.01)


def test_history_mixes_with_the_past(z):
    before = torch.ones_like(z)
    assert history(z, 0.0, before).equal(z)
    assert torch.allclose(history(z, 0.3, before), 0.3 + 0.7 * z)


@pytest.mark.parametrize("p", [0.1, 0.25, 0.4])
def test_dropout_drops_a_share_p_and_leaves_the_rest(z, p):
    dropped = dropout(z, p)
    assert abs((dropped == 0).float().mean() - p) < 4 * (p * (1 - p) / z.numel()) ** 0.5
    assert dropped[dropped != 0].equal(z[dropped != 0])
    assert dropout(z, 0.0).equal(z)
    assert not dropout(z, 1.0).any()


def test_bernoulli_keep_keeps_a_share_p(z):
    kept = SimCLIC(tiny(perturbation="dropout", p=0.2, bernoulli="keep"), 0, small_backbone()).perturb(z, None)[0]
    assert abs((kept != 0).float().mean() - 0.2) < 0.02


def test_two_draws_are_independent_except_under_history(z):
    for g, equal in (("noise", False), ("dropout", False), ("none", True), ("history", True)):
        one, two = model(64, perturbation=g, projector_dim=512).perturb(z, torch.arange(64))
        assert one.equal(two) == equal


def test_loss_of_equal_vectors_is_minus_one(z):
    assert torch.allclose(cosine(z, z), torch.full((64,), -1.0))
    assert torch.allclose(cosine(z, 3 * z), torch.full((64,), -1.0))
    assert torch.allclose(cosine(z, -z), torch.full((64,), 1.0))


def test_equation_7(z):
    p = torch.randn_like(z)
    by_hand = -(torch.exp(z) / torch.exp(z).sum(1, True) * torch.log(torch.exp(p) / torch.exp(p).sum(1, True))).sum(1)
    assert torch.allclose(cross_entropy(p, z), by_hand, rtol=1e-4)
    assert (cross_entropy(z, z) <= cross_entropy(p, z)).all()


def test_loss_is_the_mean_of_both_halves_as_two_passes_would_give():
    m = model(perturbation="noise", eps=5.0)
    x, generator = batch(), torch.Generator().manual_seed(3)
    loss = m(x, generator=generator).loss
    generator.manual_seed(3)
    z = m.projector(m.backbone(x))
    z_tilde_i, z_tilde_j = noise(z, 5.0, generator=generator), noise(z, 5.0, generator=generator)
    by_hand = 0.5 * cosine(m.h(z), z_tilde_j).mean() + 0.5 * cosine(m.h(z), z_tilde_i).mean()
    assert torch.allclose(loss, by_hand)


def test_no_gradient_reaches_the_target_with_stop_gradient_and_some_does_without():
    for stop in (True, False):
        m = model(stop_gradient=stop, perturbation="none")
        m.g = lambda z, *_, m=m, **__: z + m.probe  # a parameter on the way to the target alone
        m.probe = torch.nn.Parameter(torch.zeros(32))
        m(batch()).loss.backward()
        assert (m.probe.grad is None) == stop
        assert stop or m.probe.grad.abs().sum() > 0


def test_frozen_predictor_learns_nothing_and_the_others_do():
    for kind, learned in (("frozen", 0), ("1-layer", 2), ("2-layer", 5), ("none", 0)):
        m = model(predictor=kind, **({} if kind in ("frozen", "2-layer") else {"predictor_dim": 512}))
        m(batch()).loss.backward()
        assert sum(p.grad is not None for p in m.h.parameters()) == learned


def test_history_uses_the_same_images_last_z():
    m = model(images=40, perturbation="history", tau=0.5)
    z = torch.randn(4, 32)
    index = torch.tensor([7, 3, 30, 39])
    first, _ = m.perturb(z, index)
    assert torch.allclose(first, z)  # first visit: the current z
    later = torch.randn(4, 32)
    mixed, _ = m.perturb(later, torch.tensor([39, 7, 0, 3]))
    expected = 0.5 * later + 0.5 * torch.stack([z[3], z[0], later[2], z[1]])
    assert torch.allclose(mixed, expected)
    assert torch.allclose(m.z_before[39], later[0])
    m.eval()
    m.perturb(torch.zeros(1, 32), torch.tensor([39]))
    assert torch.allclose(m.z_before[39], later[0])  # looking does not move the history


def test_history_of_the_iteration_before_goes_by_position():
    m = model(perturbation="history", tau=0.5, history_of="iteration", batch_size=4)
    one, two = torch.randn(4, 32), torch.randn(4, 32)
    m.perturb(one, None)
    assert torch.allclose(m.perturb(two, None)[0], 0.5 * one + 0.5 * two)


def test_algorithm_1_to_the_letter_perturbs_p():
    assert torch.allclose(model(perturbs="p", perturbation="noise", eps=0.0)(batch()).loss, torch.tensor(-1.0))  # z~ = p
    assert model(perturbs="z", perturbation="noise", eps=0.0)(batch()).loss > -0.9


def test_noise_on_the_unit_sphere(z):
    z_tilde, _ = model(normalize_z=True, eps=0.1, projector_dim=512).perturb(100 * z, None)
    assert torch.allclose(z_tilde.norm(dim=1), torch.full((64,), 1.0), atol=0.11)


def test_projector_and_predictor_are_as_section_3_4_says():
    m = model()
    kinds = [type(layer).__name__ for layer in m.projector]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert [type(layer).__name__ for layer in m.h] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    z = m(batch()).z
    assert torch.allclose(z.mean(dim=0), torch.zeros(32), atol=1e-5)  # behind the affine-free batch norm
    assert torch.allclose(z.norm(dim=1).square().mean(), torch.tensor(32.0), rtol=1e-3)


def test_the_default_is_resnet50_with_2048_and_512():
    m = SimCLIC(Run())
    assert sum(p.numel() for p in m.backbone.parameters()) == 23_508_032
    assert [layer.out_features for layer in m.projector if isinstance(layer, torch.nn.Linear)] == [2048, 2048, 2048]
    assert [layer.out_features for layer in m.h if isinstance(layer, torch.nn.Linear)] == [512, 2048]


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 32), ("mobilenetv3_small_050", 32), ("test_vit", 64), ("test_convnext", 32), ("test_byobnet", 32)],
)
def test_any_timm_backbone_by_name(name, size):
    run = tiny(backbone=name, image_size=size)
    out = SimCLIC(run)(torch.randn(4, 3, size, size))
    assert out.z.shape == (4, 32)
    assert out.loss.isfinite()


def test_mistakes_are_told():
    with pytest.raises(InputError, match="images=0 with perturbation='history': it keeps one row per image"):
        SimCLIC(tiny(perturbation="history"), 0, small_backbone())
    with pytest.raises(InputError, match="pass the image of each row"):
        model(images=3, perturbation="history").perturb(torch.zeros(2, 32), None)
    with pytest.raises(InputError, match=r"backbone='resnet50.a1_in1k': a tag names trained weights; use 'resnet50'"):
        build_backbone(Run(backbone="resnet50.a1_in1k"))
    with pytest.raises(InputError, match="backbone='resnet51' is not a timm model; did you mean resnet"):
        build_backbone(Run(backbone="resnet51"))


def test_it_can_be_trained_in_a_loop_of_ones_own():
    m = model(images=16, perturbation="history")
    optimizer = torch.optim.SGD(m.parameters(), 0.05)
    losses = []
    for _ in range(60):
        loss = m(batch(), torch.arange(16)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
