"""What a job costs: what it amounts to, and how long that takes on a device. Neither torch nor pandas."""

from simclic.schedule.cost.amounts import Amounts, decoded, disk, encoder, kept, result, rough, running
from simclic.schedule.cost.prices import Prices
from simclic.schedule.cost.rates import PRIORS, Price, Rates, Target, calibrated, here, named, written

__all__ = [
    "PRIORS", "Amounts", "Price", "Prices", "Rates", "Target", "calibrated", "decoded", "disk", "encoder", "here", "kept",
    "named", "result", "rough", "running", "written",
]  # fmt: skip
