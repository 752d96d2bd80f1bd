"""PCL v2 (Li et al., ICLR 2021, Section 4): PCL v1 with the head of two layers and the stronger augmentation of MoCo v2."""

from lightly.models.modules.heads import MoCoProjectionHead
from torch import nn

from simclic.experiment import method
from simclic.methods.pcl_v1 import PCLV1
from simclic.methods.views import ViewRecipe


@method(
    "PCL v2", passes=1, target_passes=1, views=2, momentum_encoder=True, memory_bank=True,
    reads=(
        "hidden_dim", "temperature", "target_momentum", "target_schedule", "queue_size", "norm_groups", "prototypes",
        "clusters_from",
    ),
    # As PCL v1; the official recipe differs in head, augmentation and the cosine, which every method has here.
    defaults={
        "base_lr": 0.03, "weight_decay": 1e-4, "projector_dim": 128, "temperature": 0.2, "target_momentum": 0.99,
        "target_schedule": "constant", "norm_groups": 8,
    },
)  # fmt: skip
class PCLV2(PCLV1):
    """PCL v2."""

    recipes = (ViewRecipe(), ViewRecipe())

    def build_head(self) -> nn.Module:
        """Return two layers from the backbone's vectors to queries: (B, width) to (B, d)."""
        head: nn.Module = MoCoProjectionHead(self.width, self.run.hidden_dim, self.d)
        return head
