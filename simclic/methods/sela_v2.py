"""SeLa v2 (Caron et al., NeurIPS 2020, Appendix D, after Asano et al., ICLR 2020): DeepCluster v2 with balanced clusters.

Its code was never released. This follows its authors' description: the prototypes are learned, and before each epoch all images
are spread evenly over them. What that leaves open is chosen here, as SwAV has it: epsilon .05, prototypes of length 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclic.experiment import Run, method
from simclic.methods.clusters import balance_prototypes, split_scores
from simclic.methods.deepcluster_v2 import DeepClusterV2

SINKHORN_ITERATIONS = 10


@method(
    "SeLa v2", passes=2, views=2, memory_bank=True,
    reads=("hidden_dim", "temperature", "prototypes", "sinkhorn_epsilon"),
    note="its code was never released; this one is built from its authors' description",
    # No recipe was published; DeepCluster v2's, beside which its authors trained it.
    defaults={
        "optimizer": "lars", "base_lr": 0.6, "weight_decay": 1e-6, "projector_dim": 128, "temperature": 0.1,
    },
)  # fmt: skip
class SeLaV2(DeepClusterV2):
    """SeLa v2: as DeepCluster v2, but prototypes are learned with the encoder and images assigned by Sinkhorn's iterations."""

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.prototypes.requires_grad_(True)

    def assign_clusters(self, n: int, z: Tensor, generator: torch.Generator) -> Tensor:
        """Return the prototype of each unit vector, (V, d) to (V,): the likeliest if all have as many (SeLa, Eq. 6)."""
        prototypes, epsilon = self.prototypes[n], self.run.sinkhorn_epsilon
        b = balance_prototypes(z, prototypes, epsilon, SINKHORN_ITERATIONS)
        return torch.cat([(scores / epsilon + b).argmax(dim=1) for scores in split_scores(z, prototypes)])

    @torch.no_grad()
    def after_step(self, share: float) -> None:
        """Give the prototypes length 1 again."""
        self.prototypes.copy_(F.normalize(self.prototypes, dim=2))
