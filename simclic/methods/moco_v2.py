"""MoCo v2 (Chen et al., 2020): MoCo v1 with a head of two layers, stronger augmentation, and a cosine schedule."""

import torch
from lightly.models.modules.heads import MoCoProjectionHead
from torch import Tensor, nn

from simclic.experiment import method
from simclic.methods.base import Generator, Step
from simclic.methods.moco_v1 import MoCoV1, cross_entropy_of_first
from simclic.methods.parts import rank_positives
from simclic.methods.views import ViewRecipe


@method(
    "MoCo v2", passes=2, target_passes=2, views=2, momentum_encoder=True,
    reads=("hidden_dim", "temperature", "target_momentum", "target_schedule", "queue_size", "norm_groups"),
    # Temperature .2, 1e-4, both directions, momentum rising from .99: solo-learn's recipe for CIFAR. base_lr, and norm_groups in
    # place of shuffled batch norm: MoCo's authors' notebook for CIFAR. (solo-learn's base_lr is .3.)
    defaults={
        "base_lr": 0.03, "weight_decay": 1e-4, "projector_dim": 128, "temperature": 0.2, "target_momentum": 0.99,
        "norm_groups": 8,
    },
)  # fmt: skip
class MoCoV2(MoCoV1):
    """MoCo v2, with the loss of both directions, as usual on small data: each view is queried, and gives keys."""

    recipes = (ViewRecipe(), ViewRecipe())

    def build_head(self) -> nn.Module:
        """Return two layers from the backbone's vectors to queries: (B, width) to (B, d)."""
        head: nn.Module = MoCoProjectionHead(self.width, self.run.hidden_dim, self.d)
        return head

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch, the mean of both directions (MoCo, Eq. 1). x: two views, (B, 3, S, S) each."""
        features1, features2 = (self.backbone(view) for view in x)  # (B, width)
        q1, q2 = self.compute_queries(features1), self.compute_queries(features2)  # (B, d)
        k1, k2 = (self.compute_keys(view, generator) for view in x)  # (B, d)
        logits12, logits21 = self.compare_keys(q1, k2), self.compare_keys(q2, k1)  # (B, 1 + K)
        loss = (cross_entropy_of_first(logits12) + cross_entropy_of_first(logits21)) / 2
        self.queue.push_keys(torch.cat([k1, k2]))
        return Step(loss, q1, features1, {"top-1 of keys": rank_positives(logits12)})
