"""PCL v1 (Li et al., ICLR 2021): MoCo, and each query is to match the prototype of its image's cluster as well.

Equations are that paper's. Clusters are of the keys that the steps gave, the last of each image; the official code computes keys
of all images once more before each epoch. A prototype is compared with all others of its clustering, not with a sample.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclic.data.images import seeded_generator
from simclic.experiment import Run, knob, method
from simclic.methods.base import Generator, Step
from simclic.methods.clusters import compute_clusters
from simclic.methods.moco_v1 import MoCoV1, cross_entropy_of_first
from simclic.methods.parts import MemoryBank, compute_exactly, count_prototypes, rank_positives

ITERATIONS = 20  # of k-means, as in the official code
SMOOTHING = 10  # alpha of Eq. 12


@method(
    "PCL", passes=1, target_passes=1, views=2, momentum_encoder=True, memory_bank=True,
    reads=("temperature", "target_momentum", "target_schedule", "queue_size", "norm_groups", "prototypes"),
    knobs={
        "clusters_from": knob(
            0.1, "share of the training after which PCL's clusters are used, from its second epoch on; 1: never",
            low=0.0, high=1.0,
        ),
    },
    # The official recipe: .03 at 256, 1e-4, temperature .2, clusters from epoch 20 of 200 on; the rest as MoCo on CIFAR.
    defaults={
        "base_lr": 0.03, "weight_decay": 1e-4, "projector_dim": 128, "temperature": 0.2, "target_momentum": 0.99,
        "target_schedule": "constant", "norm_groups": 8,
    },
)  # fmt: skip
class PCLV1(MoCoV1):
    """PCL v1: MoCo v1, a bank of keys, and three clusterings of K, K / 2 and K / 4 prototypes.

    prototypes: (M, d) unit vectors of all clusterings, one behind the other. concentration: (M,), phi of Eq. 12. clusters: (3, N)
    the cluster of each row of the bank, counted within its clustering; -1 if there is none yet.
    """

    prototypes: Tensor
    concentration: Tensor
    clusters: Tensor

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.bank = MemoryBank(images, self.trained, self.d, momentum=0.0)
        # The authors say 100 to 1,000 on CIFAR (PCL issue 4), and take a fiftieth of ImageNet's images and more.
        most = count_prototypes(run, self.trained, max(1000, self.trained // 50))
        self.counts = [max(2, most // part) for part in (1, 2, 4)]
        self.register_buffer("prototypes", torch.zeros(sum(self.counts), self.d))
        self.register_buffer("concentration", torch.ones(sum(self.counts)))
        self.register_buffer("clusters", torch.full((len(self.counts), self.trained), -1))

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch, ProtoNCE (Eq. 11): InfoNCE as MoCo's, and the mean of the clusterings'. x: (B, 3, S, S) twice."""
        features = self.backbone(x[0])  # (B, width)
        q, k = self.compute_queries(features), self.compute_keys(x[1], generator)  # (B, d)
        logits, rows = self.compare_keys(q, k), self.bank.find_rows(index)
        loss = cross_entropy_of_first(logits) + self.contrast_prototypes(q, rows)
        self.queue.push_keys(k)
        self.bank.update_rows(rows, k)
        return Step(loss, q, features, {"top-1 of keys": rank_positives(logits)})

    def contrast_prototypes(self, q: Tensor, rows: Tensor) -> Tensor:
        """Return the mean over clusterings of the cross-entropy of each query's own prototype: (). q: (B, d). rows: (B,)."""
        targets = self.clusters[:, rows]  # (3, B)
        with compute_exactly(q.device):
            logits = q @ self.prototypes.clone().T / self.concentration.clone()  # (B, M)
        losses = [
            F.cross_entropy(part, target, ignore_index=-1, reduction="sum") / (target >= 0).sum().clamp_min(1)
            for part, target in zip(logits.split(self.counts, dim=1), targets, strict=True)
        ]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def before_epoch(self, epoch: int) -> None:
        """Cluster the keys of the images visited so far, as soon as the training has come so far (Section 3.4)."""
        share = self.run.clusters_from
        if epoch < max(1, share * self.run.epochs) or share == 1:
            return
        generator = seeded_generator("cpu", self.run.seed, "clusters", epoch)
        z = self.bank.vectors[: self.bank.count_visited()]
        ends = torch.tensor(self.counts).cumsum(dim=0).tolist()
        for n, (count, end) in enumerate(zip(self.counts, ends, strict=True)):
            first = torch.randperm(len(z), generator=generator)[:count].to(z.device)
            means, clusters = compute_clusters(z, z[first], ITERATIONS, spherical=False)
            self.prototypes[end - count : end] = F.normalize(means, dim=1)
            self.concentration[end - count : end] = estimate_concentration(z, means, clusters) * self.run.temperature
            self.clusters[n, : len(z)] = clusters


def estimate_concentration(z: Tensor, means: Tensor, clusters: Tensor) -> Tensor:
    """Return phi of each cluster, (K,), divided by their mean (Eq. 12): small where the vectors lie near their own mean.

    z: (n, d). means: (K, d). clusters: (n,). As in the official code, which takes the root of each distance, a cluster of fewer
    than two vectors has the largest, and all are clipped to the values that a tenth are below and a tenth above.
    """
    distance = (z - means[clusters]).norm(dim=1).sqrt()
    sizes = clusters.bincount(minlength=len(means))
    spread = torch.zeros(len(means), device=z.device, dtype=z.dtype).index_add_(0, clusters, distance)
    phi = spread / sizes.clamp_min(1) / (sizes + SMOOTHING).log()
    phi = torch.where(sizes > 1, phi, phi[sizes > 1].max() if bool((sizes > 1).any()) else 1.0)
    phi = phi.clamp(phi.quantile(0.1), phi.quantile(0.9))
    return phi / phi.mean() if float(phi.mean()) > 0 else torch.ones_like(phi)
