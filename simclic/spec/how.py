"""How a machine computes: no part of an experiment, and recorded with every encoder."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class How:
    """compile: let torch.compile fuse the backbone, if it can here. deterministic: only algorithms that give the same bits every
    time on a GPU, at a cost that benchmarks/speed/pretrain.py tells; a CPU gives them anyway. minutes: between checkpoints."""

    compile: bool = False
    deterministic: bool = False
    minutes: float = 10.0


USUAL = How()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
