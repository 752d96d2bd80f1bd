"""What a job costs: what it amounts to, and how long that takes on a device. Neither torch nor pandas."""

from simclic.schedule.cost.amounts import decoded, disk, kept, running
from simclic.schedule.cost.prices import Prices, guess_seconds
from simclic.schedule.cost.rates import Price, Target, calibrated, here, named, written

__all__ = [
    "Price", "Prices", "Target", "calibrated", "decoded", "disk", "guess_seconds", "here", "kept", "named", "running", "written",
]  # fmt: skip
