"""The methods that cluster all images between epochs, DeepCluster v2, SeLa v2 and PCL: their losses, and their clusters."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import small_backbone
from sklearn.cluster import KMeans
from torch.testing import assert_close

from simclic import Run
from simclic.data.images import Images
from simclic.methods import clusters
from simclic.methods.clusters import assign_nearest, balance_prototypes, compute_clusters
from simclic.methods.deepcluster_v2 import DeepClusterV2
from simclic.methods.pcl_v1 import PCLV1, estimate_concentration
from simclic.methods.pcl_v2 import PCLV2
from simclic.methods.sela_v2 import SeLaV2
from simclic.train import loop

SMALL = {"dataset": "digits", "backbone": "test_resnet", "image_size": 16, "batch_size": 16, "precision": "float32"}
NAMES = {DeepClusterV2: "deepcluster-v2", SeLaV2: "sela-v2", PCLV1: "pcl-v1", PCLV2: "pcl-v2"}
BALANCED = (DeepClusterV2, SeLaV2)


def build(cls, trained=100, **changes):
    """A method of which 100 of 120 images are trained on, the second half of which is visited."""
    torch.manual_seed(0)
    heads = {"norm_groups": 1} if issubclass(cls, PCLV1) else {}
    run = Run(method=NAMES[cls], **{**SMALL, "epochs": 4, **heads, **changes})
    m = cls(run, 120, small_backbone(), trained=trained)
    visited = torch.arange(119, 69, -1)
    for bank in (m.bank1, m.bank2) if cls in BALANCED else (m.bank,):
        bank.update_rows(bank.find_rows(visited), unit(torch.randn(50, m.d)))
    return m


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def same_loss_and_gradients(m, loss, reference, expected):
    assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    learned = [(a, b) for a, b in zip(m.parameters(), reference.parameters(), strict=True) if a.requires_grad]
    for a, b in learned:
        assert_close(a.grad.double(), torch.zeros_like(b) if b.grad is None else b.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cls", BALANCED)
def test_the_loss_is_the_mean_cross_entropy_of_views_and_clusterings(cls):
    """Of images that have a cluster: half of this batch was never visited."""
    m, x = build(cls, prototypes=7), tuple(torch.randn(2, 16, 3, 2, 2))
    m.before_epoch(0)
    reference, index = copy.deepcopy(m).double(), torch.arange(62, 78)
    z = [unit(reference.head(reference.backbone(view.double()))) for view in x]
    loss, rows = 0.0, [119 - int(i) for i in index if i >= 70]
    for view in z:
        for n in range(3):
            p = (view @ reference.prototypes[n].T / 0.1).softmax(dim=1)[8:]
            loss = loss - sum(p[i, m.assignments[n, row]].log() for i, row in enumerate(rows)) / 8 / 6
    same_loss_and_gradients(m, m(x, index).loss, reference, loss)
    for bank, each in zip((m.bank1, m.bank2), z, strict=True):
        assert_close(bank.vectors[bank.row[index]].double(), each.detach(), rtol=1e-4, atol=1e-5)
    assert m.prototypes.requires_grad == (cls is SeLaV2)


@pytest.mark.parametrize("cls", BALANCED)
def test_clusters_follow_from_the_state_and_the_epoch_alone(cls):
    m = build(cls, prototypes=5)
    again = copy.deepcopy(m)
    for each in (m, again):
        torch.rand(1)
        each.before_epoch(1)
    for name, value in m.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert (m.assignments[:, 50:] == -1).all()
    assert not torch.equal(m.assignments[0], m.assignments[2])  # clusterings differ in their start
    for n in range(3):
        z = (m.bank1, m.bank2)[n % 2].vectors[:50]
        if cls is DeepClusterV2:
            assert torch.equal(m.assignments[n, :50], (z @ m.prototypes[n].T).argmax(dim=1))
        else:
            s = z.double() @ m.prototypes[n].detach().double().T / 0.05
            even = (s + balance_prototypes(z.double(), m.prototypes[n].detach().double(), 0.05, 500)).argmax(dim=1)
            assert (m.assignments[n, :50] == even).sum() >= 47  # which ten iterations nearly reach


def test_sela_s_prototypes_are_learned_and_have_length_1():
    m = build(SeLaV2, prototypes=5)
    with torch.no_grad():
        m.prototypes += 1
    m.after_step(0.5)
    assert_close(m.prototypes.norm(dim=2), torch.ones(3, 5))


def test_sinkhorn_s_marginals_are_even():
    """SeLa, Eq. 6 and 7: each image has one share of 1, each prototype n / K, and no better assignment has these sums."""
    torch.manual_seed(0)
    z, prototypes = unit(torch.randn(60, 8) + 1).double(), unit(torch.randn(6, 8) + 1).double()
    s = z @ prototypes.T / 0.05
    assert (s.softmax(dim=1).sum(dim=0) - 10).abs().max() > 5
    p = (s + balance_prototypes(z, prototypes, 0.05, 500)).softmax(dim=1)
    assert_close(p.sum(dim=0), torch.full((6,), 10.0, dtype=torch.float64), atol=1e-4, rtol=0)
    few = [(s + balance_prototypes(z, prototypes, 0.05, n)).softmax(dim=1).sum(dim=0).sub(10).abs().max() for n in (1, 10)]
    assert few[1] < few[0] < 10
    q = s.T.exp()  # Sinkhorn and Knopp's, as SwAV prints it
    for _ in range(500):
        q = q / q.sum(dim=1, keepdim=True) / 6
        q = q / q.sum(dim=0, keepdim=True) / 60
    assert_close(p / 60, q.T, atol=1e-6, rtol=0)


@pytest.mark.parametrize("part", [1, 64, 10**6])
def test_k_means_is_scikit_learn_s_however_it_is_parted(part, monkeypatch):
    monkeypatch.setattr(clusters, "SCORES", part)
    torch.manual_seed(0)
    z = unit(torch.randn(80, 6)).double()
    centroids, nearest = compute_clusters(z, z[:7].clone(), 50, spherical=False)
    theirs = KMeans(7, init=z[:7].numpy(), n_init=1, max_iter=50, tol=0, algorithm="lloyd").fit(z.numpy())
    assert np.array_equal(nearest.numpy(), theirs.labels_)
    assert np.allclose(centroids.numpy(), theirs.cluster_centers_)


def test_spherical_k_means_finds_directions_and_an_empty_cluster_stays():
    axes = torch.eye(6)[:3]
    z = unit(axes.repeat(8, 1) + 0.05 * torch.randn(24, 6))
    start = torch.cat([z[:3], -torch.ones(1, 6) / 6**0.5])
    centroids, nearest = compute_clusters(z, start, 5, spherical=True)
    assert nearest.tolist() == [0, 1, 2] * 8
    for k in range(3):
        assert_close(centroids[k], unit(z[k::3].sum(dim=0)))
    assert_close(centroids[3], start[3])
    assert_close(assign_nearest(z, centroids), nearest)


@pytest.mark.parametrize("cls", [PCLV1, PCLV2])
def test_pcl_s_loss_is_infonce_and_the_prototypes_written_out(cls):
    """Eq. 11 with the softmax over all prototypes of a clustering, each divided by its own concentration."""
    m, x = build(cls, prototypes=12, queue_size=24), tuple(torch.randn(2, 16, 3, 2, 2))
    m.before_epoch(2)
    assert m.counts == [12, 6, 3]
    with torch.no_grad():
        m.queue.push_keys(unit(torch.randn(24, m.d)))
    reference, index = copy.deepcopy(m).double(), torch.arange(62, 78)
    q = unit(reference.head(reference.backbone(x[0].double())))
    k = unit(reference.target(x[1].double())).detach()
    loss = 0.0
    for i in range(16):
        others = (q[i] @ reference.queue.keys.T / 0.2).exp().sum()
        own = (q[i] @ k[i] / 0.2).exp()
        loss = loss - (own / (own + others)).log() / 16
    start = 0
    for n, count in enumerate(m.counts):
        e = (q @ reference.prototypes[start : start + count].T / reference.concentration[start : start + count]).exp()
        visited = [i for i in range(16) if index[i] >= 70]
        for i in visited:
            loss = loss - (e[i, m.clusters[n, 119 - index[i]]] / e[i].sum()).log() / len(visited) / 3
        start += count
    same_loss_and_gradients(m, m(x, index, torch.Generator().manual_seed(0)).loss, reference, loss)
    assert_close(m.bank.vectors[m.bank.row[index]].double(), k, rtol=1e-4, atol=1e-5)


def test_pcl_s_concentration_is_eq_12_and_clipped():
    """phi = sum |v - c| / (n log(n + 10)), the official code's with the root of the distance, by the mean of all."""
    torch.manual_seed(0)
    z, means = unit(torch.randn(200, 8)), torch.randn(20, 8)
    nearest = torch.randint(18, (200,))
    nearest[0] = 18  # alone in its cluster; the last is empty
    nearest[1:][nearest[1:] == 18] = 0
    phi = []
    for k in range(20):
        mine = [i for i in range(200) if nearest[i] == k]
        root = [math.sqrt((z[i] - means[k]).norm()) for i in mine]
        phi.append(sum(root) / len(mine) / math.log(len(mine) + 10) if len(mine) > 1 else None)
    most = max(p for p in phi if p is not None)
    phi = np.array([most if p is None else p for p in phi])
    phi = phi.clip(np.percentile(phi, 10), np.percentile(phi, 90))
    assert np.allclose(estimate_concentration(z, means, nearest).numpy(), phi / phi.mean(), atol=1e-5)


