"""MoCo v1 (He et al., CVPR 2020): a query is to match the key of another view among a queue of keys.

Equations are that paper's.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclic import ranks
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

VIEW = ViewRecipe(area=(0.08, 1.0), p_blur=0.0)  # as the authors' notebook for CIFAR


@method(
    "MoCo v1", passes=1, target_passes=1, views=2, momentum_encoder=True,
    reads=("temperature", "target_momentum", "target_schedule", "queue_size", "norm_groups"),
    # The authors' notebook for CIFAR: base_lr .03 (.06 at 512), 5e-4, temperature .1, momentum .99, eight parts of a batch.
    defaults={
        "base_lr": 0.03, "weight_decay": 5e-4, "projector_dim": 128, "temperature": 0.1, "target_momentum": 0.99,
        "target_schedule": "constant", "norm_groups": 8,
    },
)  # fmt: skip
class MoCoV1(Method):
    """MoCo v1: query encoder f_q = backbone + linear head, its momentum encoder f_k, a queue of keys."""

    watched = ("top-1 of keys",)
    recipes: ClassVar[Sequence[ViewRecipe]] = (VIEW, VIEW)

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        group_batch_norms(self.backbone, run)
        self.head = self.build_head()
        self.target = copy_as_target(nn.Sequential(self.backbone, self.head))
        self.queue = KeyQueue(queue_size(run, self.trained), self.d)

    def build_head(self) -> nn.Module:
        """Return the layers from the backbone's vectors to queries: (B, width) to (B, d)."""
        return nn.Linear(self.width, self.d)

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 1). x: two views, (B, 3, S, S) each; the first is queried, the second gives the keys."""
        features = self.backbone(x[0])  # (B, width)
        q, k = self.compute_queries(features), self.compute_keys(x[1], generator)  # (B, d)
        logits = self.compare_keys(q, k)  # (B, 1 + K)
        self.queue.push_keys(k)
        return Step(cross_entropy_of_first(logits), q, features, {"top-1 of keys": rank_positives(logits)})

    def compute_queries(self, features: Tensor) -> Tensor:
        """Return the unit queries of the backbone's vectors: (B, width) to (B, d)."""
        return F.normalize(self.head(features).float(), dim=1)

    @torch.no_grad()
    def compute_keys(self, view: Tensor, generator: Generator) -> Tensor:
        """Return the unit keys of a view, (B, d), computed in another order: the parts of a batch are not the queries'."""
        whole = ranks.gather_rows(view)
        order = torch.randperm(len(whole), generator=generator, device=view.device)
        shuffled = whole[order][ranks.own_rows(len(whole))]
        return F.normalize(self.target(shuffled).float(), dim=1)[order.argsort()]

    def compare_keys(self, q: Tensor, k: Tensor) -> Tensor:
        """Return similarities over the temperature: (B, 1 + K), of queries with their own keys, first, and with the queue's."""
        with compute_exactly(q.device):
            own, others = (q * k).sum(dim=1, keepdim=True), self.queue.compare_keys(q)
        return torch.cat([own, others], dim=1) / self.run.temperature

    def after_step(self, share: float) -> None:
        """Move the key encoder towards the query encoder (Eq. 2)."""
        update_target(self.target, nn.Sequential(self.backbone, self.head), scheduled_momentum(self.run, share))


def cross_entropy_of_first(logits: Tensor) -> Tensor:
    """Return the cross-entropy of the softmax over each row of logits, (B, C), with its first column as the right one: ()."""
    return -logits.log_softmax(dim=1)[:, 0].mean()
