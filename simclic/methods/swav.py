"""SwAV (Caron et al., NeurIPS 2020): the prototypes that one view is assigned to are predicted from the other view.

Equations are that paper's. Two views of full size; its further, smaller crops (multi-crop, Section 3.2) are left out.
"""

import torch
import torch.nn.functional as F
from lightly.loss import SwaVLoss
from lightly.models.modules.heads import SwaVProjectionHead
from torch import Tensor, nn

from simclic.experiment import Run, knob, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.parts import KeyQueue, compute_exactly, count_prototypes, prototypes_in_use, queue_size
from simclic.methods.views import ViewRecipe

# Jitter of half the strength, as SimCLR's on small images; the area is the official code's.
VIEW = ViewRecipe(area=(0.14, 1.0))


@method(
    "SwAV", passes=2, views=2, reads=("hidden_dim", "temperature", "prototypes", "frozen_prototypes", "queue_size"),
    knobs={
        "sinkhorn_epsilon": knob(0.05, "smoothness of the assignment (SwAV, Eq. 3)", low=0.02, high=100.0),
        "queue_from": knob(
            0.05, "share of the training after which SwAV's queue is used, from its second epoch on; 1: never", low=0.0, high=1.0
        ),
    },
    # The official code's recipe for a batch of 256: LARS, base_lr .6, 1e-6, one frozen epoch. solo-learn's for CIFAR has the same
    # rate and uses the queue from epoch 50 of 1,000 on.
    defaults={
        "optimizer": "lars", "base_lr": 0.6, "weight_decay": 1e-6, "projector_dim": 128, "temperature": 0.1,
    },
)  # fmt: skip
class SwAV(Method):
    """SwAV: backbone + head give unit vectors z, compared with prototypes C, (K, d), unit too; a queue of z for each view."""

    watched = ("prototypes in use",)
    recipes = (VIEW, VIEW)
    epoch: Tensor

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.head = SwaVProjectionHead(self.width, run.hidden_dim, self.d)
        # No more than a batch can be spread over evenly (the authors, swav issue 118), and than the paper's 3,000.
        count = count_prototypes(run, self.trained, min(run.batch_size, 3000))
        self.prototypes = nn.Parameter(F.normalize(torch.randn(count, self.d), dim=1))
        self.queue1, self.queue2 = (KeyQueue(queue_size(run, self.trained), self.d) for _ in range(2))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.swap = SwaVLoss(run.temperature, sinkhorn_iterations=3, sinkhorn_epsilon=run.sinkhorn_epsilon)

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 1 and 2, the mean of both as in the official code). x: two views, (B, 3, S, S) each."""
        features = [self.backbone(view) for view in x]  # (B, width)
        z = [F.normalize(self.head(y).float(), dim=1) for y in features]  # (B, d)
        c = torch.where(self.epoch < self.run.frozen_prototypes, self.prototypes.detach(), self.prototypes)
        with compute_exactly(c.device):
            scores = [each @ c.T for each in z]  # (B, K)
            earlier = [queue.keys @ c.T for queue in (self.queue1, self.queue2)] if self.queue_is_used() else None  # (queue, K)
            loss = self.swap(scores, [], earlier).squeeze()  # Sinkhorn's assignments (Eq. 3 to 5), of a batch and a queue
        self.queue1.push_keys(z[0])
        self.queue2.push_keys(z[1])
        p = F.softmax(scores[0].detach() / self.run.temperature, dim=1)
        return Step(loss, z[0], features[0], {"prototypes in use": prototypes_in_use(p)})

    def queue_is_used(self) -> bool:
        """Return whether the queue takes part in the assignment. One epoch always fills it."""
        return bool(self.epoch >= max(1.0, self.run.queue_from * self.run.epochs)) and self.run.queue_from < 1

    def before_epoch(self, epoch: int) -> None:
        """Remember the epoch, in the state: on it depends whether the prototypes are frozen and the queue is used."""
        self.epoch.fill_(epoch)

    @torch.no_grad()
    def after_step(self, share: float) -> None:
        """Give the prototypes length 1 again (Section 3.1)."""
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))