@pytest.mark.parametrize(("clusters_from", "first"), [(0.0, 1), (0.5, 2), (0.75, 3), (1.0, None)])
def test_pcl_s_clusters_are_used_from_their_epoch_on(clusters_from, first):
    m = build(PCLV1, prototypes=12, clusters_from=clusters_from)
    used = []
    for epoch in range(4):
        m.before_epoch(epoch)
        used.append(bool((m.clusters >= 0).any()))
    assert used == [first is not None and epoch >= first for epoch in range(4)]
    z, rows = unit(torch.randn(4, m.d)), torch.arange(4)
    assert (m.contrast_prototypes(z, rows) > 0) == (first is not None)
    if first is not None:  # prototypes are directions, and their mean temperature is the Run's
        assert_close(m.prototypes.norm(dim=1), torch.ones(21))
        assert_close(m.concentration[:12].mean(), torch.tensor(0.2))


@pytest.mark.parametrize(
    ("cls", "trained", "count"),
    [
        (DeepClusterV2, 50_000, 3000), (SeLaV2, 1_020, 102), (DeepClusterV2, 100, 10),
        (PCLV1, 50_000, 1000), (PCLV1, 1_020, 102), (PCLV2, 1_281_167, 25_623),
    ],
)  # fmt: skip
def test_the_number_of_clusters_follows_from_the_images(cls, trained, count):
    m = cls(Run(method=NAMES[cls], **SMALL), 0, small_backbone(), trained=trained)
    assert (m.counts[0] if cls in (PCLV1, PCLV2) else m.prototypes.shape[1]) == count


def test_deepcluster_clusters_the_untrained_encoder_s_vectors_at_first(digits):
    """Before its first step it has seen every batch once, without a step: nothing but banks and norms has moved."""
    training = loop.Training(Run(method="deepcluster-v2", hidden_dim=16, **SMALL), 1797, torch.device("cpu"), 64)
    before = {name: p.clone() for name, p in training.model.named_parameters()}
    index, images = torch.arange(100, 164), Images(digits, 16, torch.device("cpu"))
    training.visit_images(images, iter(index.split(16)))
    training.model.before_epoch(0)
    assert (training.model.bank1.row >= 0).nonzero()[:, 0].equal(index)
    assert (training.model.assignments >= 0).all()
    changed = {name for name, p in training.model.named_parameters() if not p.equal(before[name])}
    assert changed == {"prototypes"}
