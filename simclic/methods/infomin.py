"""InfoMin (Tian et al., NeurIPS 2020): MoCo with a head of two layers, RandAugment, and a jigsaw's patches as second query."""

from typing import Any

import torch
import torch.nn.functional as F
from lightly.models.modules.heads import MoCoProjectionHead
from torch import Tensor, nn

from simclic.data.images import Images
from simclic.experiment import Run, method
from simclic.methods.base import Generator, Step
from simclic.methods.moco_v1 import MoCoV1, cross_entropy_of_first
from simclic.methods.parts import rank_positives
from simclic.methods.pirl import JigsawHead, cut_patches
from simclic.methods.views import ViewRecipe

# The authors' augmentation "RA": jitter .8, of hue .2, and two operations of RandAugment at magnitude 10.
VIEW = ViewRecipe(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, randaugment=2)


@method(
    "InfoMin", passes=2, target_passes=1, views=3, momentum_encoder=True,
    reads=("hidden_dim", "temperature", "target_momentum", "target_schedule", "queue_size", "norm_groups"),
    # The official recipe: .03 at 256, 1e-4, temperature .15, both losses by .5; momentum and parts of a batch as MoCo on CIFAR.
    defaults={
        "base_lr": 0.03, "weight_decay": 1e-4, "projector_dim": 128, "temperature": 0.15, "target_momentum": 0.99,
        "target_schedule": "constant", "norm_groups": 8,
    },
)  # fmt: skip
class InfoMin(MoCoV1):
    """InfoMin: MoCo's two encoders and queue; the image and its jigsaw are both to match the key of another view."""

    recipes = (VIEW, VIEW, VIEW)  # the query, the key, and what is cut up

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.jigsaw = JigsawHead(self.width, self.d)

    def build_head(self) -> nn.Module:
        """Return two layers from the backbone's vectors to queries: (B, width) to (B, d)."""
        head: nn.Module = MoCoProjectionHead(self.width, self.run.hidden_dim, self.d)
        return head

    def views(self, pixels: Tensor, images: Images, generator: torch.Generator) -> Any:
        """Return two views, (B, 3, S, S), and the patches of a third, (B, 9, 3, P, P)."""
        query, key, whole = super().views(pixels, images, generator)
        return query, key, cut_patches(whole, generator)

    def forward(self, x: tuple[Tensor, Tensor, Tensor], index: Tensor | None = None, generator: Generator = None) -> Step:  # type: ignore[override]
        """Loss of a batch, half of each query's. x: two views, (B, 3, S, S) each, and patches, (B, 9, 3, P, P)."""
        features = self.backbone(x[0])  # (B, width)
        q, k = self.compute_queries(features), self.compute_keys(x[1], generator)  # (B, d)
        q_jigsaw = F.normalize(self.jigsaw(self.backbone(x[2].flatten(0, 1))).float(), dim=1)  # (B, d)
        logits, of_jigsaw = self.compare_keys(q, k), self.compare_keys(q_jigsaw, k)  # (B, 1 + K)
        loss = (cross_entropy_of_first(logits) + cross_entropy_of_first(of_jigsaw)) / 2
        self.queue.push_keys(k)
        return Step(loss, q, features, {"top-1 of keys": rank_positives(logits)})
