"""BYOL (Grill et al., NeurIPS 2020): a network predicts what its moving average makes of another view.

Equations are that paper's.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from torch import Tensor, nn

from simclic.experiment import Run, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.parts import copy_as_target, scheduled_momentum, update_target
from simclic.methods.views import ViewRecipe

# Appendix B, Table 6: the first view is always blurred, the second rarely and sometimes solarised.
FIRST = ViewRecipe(area=(0.08, 1.0), saturation=0.2, p_blur=1.0)
SECOND = replace(FIRST, p_blur=0.1, p_solarise=0.2)


@method(
    "BYOL", passes=2, target_passes=2, views=2, momentum_encoder=True, reads=("hidden_dim", "target_momentum", "target_schedule"),
    # solo-learn's recipe for CIFAR: LARC, base_lr 1.0, 1e-5, heads 4096 and 256, momentum .99 to 1.
    defaults={
        "optimizer": "larc", "base_lr": 1.0, "weight_decay": 1e-5, "projector_dim": 256, "hidden_dim": 4096,
        "target_momentum": 0.99,
    },
)  # fmt: skip
class BYOL(Method):
    """BYOL: online f, g and q are trained; the target's f and g (xi) follow the online ones (theta)."""

    watched = ("cos(q1, z'2)",)
    recipes = (FIRST, SECOND)

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.projector = BYOLProjectionHead(self.width, run.hidden_dim, self.d)
        self.q = BYOLPredictionHead(self.d, run.hidden_dim, self.d)
        self.target = copy_as_target(nn.Sequential(self.backbone, self.projector))

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 2 and its mirror image, summed). x: two views, (B, 3, S, S) each."""
        features1, features2 = (self.backbone(view) for view in x)  # y, (B, width)
        z1, z2 = self.projector(features1), self.projector(features2)  # (B, d)
        q1, q2 = self.q(z1), self.q(z2)  # (B, d)
        with torch.no_grad():
            target1, target2 = (self.target(view) for view in x)  # z', (B, d)
        alike12, alike21 = (F.cosine_similarity(q.float(), z.float(), dim=1).mean() for q, z in ((q1, target2), (q2, target1)))
        loss = (2 - 2 * alike12) + (2 - 2 * alike21)
        return Step(loss, z1, features1, {"cos(q1, z'2)": alike12.detach()})

    def after_step(self, share: float) -> None:
        """Move the target towards the online network (Eq. 3)."""
        update_target(self.target, nn.Sequential(self.backbone, self.projector), scheduled_momentum(self.run, share))
