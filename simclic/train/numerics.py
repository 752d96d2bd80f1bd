"""What pre-training and fine-tuning share: precision, compilation, checks for finite numbers, memory."""

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from simclic.errors import InputError
from simclic.experiment import count_cores

OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute",  # cuDNN, where no algorithm's workspace fits
)
WRONG_UP_TO = 16  # pixels along each side of images that shrink to one before the last of a ResNet's strided convolutions
CHECK_EVERY = 50  # steps between checks that the loss is finite, where a check waits for the device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return a context in which a model computes in bf16 if that is its precision. Weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute convolutions in full float32, where a GPU would round their inputs to TF32."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def check_gradients_supported(f: nn.Module, device: torch.device, precision: str, size: int) -> None:
    """Raise InputError where torch would compute wrong gradients: those of a strided convolution in bf16 on a CPU.

    Where its kernel lies outside the image, they are left unset (torch 2.15, oneDNN). size: pixels along each side of an image.
    """
    if device.type != "cpu" or precision != "bf16" or size > WRONG_UP_TO:
        return
    if any(isinstance(m, nn.Conv2d) and m.kernel_size[0] > m.stride[0] > 1 for m in f.modules()):
        problem = f"precision='bf16' on a CPU gives wrong gradients for this backbone at {size} pixels (up to {WRONG_UP_TO})"
        raise InputError(f"{problem}; use precision='float32', or a GPU")


def try_compile(f: nn.Module, x: Tensor, precision: str) -> str:
    """Compile a backbone if a copy of it can be compiled and run on x. Return "yes", or "no: " and the reason."""
    trial = copy.deepcopy(f).requires_grad_(True)
    try:
        trial.compile()
        with autocast(x.device, precision):
            y = trial(x)
        y.float().sum().backward()
    except Exception as e:  # compilers raise almost anything; training works without them
        if is_out_of_memory(e):
            raise
        why = (str(e).strip().splitlines() or [type(e).__name__])[0]
        print(f"warning: torch.compile does not work here ({why}); training without it", file=sys.stderr)
        return f"no: {why}"
    f.compile()
    return "yes"


def seed_device(device: torch.device, number: int) -> None:
    """Seed the generators of a backbone on this device. (torch.manual_seed seeds all devices and takes half a millisecond.)"""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(number)


def should_check_loss(device: torch.device, step: int) -> bool:
    """Return whether to check the loss at this step: always on a CPU; elsewhere a check waits for the device."""
    return device.type == "cpu" or step % CHECK_EVERY == 0


def is_finite(model: nn.Module) -> bool:
    """Return whether all weights and statistics are finite. Waits for the device."""
    return all(bool(v.isfinite().all()) for v in model.state_dict().values() if v.is_floating_point())


def first_nonfinite(loss: Tensor, step: int, first: Tensor) -> Tensor:
    """Return the first step whose loss was not finite, -1 for none, on the device. first: () int64, the same before this step."""
    return torch.where((first < 0) & ~loss.detach().isfinite(), step, first)


def is_out_of_memory(e: BaseException) -> bool:
    """Return whether an error means that memory ran out, which torch often says in the message alone."""
    return isinstance(e, (torch.OutOfMemoryError, MemoryError)) or any(words in str(e) for words in OUT_OF_MEMORY)


def available_memory(device: torch.device) -> int:
    """Return how many bytes this process may still allocate.

    On a GPU: the free memory. On the CPU: a share of it, 1 / (cores / threads of this process), within the limits of a Slurm job
    and of a container.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    node, core = (os.environ.get(f"SLURM_MEM_PER_{unit}", "") for unit in ("NODE", "CPU"))
    limits = [int(given) * count << 20 for given, count in ((node, 1), (core, count_cores())) if given.isdigit() and given != "0"]
    return min(_free_memory(), _container_memory(), *limits) // max(1, count_cores() // torch.get_num_threads())


def _container_memory() -> int:
    """Return the bytes that a container's limit (cgroup v2) leaves, or a very large number if there is no limit."""
    try:
        most, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return 1 << 62
    return max(0, int(most) - int(used)) if most.isdigit() else 1 << 62


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
