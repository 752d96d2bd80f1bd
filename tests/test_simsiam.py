"""SimSiam: its loss against the paper's formula, what learns and at which rate, and that it learns."""

import pytest
import torch
import torch.nn.functional as F
from conftest import compute_results, small_backbone, tiny

from simclic import InputError, Linear, Run, Table
from simclic.__main__ import main
from simclic.data.images import Images
from simclic.experiment import Suite
from simclic.files import read_json
from simclic.methods.simsiam import SimSiam
from simclic.report import render
from simclic.train import loop, pretrain

CPU = torch.device("cpu")


def model(**changes):
    torch.manual_seed(0)
    return SimSiam(tiny(method="simsiam", **changes), 0, small_backbone()).double()


def views():
    return tuple(torch.randn(2, 16, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def test_loss_and_gradients_are_the_paper_s():
    """Eq. 1 and 4 and the gradient of Eq. 1 with respect to p, written out; SimCLIC and SimSiam compute losses in float32."""
    m, (x1, x2) = model(), views()
    out = m((x1, x2))
    learned = list(m.parameters())
    gradients = torch.autograd.grad(out.loss, learned)
    z1, z2 = (m.projector(m.backbone(x)) for x in (x1, x2))
    p1, p2, loss, expected = m.h(z1), m.h(z2), 0.0, [torch.zeros_like(w) for w in learned]
    for p, z in ((p1, z2), (p2, z1)):
        unit_p, unit_z = p / p.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True)
        cosine = (unit_p * unit_z).sum(dim=1, keepdim=True)
        loss = loss - cosine.mean() / 2
        towards = -(unit_z - cosine * unit_p) / p.norm(dim=1, keepdim=True) / 2 / len(p)  # dL/dp; z is a constant
        pulled = torch.autograd.grad(p, learned, towards.detach(), retain_graph=True, allow_unused=True)
        expected = [e if g is None else e + g for e, g in zip(expected, pulled, strict=True)]
    assert out.loss.item() == pytest.approx(loss.item(), abs=1e-6)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert torch.allclose(gradient, wanted, atol=1e-6)
    assert out.watched["cos(z1, z2)"].item() == pytest.approx(F.cosine_similarity(z1, z2).mean().item(), abs=1e-6)


@pytest.mark.parametrize("stop", [True, False])
def test_no_gradient_reaches_the_target_with_stop_gradient_and_some_does_without(stop):
    m = model(stop_gradient=stop)
    m.h = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Flatten()).double()
    m.h[0].weight.data.zero_()  # p does not depend on z: the targets are the only way to the encoder
    m(views()).loss.backward()
    reached = sum(p.grad.abs().sum() for p in m.projector.parameters())
    assert (reached == 0) == stop


def test_each_view_has_batch_statistics_of_its_own():
    m, (x1, x2) = model(), views()
    assert torch.allclose(m((x1, 5 + x2)).z, m((x1, x2)).z)


@pytest.mark.parametrize(
    ("changes", "moved"), [({}, {"h"}), ({"fixed_predictor_lr": False}, set()), ({"predictor": "frozen"}, set())]
)
def test_the_predictor_s_learning_rate_stays_while_the_encoder_s_falls(changes, moved):
    training = loop.Training(tiny(method="simsiam", **changes), 0, CPU)
    x = tuple(torch.randn(2, 8, 3, 16, 16))
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    training.train_step(x, torch.arange(8), 0.0)  # the end of the cosine
    assert {name.split(".")[0] for name, p in training.model.named_parameters() if not p.equal(before[name])} == moved


def test_two_views_differ_and_are_functions_of_seed_and_step(digits):
    training, images = loop.Training(tiny(method="simsiam"), 0, CPU), Images(digits, 16, CPU)
    pixels = images.fetch(torch.arange(8))
    x1, x2 = training.prepare_views(pixels, images)
    assert x1.shape == x2.shape == (8, 3, 16, 16)
    assert not x1.equal(x2)
    torch.rand(3)  # what else is drawn does not matter
    assert training.prepare_views(pixels, images)[0].equal(x1)
    training.step = 1
    assert not training.prepare_views(pixels, images)[0].equal(x1)
    other = loop.Training(tiny(method="simsiam", seed=1), 0, CPU)
    assert not other.prepare_views(pixels, images)[0].equal(x1)


def test_it_is_trained_probed_and_fine_tuned_like_any_other(digits, tmp_path, small, capsys):
    """Six epochs on digits teach it something: a linear probe makes clearly fewer errors than on the untrained backbone."""
    run = tiny(method="simsiam", epochs=6, projector_dim=256, predictor_dim=64, base_lr=0.4)
    untrained = tiny(epochs=0, perturbation="none", projector_dim=2048, predictor_dim=512, precision="bf16")
    probe = Linear(l2_low=0.1, l2_count=3, tolerance=1e-3)
    learned, not_learned = compute_results(run, (probe, small), tmp_path), compute_results(untrained, (probe,), tmp_path)
    assert learned["linear evaluation"] < not_learned["linear evaluation"] - 5
    assert set(learned) == {"linear evaluation", "fine-tuned"}
    record = read_json(tmp_path / run.name / "pretrain.json")
    assert record["collapsed"] == ""
    assert 0 < record["last"]["cos(z1, z2)"] < 1
    table = Table(caption="", runs=(run, untrained), protocols=(probe, small), paper="table2")
    render([Suite("", "", (table,), "x.py")], tmp_path, tmp_path / "out")
    assert "| SimSiam | " in (tmp_path / "out/table2.md").read_text()
    assert "cos(z1, z2)" in (tmp_path / f"out/runs/{run.name}.html").read_text()
    main(["watch", run.name, "--runs", str(tmp_path)])
    assert "cos(z1, z2)" in capsys.readouterr().out


def test_without_stop_gradient_it_collapses(digits, tmp_path):
    run = tiny(method="simsiam", epochs=7, projector_dim=256, predictor_dim=64, base_lr=0.4, stop_gradient=False)
    pretrain.pretrain(run, digits, tmp_path, CPU)
    collapsed = read_json(tmp_path / run.name / "pretrain.json")["collapsed"]
    assert collapsed.startswith("the representations fill few dimensions")


def test_table_3_says_what_it_needs():
    run = Run(method="simsiam")
    assert (run.title, run.label, run.kind) == ("SimSiam", "SimSiam", "simsiam")
    assert (run.data_augmentation, run.projection_head) == (True, True)
    assert (run.momentum_encoder, run.memory_bank) == (False, False)
    with pytest.raises(InputError, match=r"eps=0.3 has no effect with method='simsiam'"):
        Run(method="simsiam", eps=0.3)
    with pytest.raises(InputError, match=r"fixed_predictor_lr=False has no effect with method='simclic'"):
        Run(fixed_predictor_lr=False)
