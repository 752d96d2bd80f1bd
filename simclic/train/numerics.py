"""What pre-training and fine-tuning share: precision, compilation, whether numbers are still finite, whether memory sufficed."""

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from simclic.errors import InputError
from simclic.experiment import cores

FULL = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute",  # cuDNN, where no algorithm's workspace fits
)
TINY = 16  # pixels along each side of images that shrink to one before the last of a ResNet's strided convolutions
LOOK = 50  # steps between looks at whether the loss is finite, where looking means waiting for the device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Where a model computes in bf16, if that is its precision; what is kept stays float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def unrounded() -> Iterator[None]:
    """float32 as it is, also where a GPU would round the factors of convolutions to TF32."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def sound(f: nn.Module, device: torch.device, precision: str, size: int) -> None:
    """Raise InputError where gradients would be wrong without a word: in bf16 on a CPU those of a strided convolution are left
    unset where its kernel never meets the image (torch 2.15, oneDNN). size: of the images, in pixels along each side."""
    if device.type == "cpu" and precision == "bf16" and size <= TINY and any(map(_strided, f.modules())):
        what = f"on a CPU in bf16 this backbone's gradients at {size} pixels would be wrong"
        raise InputError(f"{what}, as those of images up to {TINY} are; say precision='float32', or train on a GPU")


def _strided(m: nn.Module) -> bool:
    return isinstance(m, nn.Conv2d) and m.kernel_size[0] > m.stride[0] > 1


def fused(f: nn.Module, x: Tensor, precision: str) -> str:
    """Let torch.compile fuse a backbone if a copy of it survives a step with x; "yes", or why it stays as it is."""
    trial = copy.deepcopy(f).requires_grad_(True)
    try:
        trial.compile()
        with autocast(x.device, precision):
            y = trial(x)
        y.float().sum().backward()
    except Exception as e:  # whatever a compiler stumbles over: without it all is as before
        if full(e):
            raise
        why = (str(e).strip().splitlines() or [type(e).__name__])[0]
        print(f"warning: torch.compile does not work here ({why}); going on without it", file=sys.stderr)
        return f"no: {why}"
    f.compile()
    return "yes"


def seed(device: torch.device, number: int) -> None:
    """Seed what a backbone on this device draws from. torch.manual_seed does so for devices of all kinds, which takes half a
    millisecond."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(number)


def looks(device: torch.device, step: int) -> bool:
    """Is it time to look whether the loss is finite? On a CPU always, since looking waits for nothing there."""
    return device.type == "cpu" or step % LOOK == 0


def finite(model: nn.Module) -> bool:
    """Are all weights and statistics finite? Waits for the device."""
    return all(bool(v.isfinite().all()) for v in model.state_dict().values() if v.is_floating_point())


def nonfinite(loss: Tensor, step: int, first: Tensor) -> Tensor:
    """The first step whose loss was not finite, -1 if there was none; stays on the device. first: () int64 so far."""
    return torch.where((first < 0) & ~loss.detach().isfinite(), step, first)


def full(e: BaseException) -> bool:
    """Did memory run out, on a GPU or on the CPU, where torch says so in words alone?"""
    return isinstance(e, (torch.OutOfMemoryError, MemoryError)) or any(words in str(e) for words in FULL)


def memory(device: torch.device) -> int:
    """Bytes that this process may still take: of a GPU what is free; of the CPU's memory its share of what is available, as
    one of as many processes as its threads leave cores for, and no more than a job of Slurm's or a container was given."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    node, core = (os.environ.get(f"SLURM_MEM_PER_{unit}", "") for unit in ("NODE", "CPU"))
    limits = [int(given) * count << 20 for given, count in ((node, 1), (core, cores())) if given.isdigit() and given != "0"]
    return min(_available(), _container(), *limits) // max(1, cores() // torch.get_num_threads())


def _container() -> int:
    """What a container's limit leaves, where the kernel tells it (control groups, version 2)."""
    try:
        most, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return 1 << 62
    return max(0, int(most) - int(used)) if most.isdigit() else 1 << 62


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
