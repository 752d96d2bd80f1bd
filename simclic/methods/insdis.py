"""InsDis (Wu et al., CVPR 2018): each image is a class of its own, whose weight is its vector in a memory bank.

Equations are that paper's. The softmax is over all images, as in the authors' script for CIFAR; their 4,096 negatives (NCE) on
ImageNet estimate it.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from simclic.experiment import Run, knob, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.parts import MemoryBank, compute_exactly, rank_positives
from simclic.methods.views import ViewRecipe


@method(
    "InsDis", passes=1, views=1, memory_bank=True, reads=("temperature",),
    knobs={"bank_momentum": knob(0.5, "share of itself that a vector of the memory bank keeps at a visit", low=0.0, high=1.0)},
    # The authors' script for CIFAR: .03 at a batch of 128, 5e-4, vectors of 128, temperature .1 (.07 on ImageNet), momentum .5.
    defaults={"base_lr": 0.06, "weight_decay": 5e-4, "projector_dim": 128, "temperature": 0.1},
)  # fmt: skip
class InsDis(Method):
    """InsDis: encoder f = backbone + linear head, a memory bank of its vectors."""

    watched = ("top-1 of images",)
    recipes = (ViewRecipe(p_jitter=1.0, hue=0.4, p_blur=0.0),)  # the authors' script for CIFAR

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.head = nn.Linear(self.width, self.d)
        self.bank = MemoryBank(images, self.trained, self.d, run.bank_momentum)

    def forward(self, x: tuple[Tensor, ...], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 2 and 3). x: one view, (B, 3, S, S). index: (B,) which image each one is."""
        features = self.backbone(x[0])  # (B, width)
        z = F.normalize(self.head(features).float(), dim=1)  # v, (B, d)
        rows = self.bank.find_rows(index)
        with compute_exactly(z.device):
            logits = self.bank.compare_rows(z, self.run.temperature)  # (B, N)
            loss = F.cross_entropy(logits, rows)
        self.bank.update_rows(rows, z)
        return Step(loss, z, features, {"top-1 of images": rank_positives(logits, rows)})
