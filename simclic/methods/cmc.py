"""CMC (Tian et al., ECCV 2020): luminance and colour of an image, each through an encoder of its own, are to match each other.

Equations are that paper's. The two encoders are half as wide as the Run's backbone (methods/backbones.py); both representations,
joined, are evaluated. The softmax is over all images, the authors' other choice beside their noise contrast (NCE).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from simclic.experiment import Run, method
from simclic.methods.base import Generator, Method, Step
from simclic.methods.parts import MemoryBank, compute_exactly, rank_positives
from simclic.methods.views import ViewRecipe


@method(
    "CMC", passes=1, views=1, memory_bank=True, halves=True, reads=("temperature", "bank_momentum"),
    note="one of its encoders sees colour alone; of images in grey it makes one large vector, of no use to kNN and fine-tuning",
    # The official recipe: .03 at a batch of 256, 1e-4, vectors of 128, temperature .07, momentum .5, both losses added.
    defaults={"base_lr": 0.03, "weight_decay": 1e-4, "projector_dim": 128, "temperature": 0.07},
)  # fmt: skip
class CMC(Method):
    """CMC: a backbone of two halves, a linear head and a memory bank for each."""

    watched = ("top-1 of images",)
    recipes = (ViewRecipe(p_jitter=0.0, p_grey=0.0, p_blur=0.0),)  # crop and flip

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.head1, self.head2 = (nn.Linear(self.width // 2, self.d) for _ in range(2))
        self.bank1, self.bank2 = (MemoryBank(images, self.trained, self.d, run.bank_momentum) for _ in range(2))

    def forward(self, x: tuple[Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 3 and 6): each half's vector is to match the other's in memory. x: one view, (B, 3, S, S)."""
        features = self.backbone(x[0])  # (B, width): luminance, then colour
        light, colour = features.chunk(2, dim=1)
        z1, z2 = F.normalize(self.head1(light).float(), dim=1), F.normalize(self.head2(colour).float(), dim=1)  # (B, d)
        rows, _ = self.bank1.find_rows(index), self.bank2.find_rows(index)  # which are equal
        with compute_exactly(z1.device):
            logits1, logits2 = (bank.compare_rows(z, self.run.temperature) for bank, z in ((self.bank2, z1), (self.bank1, z2)))
            loss = F.cross_entropy(logits1, rows) + F.cross_entropy(logits2, rows)  # logits: (B, N)
        self.bank1.update_rows(rows, z1)
        self.bank2.update_rows(rows, z2)
        return Step(loss, z1, features, {"top-1 of images": rank_positives(logits1, rows)})
