"""SimSiam (Chen & He, CVPR 2021): two views of an image, a predictor and a stop-gradient; nothing else.

No memory bank, no momentum encoder, no negative pairs. Equations are that paper's.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclic.experiment import Run, knob, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.heads import build_predictor, build_projector
from simclic.methods.simclic import SIMILARITIES
from simclic.methods.views import ViewRecipe


@method(
    "SimSiam", passes=2, views=2, reads=("predictor", "predictor_dim", "similarity", "stop_gradient"),
    knobs={"fixed_predictor_lr": knob(True, "h keeps the first learning rate (SimSiam, Table 1, variant c)")},
)  # fmt: skip
class SimSiam(Method):
    """SimSiam: f = backbone + projector sees each view by itself, h predicts the one from the other."""

    watched: ClassVar[tuple[str, ...]] = ("cos(z1, z2)",)
    recipes: ClassVar[tuple[ViewRecipe, ...]] = (ViewRecipe(), ViewRecipe())

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.projector = build_projector(self.width, self.d)
        self.h = build_predictor(run.predictor, self.d, run.predictor_dim)
        self.D = SIMILARITIES[run.similarity]  # Eq. 1, or the cross-entropy of Section 4.5

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 4). x: two views, (B, 3, S, S) each. index and generator are not used."""
        features1, features2 = (self.backbone(view) for view in x)  # (B, width)
        z1, z2 = self.projector(features1), self.projector(features2)  # (B, d)
        p1, p2 = self.h(z1), self.h(z2)  # (B, d)
        target1, target2 = (z1.detach(), z2.detach()) if self.run.stop_gradient else (z1, z2)  # Eq. 3
        loss = self.D(p1.float(), target2.float()).mean() / 2 + self.D(p2.float(), target1.float()).mean() / 2
        with torch.no_grad():
            alike = F.cosine_similarity(z1.float(), z2.float(), dim=1).mean()
        return Step(loss, z1, features1, {"cos(z1, z2)": alike})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the encoder, whose learning rate follows the cosine, and h, whose learning rate may stay."""
        encoder = [*self.backbone.parameters(), *self.projector.parameters()]
        h = [p for p in self.h.parameters() if p.requires_grad]
        groups = [{"params": encoder, "fixed_lr": False}, {"params": h, "fixed_lr": self.run.fixed_predictor_lr}]
        return [group for group in groups if group["params"]]
