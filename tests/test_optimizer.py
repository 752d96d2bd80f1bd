"""LARS, warm-up and the small-image stem."""

import math

import pytest
import torch
from conftest import tiny

from simclic import Run
from simclic.methods.backbones import build_backbone
from simclic.train import loop


@pytest.mark.parametrize("optimizer", ["lars", "larc"])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_lars_scales_each_layer_s_step_to_its_weights_and_leaves_biases_and_norms(optimizer, scale):
    """You et al., 2017, Algorithm 1, first step: lr * trust * |w| / (|g| + wd |w|) * (g + wd w). LARC: min(lr, trust ...)."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    run = tiny(optimizer=optimizer, weight_decay=0.01, base_lr=2.0)
    updating = loop.build_optimizer(run, [{"params": list(layers.parameters()), "fixed_lr": False}])
    for p in layers.parameters():
        p.grad = scale * torch.randn_like(p)
    w, g = layers[0].weight.detach().clone(), layers[0].weight.grad.clone()
    others = [p.detach().clone() for p in layers.parameters()]
    updating.step()
    ratio = w.norm() / (g.norm() + 0.01 * w.norm() + 1e-8)
    length = run.lr * 0.001 * ratio if optimizer == "lars" else min(run.lr, 0.02 * ratio)
    assert torch.allclose(layers[0].weight, w - length * (g + 0.01 * w), rtol=1e-5)
    for before, p in list(zip(others, layers.parameters(), strict=True))[1:]:
        assert torch.allclose(p, before - run.lr * p.grad)


def test_a_warm_up_rises_and_the_cosine_falls_after_it():
    run = tiny(epochs=10, warmup_epochs=2, base_lr=1.0, lr_rule="as-is")
    rates = [loop.scheduled_lr(run, step, 100, 10) for step in range(100)]
    assert rates[:20] == pytest.approx([(n + 1) / 20 for n in range(20)])
    assert rates[20:] == pytest.approx([(1 + math.cos(math.pi * n / 80)) / 2 for n in range(80)])
    assert loop.scheduled_lr(tiny(), 5, 100, 10) == tiny().lr * (1 + math.cos(math.pi * 5 / 100)) / 2


def test_rules_of_the_learning_rate():
    rates = [Run(base_lr=0.1, batch_size=64, lr_rule=rule).lr for rule in ("linear", "sqrt", "as-is")]
    assert rates == pytest.approx([0.025, 0.8, 0.1])


@pytest.mark.parametrize(("stem", "side"), [("small", 32), ("default", 8)])
def test_the_small_stem_keeps_every_pixel(stem, side):
    f = build_backbone(Run(backbone="resnet18", image_size=32, stem=stem))
    sides = []
    f.layer1.register_forward_pre_hook(lambda module, x: sides.append(x[0].shape[-1]))
    assert f(torch.zeros(2, 3, 32, 32)).shape == (2, 512)
    assert sides == [side]
    assert sum(p.numel() for p in f.parameters()) == 11_176_512 - (0 if stem == "default" else 64 * 3 * (49 - 9))


def test_a_backbone_with_the_small_stem_is_stored_and_read(tmp_path):
    from simclic.weights import load

    run = tiny(stem="small")
    f = build_backbone(run)
    again = load.deserialise_backbone(load.serialise_backbone(f), build_backbone(run))
    assert all(a.equal(b) for a, b in zip(f.state_dict().values(), again.state_dict().values(), strict=True))
