"""MoCo v3 (Chen et al., ICCV 2021): no queue; a predicted query is to match its key among the keys of its batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclic.experiment import Run, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.byol import FIRST, SECOND
from simclic.methods.parts import compute_exactly, copy_as_target, rank_positives, scheduled_momentum, update_target


@method(
    "MoCo v3", passes=2, target_passes=2, views=2, momentum_encoder=True,
    reads=("hidden_dim", "temperature", "target_momentum", "target_schedule"),
    # solo-learn's recipe for CIFAR: LARC, base_lr .3, 1e-6, heads 4096 and 256, temperature .2, momentum .99 to 1.
    defaults={
        "optimizer": "larc", "base_lr": 0.3, "weight_decay": 1e-6, "projector_dim": 256, "hidden_dim": 4096, "temperature": 0.2,
        "target_momentum": 0.99,
    },
)  # fmt: skip
class MoCoV3(Method):
    """MoCo v3 with a ResNet: f_q = backbone + projector + predictor; f_k, the momentum encoder, has no predictor. Algorithm 1."""

    watched = ("top-1 of keys",)
    recipes = (FIRST, SECOND)

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.projector = build_head(self.width, run.hidden_dim, self.d, nn.BatchNorm1d(self.d, affine=False))
        self.predictor = build_head(self.d, run.hidden_dim, self.d)  # the official code has no last norm here for ResNets
        self.target = copy_as_target(nn.Sequential(self.backbone, self.projector))

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch, the sum of both directions (Algorithm 1). x: two views, (B, 3, S, S) each."""
        features1, features2 = (self.backbone(view) for view in x)  # (B, width)
        z1, z2 = self.projector(features1), self.projector(features2)  # (B, d)
        q1, q2 = (F.normalize(self.predictor(z).float(), dim=1) for z in (z1, z2))  # (B, d)
        with torch.no_grad():
            k1, k2 = (F.normalize(self.target(view).float(), dim=1) for view in x)  # (B, d)
        own = torch.arange(len(q1), device=q1.device)
        with compute_exactly(q1.device):
            logits12, logits21 = q1 @ k2.T / self.run.temperature, q2 @ k1.T / self.run.temperature  # (B, B)
        loss = 2 * self.run.temperature * (F.cross_entropy(logits12, own) + F.cross_entropy(logits21, own))
        return Step(loss, z1, features1, {"top-1 of keys": rank_positives(logits12, own)})

    def after_step(self, share: float) -> None:
        """Move the momentum encoder towards the online one."""
        update_target(self.target, nn.Sequential(self.backbone, self.projector), scheduled_momentum(self.run, share))


def build_head(width: int, hidden: int, d: int, *last: nn.Module) -> nn.Sequential:
    """Return two layers without bias, batch norm on the first, and what follows the second: (B, width) to (B, d)."""
    layers = nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, d, bias=False)
    return nn.Sequential(*layers, *last)
