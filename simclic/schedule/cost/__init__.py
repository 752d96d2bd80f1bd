"""What a job costs: the amount of its work, and how long that takes on a device. No torch, no pandas."""

from simclic.schedule.cost.prices import Prices, guess_seconds
from simclic.schedule.cost.rates import Price, Target, gpu_kind, read_rates, this_machine, write_rates
from simclic.schedule.cost.work_amounts import decoded_bytes, feature_bytes, job_bytes, temporary_bytes

__all__ = [
    "Price", "Prices", "Target", "decoded_bytes", "feature_bytes", "gpu_kind", "guess_seconds", "job_bytes",
    "read_rates", "temporary_bytes", "this_machine", "write_rates",
]  # fmt: skip
