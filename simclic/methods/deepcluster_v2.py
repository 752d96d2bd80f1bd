"""DeepCluster v2 (Caron et al., NeurIPS 2020, Appendix D): each view is to show to which cluster its image belongs.

Clusters are of the vectors that the steps of the epoch before gave; before the first epoch, of those of the untrained encoder.
Two views of full size; the smaller crops (multi-crop) are left out.
"""

import torch
import torch.nn.functional as F
from lightly.models.modules.heads import SwaVProjectionHead
from torch import Tensor, nn

from simclic.data.images import seeded_generator
from simclic.experiment import Run, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.clusters import compute_clusters
from simclic.methods.parts import MemoryBank, compute_exactly, count_prototypes, prototypes_in_use
from simclic.methods.views import ViewRecipe

CLUSTERINGS, ITERATIONS = 3, 10  # and steps of k-means for each: the official code's
VIEW = ViewRecipe(area=(0.14, 1.0))


@method(
    "DeepCluster v2", passes=2, views=2, memory_bank=True, reads=("hidden_dim", "temperature", "prototypes"),
    # The official code's recipe for a batch of 256, and solo-learn's for CIFAR: LARS, base_lr .6, temperature .1.
    defaults={
        "optimizer": "lars", "base_lr": 0.6, "weight_decay": 1e-6, "projector_dim": 128, "temperature": 0.1,
    },
)  # fmt: skip
class DeepClusterV2(Method):
    """DeepCluster v2: backbone + head give unit vectors z, compared with the centroids of three clusterings, (3, K, d).

    assignments: (3, N) the cluster of each row of the banks, one bank for each view; -1 for an image that was not visited yet.
    """

    watched = ("prototypes in use",)
    recipes = (VIEW, VIEW)
    visits_first = True
    assignments: Tensor

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.head = SwaVProjectionHead(self.width, run.hidden_dim, self.d)
        self.bank1, self.bank2 = (MemoryBank(images, self.trained, self.d, momentum=0.0) for _ in range(2))
        prototypes = torch.randn(CLUSTERINGS, count_prototypes(run, self.trained, 3000), self.d)
        self.prototypes = nn.Parameter(F.normalize(prototypes, dim=2), requires_grad=False)
        self.register_buffer("assignments", torch.full((CLUSTERINGS, self.trained), -1))

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch: cross-entropy of each view and clustering, the mean of all. x: two views, (B, 3, S, S) each."""
        features = [self.backbone(view) for view in x]  # (B, width)
        z = [F.normalize(self.head(y).float(), dim=1) for y in features]  # (B, d)
        with compute_exactly(z[0].device):
            scores = torch.stack([each @ self.prototypes.mT for each in z]) / self.run.temperature  # (2, 3, B, K)
        for bank, each in zip((self.bank1, self.bank2), z, strict=True):
            rows = bank.find_rows(index)  # which are equal
            bank.update_rows(rows, each)
        targets = self.assignments[:, rows].expand(2, -1, -1)  # (2, 3, B)
        loss = F.cross_entropy(scores.flatten(0, 2), targets.flatten(), ignore_index=-1, reduction="sum")
        loss = loss / (targets >= 0).sum().clamp_min(1)
        return Step(loss, z[0], features[0], {"prototypes in use": prototypes_in_use(scores[0, 0].detach().softmax(dim=1))})

    @torch.no_grad()
    def before_epoch(self, epoch: int) -> None:
        """Cluster the images visited so far, once for each clustering, by the vectors of one view and of the other in turn."""
        generator = seeded_generator("cpu", self.run.seed, "clusters", epoch)
        visited = self.bank1.count_visited()
        for n in range(CLUSTERINGS if visited else 0):
            z = (self.bank1, self.bank2)[n % 2].vectors[:visited]
            self.assignments[n, :visited] = self.assign_clusters(n, z, generator)

    def assign_clusters(self, n: int, z: Tensor, generator: torch.Generator) -> Tensor:
        """Return the cluster of each unit vector, (V, d) to (V,), by spherical k-means, whose centroids are the prototypes."""
        count = self.prototypes.shape[1]
        first = torch.randperm(len(z), generator=generator)[:count].to(z.device)
        self.prototypes[n, : len(first)] = z[first]
        self.prototypes[n], clusters = compute_clusters(z, self.prototypes[n].clone(), ITERATIONS, spherical=True)
        return clusters
