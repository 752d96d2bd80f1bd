"""SimCLR v2 (Chen et al., NeurIPS 2020): SimCLR with a head of three layers. As everywhere here, what is evaluated is f."""

from simclic.experiment import method
from simclic.methods.simclr_v1 import SimCLR


@method(
    "SimCLR v2", passes=2, views=2, reads=("temperature",),
    # The official code's README: LARS, 0.075 * sqrt(batch), which also fits small batches, 1e-4, temperature .1.
    defaults={
        "optimizer": "lars", "base_lr": 0.075, "lr_rule": "sqrt", "weight_decay": 1e-4, "projector_dim": 128, "temperature": 0.1,
    },
)  # fmt: skip
class SimCLRv2(SimCLR):
    """SimCLR v2: Section 2, "Self-supervised pretraining with SimCLRv2", without its wider networks and its memory."""

    layers = 3
