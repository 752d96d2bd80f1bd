"""InsDis (Wu et al., CVPR 2018): each image is a class of its own, whose weight is its vector in a memory bank.

Equations are that paper's. The softmax is over all images, as in the authors' script for CIFAR, or estimated by noise contrast
(NCE), as on ImageNet.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclic.experiment import Run, knob, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.parts import MemoryBank, compute_exactly, rank_positives
from simclic.methods.views import ViewRecipe


@method(
    "InsDis", passes=1, views=1, memory_bank=True, reads=("temperature",),
    knobs={
        "bank_momentum": knob(0.5, "share of itself that a vector of the memory bank keeps at a visit", low=0.0, high=1.0),
        "noise_images": knob(
            0, "images that InsDis contrasts each one with, NCE (4,096 on ImageNet); 0: all, by a softmax", low=0, high=10**6
        ),
    },
    # The authors' script for CIFAR: .03 at a batch of 128, 5e-4, vectors of 128, temperature .1 (.07 on ImageNet), momentum .5.
    defaults={"base_lr": 0.06, "weight_decay": 5e-4, "projector_dim": 128, "temperature": 0.1},
)  # fmt: skip
class InsDis(Method):
    """InsDis: encoder f = backbone + linear head, a memory bank of its vectors."""

    watched = ("top-1 of images",)
    log_z: Tensor
    recipes = (ViewRecipe(p_jitter=1.0, hue=0.4, p_blur=0.0),)  # the authors' script for CIFAR

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.head = nn.Linear(self.width, self.d)
        self.bank = MemoryBank(images, self.trained, self.d, run.bank_momentum)
        if run.noise_images:
            self.register_buffer("log_z", torch.tensor(torch.inf))  # of the constant Z of Eq. 8; infinite before the first step

    def forward(self, x: tuple[Tensor, ...], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 2 and 3). x: one view, (B, 3, S, S). index: (B,) which image each one is."""
        features = self.backbone(x[0])  # (B, width)
        z = F.normalize(self.head(features).float(), dim=1)  # v, (B, d)
        rows = self.bank.find_rows(index)
        with compute_exactly(z.device):
            logits = self.bank.compare_rows(z, self.run.temperature)  # (B, N)
            loss = F.cross_entropy(logits, rows) if self.run.noise_images == 0 else self.contrast_noise(logits, rows, generator)
        self.bank.update_rows(rows, z)
        return Step(loss, z, features, {"top-1 of images": rank_positives(logits, rows)})

    def contrast_noise(self, logits: Tensor, rows: Tensor, generator: Generator) -> Tensor:
        """Return the loss of noise contrast (Eq. 6 to 8), with m images drawn for each one: ().

        logits: (B, N) similarities over the temperature. rows: (B,) of the images themselves. Z is the first batch's estimate.
        """
        n, m = logits.shape[1], self.run.noise_images
        noise = torch.randint(n, (len(logits), m), generator=generator, device=logits.device)
        own, others = logits.gather(1, rows[:, None]), logits.gather(1, noise)
        estimate = torch.cat([own, others], dim=1).detach().logsumexp(dim=(0, 1)) - math.log(len(own) * (1 + m)) + math.log(n)
        self.log_z = torch.where(self.log_z.isinf(), estimate, self.log_z)
        shift = self.log_z + math.log(m / n)  # of log P - log(m / n), whose sigmoid is h (Eq. 6)
        return -(F.logsigmoid(own - shift).sum(dim=1) + F.logsigmoid(shift - others).sum(dim=1)).mean()
