"""SimSiam without augmentation: a control that asks what SimCLIC's perturbation adds to a predictor and a stop-gradient."""

from typing import Any

from torch import Tensor

from simclic.experiment import method
from simclic.methods.base import Generator, Step
from simclic.methods.simsiam import SimSiam


@method(
    "SimSiam without augmentation", passes=1,
    reads=("predictor", "predictor_dim", "similarity", "stop_gradient", "fixed_predictor_lr"),
)  # fmt: skip
class SimSiamWithoutAugmentation(SimSiam):
    """SimSiam with the image itself for both views, which one pass computes. Only in the learning rate of h does it differ from
    SimCLIC without perturbation, and not at all with fixed_predictor_lr=False."""

    watched = ()
    recipes = ()

    def forward(self, x: Any, index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 4 with x1 = x2). x: (B, 3, S, S)."""
        features = self.backbone(x)  # (B, width)
        z = self.projector(features)  # (B, d)
        target = z.detach() if self.run.stop_gradient else z
        p = self.h(z)  # (B, d)
        loss1, loss2 = (self.D(p.float(), target.float()).mean() / 2 for _ in range(2))  # SimCLIC's terms, hence its very bits
        return Step(loss1 + loss2, z, features)
