"""MoCo v2 (Chen et al., 2020): a query is to match the key of another view among a queue of keys. Equations are MoCo's."""

import torch
import torch.nn.functional as F
from lightly.models.modules.heads import MoCoProjectionHead
from torch import Tensor, nn

from simclic.experiment import Run, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.parts import (
    KeyQueue,
    compute_exactly,
    copy_as_target,
    group_batch_norms,
    queue_size,
    rank_positives,
    scheduled_momentum,
    update_target,
)  # fmt: skip
from simclic.methods.views import ViewRecipe


@method(
    "MoCo v2", passes=2, target_passes=2, views=2, momentum_encoder=True,
    reads=("hidden_dim", "temperature", "target_momentum", "target_schedule", "queue_size", "norm_groups"),
    # solo-learn's recipe for CIFAR: SGD, base_lr .3, 1e-4, temperature .2, both directions, momentum .99 to .999 (here to 1).
    # norm_groups: the authors' CIFAR notebook, in place of shuffled batch norm.
    defaults={
        "base_lr": 0.3, "weight_decay": 1e-4, "projector_dim": 128, "temperature": 0.2, "target_momentum": 0.99, "norm_groups": 8,
    },
)  # fmt: skip
class MoCoV2(Method):
    """MoCo v2: query encoder f_q = backbone + two-layer head, its momentum encoder f_k, a queue of keys."""

    watched = ("top-1 of keys",)
    recipes = (ViewRecipe(), ViewRecipe())

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        group_batch_norms(self.backbone, run)
        self.head = MoCoProjectionHead(self.width, run.hidden_dim, self.d)
        self.target = copy_as_target(nn.Sequential(self.backbone, self.head))
        self.queue = KeyQueue(queue_size(run, self.trained), self.d)

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch, the mean of both directions (Eq. 1). x: two views, (B, 3, S, S) each."""
        features1, features2 = (self.backbone(view) for view in x)  # (B, width)
        q1, q2 = (F.normalize(self.head(features).float(), dim=1) for features in (features1, features2))  # (B, d)
        with torch.no_grad():
            k1, k2 = (self.compute_keys(view, generator) for view in x)  # (B, d)
        logits12, logits21 = self.compare_keys(q1, k2), self.compare_keys(q2, k1)  # (B, 1 + K)
        positive = torch.zeros(len(q1), dtype=torch.int64, device=q1.device)
        loss = (F.cross_entropy(logits12, positive) + F.cross_entropy(logits21, positive)) / 2
        self.queue.push_keys(torch.cat([k1, k2]))
        return Step(loss, q1, features1, {"top-1 of keys": rank_positives(logits12)})

    def compute_keys(self, view: Tensor, generator: Generator) -> Tensor:
        """Return the unit keys of a view, (B, d), computed in another order: the parts of a batch are not the queries'."""
        order = torch.randperm(len(view), generator=generator, device=view.device)
        return F.normalize(self.target(view[order]).float(), dim=1)[order.argsort()]

    def compare_keys(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the similarities of queries with their own keys, first, and with the queue's: (B, 1 + K)."""
        with compute_exactly(q.device):
            own, others = (q * k).sum(dim=1, keepdim=True), q @ self.queue.keys.clone().T
        return torch.cat([own, others], dim=1) / self.run.temperature

    def after_step(self, share: float) -> None:
        """Move the key encoder towards the query encoder (Eq. 2)."""
        momentum = scheduled_momentum(self.run, share)
        update_target(self.target, nn.Sequential(self.backbone, self.head), momentum)
