"""DINO (Caron et al., ICCV 2021): a student predicts which prototypes a teacher, its moving average, gives another view.

Equations are that paper's. Two global crops; its local crops (Section 3.1) are left out.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from lightly.loss import DINOLoss
from torch import Tensor, nn

from simclic.experiment import Run, knob, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.parts import (
    compute_exactly,
    copy_as_target,
    count_prototypes,
    prototypes_in_use,
    scheduled_momentum,
    update_target,
)  # fmt: skip
from simclic.methods.views import ViewRecipe

# BYOL's views (Section 3.2); the area is the official code's without local crops.
FIRST = ViewRecipe(area=(0.14, 1.0), saturation=0.2, p_blur=1.0)
SECOND = replace(FIRST, p_blur=0.1, p_solarise=0.2)
WARM = 0.04  # temperature of the teacher at first (the official code's)


@method(
    "DINO", passes=2, target_passes=2, views=2, momentum_encoder=True,
    reads=("hidden_dim", "temperature", "target_momentum", "target_schedule", "prototypes", "frozen_prototypes"),
    knobs={
        "head_norm": knob(True, "batch norm in DINO's head, which its code has for ResNets and not for ViTs"),
        "teacher_temperature": knob(0.04, "of DINO's teacher; 0.04 before it, if it warms up", low=1e-3, high=1.0),
        "teacher_warmup": knob(0.0, "share of the training in which it rises from 0.04 to that", low=0.0, high=1.0),
    },
    # solo-learn's recipe for CIFAR: LARC, base_lr .3, 1e-6, bottleneck of 256. Temperatures: the paper's. Momentum: lightly's
    # on CIFAR; solo-learn's .9995 averages over 2,000 of its 195,000 steps, which is more than a short training has.
    defaults={
        "optimizer": "larc", "base_lr": 0.3, "weight_decay": 1e-6, "projector_dim": 256, "temperature": 0.1,
        "target_momentum": 0.99,
    },
)  # fmt: skip
class DINO(Method):
    """DINO: the student's backbone and head, theta_s, are trained; the teacher's, theta_t, follow them."""

    watched = ("prototypes in use",)
    recipes = (FIRST, SECOND)
    epoch: Tensor
    share: Tensor

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        # solo-learn's 4,096 on CIFAR's 50,000 images, and nearly the paper's 65,536 on ImageNet's 1.28 million.
        count = count_prototypes(run, self.trained, max(4096, self.trained // 20))
        self.head = DINOHead(self.width, run.hidden_dim, self.d, count, run.head_norm)
        self.target = copy_as_target(nn.Sequential(self.backbone, self.head))
        self.cross_entropy = DINOLoss(count, student_temp=run.temperature)  # it holds the centre c, and moves it (Eq. 4)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("share", torch.zeros((), dtype=torch.float64))

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 3 for two views: the mean of both directions). x: two views, (B, 3, S, S) each."""
        features1, features2 = (self.backbone(view) for view in x)  # (B, width)
        z1, z2 = self.head.embed(features1), self.head.embed(features2)  # (B, d)
        w = self.head.prototypes
        prototypes = torch.where(self.epoch < self.run.frozen_prototypes, w.detach(), w)
        scores = [self.head.compare(z, prototypes) for z in (z1, z2)]  # of the student, (B, K)
        with torch.no_grad():
            targets = [self.target(view) for view in x]  # of the teacher, (B, K)
            sharpness = self.scheduled_temperature()
            p = F.softmax((targets[0] - self.cross_entropy.center[0]) / sharpness, dim=1)  # P_t of the first view (Eq. 1)
        with compute_exactly(z1.device):
            loss = self.cross_entropy(targets, scores, teacher_temp=sharpness)
        return Step(loss, z1, features1, {"prototypes in use": prototypes_in_use(p)})

    def scheduled_temperature(self) -> float:
        """Return the teacher's temperature at this step: a linear rise from WARM, then constant."""
        risen = min(1.0, float(self.share) / self.run.teacher_warmup) if self.run.teacher_warmup else 1.0
        return WARM + risen * (self.run.teacher_temperature - WARM)

    def before_epoch(self, epoch: int) -> None:
        """Remember the epoch, in the state: on it depends whether the prototypes are frozen."""
        self.epoch.fill_(epoch)

    def after_step(self, share: float) -> None:
        """Move the teacher towards the student (Section 3.1, theta_t)."""
        self.share.fill_(share)
        update_target(self.target, nn.Sequential(self.backbone, self.head), scheduled_momentum(self.run, share))


class DINOHead(nn.Module):
    """The head of Appendix C: three layers with GELU to a unit vector, and its product with K unit prototypes.

    Prototypes of length 1 are the paper's last layer with weight norm, whose lengths its code fixes.
    """

    def __init__(self, width: int, hidden: int, d: int, count: int, norm: bool):
        super().__init__()
        blocks = [
            (nn.Linear(a, b), nn.BatchNorm1d(b) if norm else nn.Identity(), nn.GELU())
            for a, b in ((width, hidden), (hidden, hidden))
        ]
        self.layers = nn.Sequential(*blocks[0], *blocks[1], nn.Linear(hidden, d))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.randn(count, d))

    def embed(self, features: Tensor) -> Tensor:
        """Return unit vectors z: (B, width) to (B, d)."""
        return F.normalize(self.layers(features).float(), dim=1)

    def compare(self, z: Tensor, prototypes: Tensor) -> Tensor:
        """Return scores: (B, d) to (B, K)."""
        with compute_exactly(z.device):
            return z @ F.normalize(prototypes, dim=1).T

    def forward(self, features: Tensor) -> Tensor:
        """Return scores: (B, width) to (B, K)."""
        return self.compare(self.embed(features), self.prototypes)
