"""SimCLR (Chen et al., ICML 2020): the two views of an image are to match, among all other views of a batch.

Equations are that paper's.
"""

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor, nn

from simclic.experiment import Run, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.parts import compute_exactly
from simclic.methods.views import ViewRecipe

# Appendix A with half the strength of colour jitter, as the official code has it on CIFAR.
VIEW = ViewRecipe(area=(0.08, 1.0))


@method(
    "SimCLR v1", passes=2, views=2, reads=("temperature",),
    # The official code's README on CIFAR: LARS, base_lr 1.0, 1e-4, temperature .5. 128: Section 2.1.
    defaults={
        "optimizer": "lars", "base_lr": 1.0, "weight_decay": 1e-4, "projector_dim": 128, "temperature": 0.5,
    },
)  # fmt: skip
class SimCLR(Method):
    """SimCLR: encoder f and a head g, as wide within as f's vectors, with batch norm on each layer as in the official code."""

    watched = ("top-1 of views",)
    recipes = (VIEW, VIEW)
    layers = 2  # of g

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.g = SimCLRProjectionHead(self.width, self.width, self.d, num_layers=self.layers)
        self.compare_views = NTXentLoss(run.temperature)

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 1, its mean over all 2B views). x: two views, (B, 3, S, S) each."""
        features1, features2 = (self.backbone(view) for view in x)  # h, (B, width)
        z1, z2 = (F.normalize(self.g(features).float(), dim=1) for features in (features1, features2))  # (B, d)
        with compute_exactly(z1.device):
            loss = self.compare_views(z1, z2)
            nearest = (z1.detach() @ z2.detach().T).argmax(dim=1)
        matched = (nearest == torch.arange(len(z1), device=z1.device)).float().mean()
        return Step(loss, z1, features1, {"top-1 of views": matched})
