"""PIRL (Misra and van der Maaten, CVPR 2020): an image and the patches of its jigsaw are both to match its memory.

Equations are that paper's. The softmax is over all images; the paper's noise contrast (Eq. 4) estimates it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclic.data.images import Images
from simclic.experiment import Run, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.parts import MemoryBank, compute_exactly, rank_positives
from simclic.methods.views import ViewRecipe

SIDE = 3  # patches along a side of the jigsaw


@method(
    "PIRL", passes=2, views=2, memory_bank=True, reads=("temperature", "bank_momentum"),
    # Section 3.2: vectors of 128, temperature .07, momentum .5, both losses by .5. base_lr and decay are InsDis's on CIFAR.
    defaults={"base_lr": 0.06, "weight_decay": 5e-4, "projector_dim": 128, "temperature": 0.07},
)  # fmt: skip
class PIRL(Method):
    """PIRL: backbone, head f of the image and head g of the nine patches, and a memory bank of f's vectors."""

    watched = ("top-1 of images",)
    recipes = (ViewRecipe(p_blur=0.0), ViewRecipe(area=(0.6, 1.0), p_blur=0.0))  # of the image, and of what is cut up

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.head = nn.Linear(self.width, self.d)
        self.jigsaw = JigsawHead(self.width, self.d)
        self.bank = MemoryBank(images, self.trained, self.d, run.bank_momentum)

    def views(self, pixels: Tensor, images: Images, generator: torch.Generator) -> Any:
        """Return a view, (B, 3, S, S), and the patches of another, (B, 9, 3, P, P)."""
        image, whole = super().views(pixels, images, generator)
        return image, cut_patches(whole, generator)

    def forward(self, x: tuple[Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 5, lambda = .5). x: images, (B, 3, S, S), and patches, (B, 9, 3, P, P). index: (B,)."""
        features = self.backbone(x[0])  # (B, width)
        z = F.normalize(self.head(features).float(), dim=1)  # (B, d)
        z_jigsaw = F.normalize(self.jigsaw(self.backbone(x[1].flatten(0, 1))).float(), dim=1)  # (B, d)
        rows = self.bank.find_rows(index)
        with compute_exactly(z.device):
            logits, of_jigsaw = (self.bank.compare_rows(v, self.run.temperature) for v in (z, z_jigsaw))  # (B, N)
            loss = (F.cross_entropy(logits, rows) + F.cross_entropy(of_jigsaw, rows)) / 2
        self.bank.update_rows(rows, z)
        return Step(loss, z, features, {"top-1 of images": rank_positives(logits, rows)})


class JigsawHead(nn.Module):
    """A vector of nine patches (Section 3.2): one linear layer for each, joined in the order drawn, and another."""

    def __init__(self, width: int, d: int):
        super().__init__()
        self.patch, self.join = nn.Linear(width, d), nn.Linear(SIDE**2 * d, d)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, d). features: (9 B, width), those of an image behind each other."""
        joined: Tensor = self.join(self.patch(features).unflatten(0, (-1, SIDE**2)).flatten(1))
        return joined


def cut_patches(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return nine patches of each image in random order: (B, 3, S, S) to (B, 9, 3, P, P), P about S / 4.

    Each lies anywhere in its cell of a 3 x 3 grid, of which it has three quarters of the side, as the paper's 64 of 85 pixels.
    """
    count, cell = len(x), x.shape[2] // SIDE
    side = max(1, round(cell * 0.75))
    order = torch.rand(count, SIDE**2, generator=generator).argsort(dim=1)
    shift = torch.randint(cell - side + 1, (2, count, SIDE**2), generator=generator)
    start = cell * torch.stack([order // SIDE, order % SIDE]) + shift  # (2, B, 9) first row and column
    rows, columns = (start[..., None] + torch.arange(side)).to(x.device)  # (B, 9, P)
    image = torch.arange(count, device=x.device)[:, None, None, None]
    return x.permute(0, 2, 3, 1)[image, rows[..., None], columns[..., None, :]].permute(0, 1, 4, 2, 3)
