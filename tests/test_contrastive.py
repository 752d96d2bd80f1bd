"""The methods that contrast the views of a batch: SimCLR v1 and v2."""

import pytest
import torch
import torch.nn.functional as F
from conftest import small_backbone
from torch.testing import assert_close

from simclic import Run
from simclic.methods.base import build_method
from simclic.methods.simclr_v1 import SimCLR
from simclic.methods.simclr_v2 import SimCLRv2

CLASSES = {"simclr-v1": SimCLR, "simclr-v2": SimCLRv2}
KEPT = {"dataset": "digits", "backbone": "test_resnet", "image_size": 16, "epochs": 2}


def views():
    return tuple(torch.randn(2, 16, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def nt_xent(z1, z2, temperature):
    """Eq. 1 of SimCLR, pair by pair. z1, z2: (B, d)."""
    z = [z / z.norm() for pair in zip(z1, z2, strict=True) for z in pair]  # 2k and 2k + 1 are of one image, as in Algorithm 1
    s = [[torch.exp(a @ b / temperature) for b in z] for a in z]
    loss = [-torch.log(s[i][i ^ 1] / sum(s[i][k] for k in range(len(z)) if k != i)) for i in range(len(z))]
    return sum(loss) / len(z)


@pytest.mark.parametrize("name", CLASSES)
def test_loss_and_gradients_are_the_paper_s(name):
    torch.manual_seed(0)
    m, (x1, x2) = CLASSES[name](Run(method=name, **KEPT), 0, small_backbone()).double(), views()
    out, learned = m((x1, x2)), list(m.parameters())
    expected = nt_xent(m.g(m.backbone(x1)), m.g(m.backbone(x2)), m.run.temperature)
    assert_close(out.loss.double(), expected, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(*(torch.autograd.grad(loss, learned) for loss in (out.loss, expected)), strict=True):
        assert_close(got, wanted, rtol=1e-3, atol=1e-5)
    assert_close(out.z.norm(dim=1), torch.ones(16))


def test_the_heads_have_two_and_three_layers_and_the_recipes_are_the_official_code_s():
    """Batch norm on every layer. Learning rates at a batch of 512: 1.0 times 2, and 0.075 times its root."""
    for name, layers, lr in (("simclr-v1", 2, 2.0), ("simclr-v2", 3, 0.075 * 512**0.5)):
        run = Run(method=name, **KEPT, batch_size=512)
        g = build_method(run, 600).g
        kinds = [type(layer).__name__ for layer in g.layers]
        assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * (layers - 1) + ["Linear", "BatchNorm1d"]
        assert (run.lr, run.optimizer, run.passes) == (pytest.approx(lr), "lars", 2)


@pytest.mark.parametrize("name", [*CLASSES, "moco-v1", "moco-v2", "moco-v3", "swav", "dino"])
def test_similarities_are_in_float32_where_the_encoder_is_in_bf16(name, monkeypatch):
    logits = []
    for module, loss in ((F, "cross_entropy"), (F, "log_softmax"), (torch.Tensor, "log_softmax")):
        original = getattr(module, loss)
        monkeypatch.setattr(module, loss, lambda x, *a, _of=original, **k: logits.append(x) or _of(x, *a, **k))
    m = build_method(Run(method=name, **KEPT), 64, 640)
    with torch.autocast("cpu", torch.bfloat16):
        assert m.backbone(torch.randn(16, 3, 16, 16)).dtype == torch.bfloat16
        out = m(tuple(torch.randn(2, 16, 3, 16, 16)), None, torch.Generator())
    assert out.loss.dtype == torch.float32
    assert out.loss.shape == ()
    assert logits
    for similarity in (x * m.run.temperature for x in logits):
        rounded = (similarity.bfloat16().float() / similarity - 1).abs() < 1e-5
        assert rounded.float().mean() < 0.1  # of numbers in float32, 1 of 200 is so near to one in bf16
