"""The methods with a memory bank beside their papers: losses and gradients written out, and whose vector each row is."""

import pytest
import torch
from conftest import small_backbone, tiny

from simclic import InputError, Run
from simclic.data import facts
from simclic.methods.backbones import build_backbone
from simclic.methods.cmc import CMC
from simclic.methods.insdis import InsDis
from simclic.methods.parts import MemoryBank
from simclic.methods.pirl import PIRL, cut_patches


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def model(cls, method, **changes):
    """A method in float64 behind a small backbone; 20 of 100 images are trained on, and 16 have been visited."""
    torch.manual_seed(0)
    run = tiny(method=method, batch_size=16, predictor_dim=512, **changes)
    m = cls(run, 100, small_backbone(), 20).double()
    m.bank.float().find_rows(torch.arange(40, 56))
    return m


def view(*shape, seed=1):
    return torch.randn(*shape, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same_loss_and_gradients(m, loss, expected):
    learned = [p for p in m.parameters() if p.requires_grad]
    assert loss.item() == pytest.approx(expected.item(), abs=2e-5)  # methods compare in float32
    gradients = zip(torch.autograd.grad(loss, learned), torch.autograd.grad(expected, learned), strict=True)
    assert all(torch.allclose(got, want, atol=2e-5) for got, want in gradients)


def non_parametric_softmax(v, bank, rows, t):
    """InsDis, Eq. 2 and 3, in words of exponentials."""
    e = (v @ bank.T / t).exp()
    return -(e[torch.arange(len(v)), rows] / e.sum(dim=1)).log().mean()


def test_insdis_loss_gradients_and_bank_are_the_paper_s():
    m, x = model(InsDis, "insdis", bank_momentum=0.3), view(16)
    bank, index = m.bank.vectors.double(), torch.arange(54, 38, -1)  # 14 images of before, one new, in another order
    rows = torch.tensor([*range(14, -1, -1), 16])
    v = unit(m.head(m.backbone(x)))
    out = m((x,), index)
    same_loss_and_gradients(m, out.loss, non_parametric_softmax(v, bank, rows, 0.1))
    assert torch.allclose(m.bank.vectors[rows], unit(0.3 * bank[rows] + 0.7 * v).float(), atol=1e-6)
    assert m.bank.vectors[15].double().equal(bank[15])
    assert m.bank.vectors[17:].double().equal(bank[17:])


def test_each_trained_image_has_a_row_of_its_own_and_no_other_image_has_one():
    bank = MemoryBank(50, 12, 4, 0.5)
    assert torch.allclose(bank.vectors.norm(dim=1), torch.ones(12))
    first, second = torch.tensor([40, 3, 17, 9, 22, 1]), torch.tensor([3, 8, 40, 49, 0, 1, 30, 31, 32])
    assert bank.find_rows(first).tolist() == [0, 1, 2, 3, 4, 5]
    assert bank.find_rows(second).tolist() == [1, 6, 0, 7, 8, 5, 9, 10, 11]
    assert bank.find_rows(first).tolist() == [0, 1, 2, 3, 4, 5]
    assert (bank.row >= 0).sum() == 12
    assert set(bank.state_dict()) == {"vectors", "row"}


def test_pirl_s_loss_gradients_and_bank_are_the_paper_s():
    """Eq. 5 with lambda = .5: the memory is to match the vector of the image, and that of the nine patches."""
    m, x, patches = model(PIRL, "pirl"), view(16), view(16, 9, seed=2)
    bank, rows = m.bank.vectors.double(), torch.arange(16)
    v = unit(m.head(m.backbone(x)))
    joined = torch.cat([m.jigsaw.patch(m.backbone(patches[:, n])) for n in range(9)], dim=1)
    terms = [non_parametric_softmax(u, bank, rows, 0.07) for u in (v, unit(m.jigsaw.join(joined)))]
    same_loss_and_gradients(m, m((x, patches), torch.arange(40, 56)).loss, 0.5 * terms[0] + 0.5 * terms[1])
    assert torch.allclose(m.bank.vectors[:16], unit(0.5 * bank[:16] + 0.5 * v).float(), atol=1e-6)


@pytest.mark.parametrize(("size", "side"), [(224, 56), (32, 8), (16, 4), (3, 1)])
def test_patches_are_one_of_each_cell_in_an_order_of_each_image_s_own(size, side):
    at = torch.arange(size * size).reshape(1, 1, size, size).expand(6, 3, -1, -1).float()
    patches = cut_patches(at, torch.Generator().manual_seed(0))
    assert patches.shape == (6, 9, 3, side, side)
    row, column = patches[:, :, 0].long() // size, patches[:, :, 0].long() % size
    assert (row - row[..., :1, :1]).equal(torch.arange(side)[:, None].expand_as(row))
    assert (column - column[..., :1, :1]).equal(torch.arange(side).expand_as(row))
    cell = size // 3
    cells = 3 * (row // cell) + column // cell
    assert (cells == cells[..., :1, :1]).all()  # no patch crosses a border
    assert cells[..., 0, 0].sort(dim=1).values.equal(torch.arange(9).expand(6, -1))
    assert len(cells[..., 0, 0].unique(dim=0)) > 1
    assert patches.equal(cut_patches(at, torch.Generator().manual_seed(0)))


def test_insdis_s_noise_contrast_is_the_paper_s():
    """Eq. 6 to 8, with Z of the first batch: h = P / (P + m / n), for the image itself and for m others."""
    m, x = model(InsDis, "insdis", noise_images=6), view(16)
    index, rows, log_z = torch.arange(40, 56), torch.arange(16), None
    for step in (1, 2):
        bank = m.bank.vectors.double()
        noise = torch.randint(20, (16, 6), generator=torch.Generator().manual_seed(step))
        e = (unit(m.head(m.backbone(x))) @ bank.T / 0.1).exp()
        chosen = torch.cat([e[rows][:, rows].diagonal()[:, None], e.gather(1, noise)], dim=1)
        log_z = (20 * chosen.detach().mean()).log() if step == 1 else log_z
        p = chosen / log_z.exp()
        h = p / (p + 6 / 20)
        expected = -(h[:, 0].log() + (1 - h[:, 1:]).log().sum(dim=1)).mean()
        same_loss_and_gradients(m, m((x,), index, torch.Generator().manual_seed(step)).loss, expected)
    assert m.log_z.item() == pytest.approx(log_z.item(), abs=1e-5)


def test_cmc_s_halves_are_each_to_match_the_other_s_memory():
    """Eq. 3 and 6: luminance against the bank of colours, and colour against that of luminances, added."""
    torch.manual_seed(0)
    m = CMC(tiny(method="cmc", batch_size=16, predictor_dim=512), 100, small_backbone(), 20).double()
    m.bank1.float(), m.bank2.float()
    x, index, rows = view(16), torch.arange(40, 56), torch.arange(16)
    light, colour = m.bank1.vectors.double(), m.bank2.vectors.double()
    features = m.backbone(x).chunk(2, dim=1)
    z = [unit(m.head1(features[0])), unit(m.head2(features[1]))]
    expected = non_parametric_softmax(z[0], colour, rows, 0.07) + non_parametric_softmax(z[1], light, rows, 0.07)
    same_loss_and_gradients(m, m((x,), index).loss, expected)
    assert torch.allclose(m.bank1.vectors[:16], unit(0.5 * light[:16] + 0.5 * z[0]).float(), atol=1e-6)
    assert torch.allclose(m.bank2.vectors[:16], unit(0.5 * colour[:16] + 0.5 * z[1]).float(), atol=1e-6)


@pytest.mark.parametrize("stem", ["default", "small"])
def test_one_half_of_cmc_s_backbone_sees_luminance_and_the_other_colour(stem):
    run = Run(method="cmc", dataset="cifar10", backbone="resnet18", image_size=32, stem=stem)
    f, known = build_backbone(run).eval(), facts("cifar10")
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (known.mean, known.std))
    pixels = torch.rand(2, 3, 32, 32)
    grey = pixels.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    tint = torch.tensor([0.114, 0.0, -0.299]).reshape(1, 3, 1, 1) * 0.3  # of luminance 0
    base, other_grey, tinted = (f((x - mean) / std) for x in (grey, 1 - grey, grey + tint))
    assert base.shape == (2, f.num_features) == (2, 512)
    light, colour = slice(0, 256), slice(256, 512)
    assert torch.allclose(base[:, colour], other_grey[:, colour], atol=1e-5)
    assert not torch.allclose(base[:, light], other_grey[:, light], atol=1e-2)
    assert torch.allclose(base[:, light], tinted[:, light], atol=1e-4)
    assert not torch.allclose(base[:, colour], tinted[:, colour], atol=1e-2)
    whole = build_backbone(Run(dataset="cifar10", backbone="resnet18", image_size=32, stem=stem))
    weights = [sum(p.numel() for p in g.parameters()) for g in (f, whole)]
    assert 0.45 < weights[0] / weights[1] < 0.55  # two of a quarter


def test_what_cannot_be_halved_is_refused():
    with pytest.raises(InputError, match=r"^method='cmc' with backbone='vit_tiny_patch16_224': only ResNets can be halved"):
        build_backbone(Run(method="cmc", backbone="vit_tiny_patch16_224"))
    with pytest.raises(InputError, match=r"^init='resnet50.a1_in1k' with method='cmc': its encoders are half as wide; remove"):
        Run(method="cmc", init="resnet50.a1_in1k")
