"""Options of the computation. They are no part of an experiment; they are recorded with every encoder."""

import os
from dataclasses import dataclass, fields
from typing import Any, Self

from simclic.errors import InputError
from simclic.experiment.names import is_unlabelled

DECODE = ("once", "as-needed")


@dataclass(frozen=True)
class ComputeOptions:
    """compile: use torch.compile for the backbone where it works. deterministic: use only algorithms that give the same bits
    every time on a GPU; benchmarks/speed/pretrain.py measures the cost, and a CPU needs none. minutes: between checkpoints.
    per_gpu: processes that share a GPU. members: of a fine-tuning grid, trained together; 0 for as many as fit in memory.
    decode: "once", into a file that all runs share, or "as-needed", from the image files in every epoch, to the same pixels.
    watch_on: a labelled data set on which a pre-training logs the error of kNN, in place of its own. Nothing learns from it.
    ranks: processes that compute one pre-training together, each on a GPU or core of its own."""

    compile: bool = False
    deterministic: bool = False
    minutes: float = 10.0
    per_gpu: int = 1
    members: int = 0
    decode: str = "once"
    watch_on: str = ""
    ranks: int = 1

    @classmethod
    def from_arguments(cls, arguments: Any) -> Self:
        """Return the options in the arguments of a command line."""
        return cls(**{f.name: getattr(arguments, f.name) for f in fields(cls)})

    def __post_init__(self) -> None:
        for name, low in (("minutes", 0.0), ("per_gpu", 1), ("members", 0), ("ranks", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float) if name == "minutes" else int) or not value >= low:
                raise InputError(f"{name}={value!r} is out of range: {low:g} or more")
        for name in ("compile", "deterministic"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}={getattr(self, name)!r} is not true or false")
        if self.decode not in DECODE:
            raise InputError(f"decode={self.decode!r} is not one of {', '.join(DECODE)}")
        if not isinstance(self.watch_on, str) or is_unlabelled(self.watch_on):
            raise InputError(f"watch_on={self.watch_on!r} is not a data set with labels")
        if self.ranks > 1 and self.compile:
            raise InputError(f"compile=True with ranks={self.ranks}: what several processes compute together is not compiled")
        if self.ranks > 1 and self.per_gpu > 1:
            raise InputError(
                f"per_gpu={self.per_gpu} with ranks={self.ranks}: each rank has a GPU of its own; set one of them to 1"
            )


DEFAULT_COMPUTE = ComputeOptions()


def count_cores() -> int:
    """Return the number of CPU cores that this process may use; in a Slurm job, at most those of the job."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(available, int(given)) if given.isdigit() and given != "0" else available
