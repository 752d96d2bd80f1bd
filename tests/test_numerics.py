"""What training loops share: memory that may be taken, how its end is told, and where gradients are right."""

import os

import pytest
import torch

from simclic.errors import InputError
from simclic.train import numerics

CPU = torch.device("cpu")


def test_memory_is_no_more_than_a_job_was_given(monkeypatch):
    monkeypatch.setattr(numerics, "count_cores", lambda: 4)
    monkeypatch.setattr(numerics, "_free_memory", lambda: 8 << 30)
    monkeypatch.setattr(numerics, "_container_memory", lambda: 1 << 62)
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"):
        monkeypatch.delenv(name, raising=False)
    assert numerics.available_memory(CPU) == 2 << 30  # one of four processes with a thread each
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1024")
    assert numerics.available_memory(CPU) == 1 << 30
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert numerics.available_memory(CPU) == 1 << 29
    monkeypatch.setattr(numerics, "_container_memory", lambda: 1 << 30)
    assert numerics.available_memory(CPU) == 1 << 28


def test_memory_here_is_no_more_than_the_machine_has():
    assert 0 < numerics.available_memory(CPU) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_running_out_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as e:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert numerics.is_out_of_memory(e.value)
    assert numerics.is_out_of_memory(MemoryError())
    assert numerics.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert numerics.is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert numerics.is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert numerics.is_out_of_memory(RuntimeError("GET was unable to find an engine to execute this computation"))
    assert not numerics.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_float32_is_not_rounded_inside_and_as_before_outside():
    before = torch.backends.cudnn.allow_tf32
    with numerics.exact_float32():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 is before is True


def test_a_compiler_s_trial_that_runs_out_of_memory_says_so(capsys):
    class Greedy(torch.nn.Module):
        def forward(self, x):
            raise MemoryError

    with pytest.raises(MemoryError):
        numerics.try_compile(Greedy(), torch.ones(2), "float32")
    assert capsys.readouterr().err == ""


def test_in_bf16_on_a_cpu_gradients_are_right_where_the_kernel_meets_the_image():
    """Of two pixels along each side, what is left of 17 to 32; `check_gradients_supported` lets those pass."""
    conv = torch.nn.Conv2d(8, 8, 3, 2, 1, bias=False).to(memory_format=torch.channels_last)
    x, found = torch.ones(4, 8, 2, 2).to(memory_format=torch.channels_last), []
    for precision in ("float32", "bf16"):
        conv.zero_grad()
        for _ in range(8):
            torch.full((8, 8, 3, 3), float("nan"), dtype=torch.bfloat16)  # what is unset may be anything
        with numerics.autocast(CPU, precision):
            y = conv(x)
        y.float().square().sum().backward()
        found.append(conv.weight.grad.clone())
    assert torch.allclose(*found, rtol=0.1, atol=1e-2)


def test_what_a_cpu_computes_wrong_in_bf16_is_refused():
    conv, linear = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Linear(8, 8)
    with pytest.raises(InputError, match=r"wrong gradients.*at 16 pixels.*use precision='float32'"):
        numerics.check_gradients_supported(torch.nn.Sequential(conv, linear), CPU, "bf16", 16)
    numerics.check_gradients_supported(conv, CPU, "bf16", 17)
    numerics.check_gradients_supported(conv, CPU, "float32", 16)
    numerics.check_gradients_supported(linear, CPU, "bf16", 16)
    numerics.check_gradients_supported(torch.nn.Conv2d(3, 8, 2, 2), CPU, "bf16", 16)
    numerics.check_gradients_supported(torch.nn.Conv2d(3, 8, 3, 1), CPU, "bf16", 16)
    numerics.check_gradients_supported(conv, torch.device("cuda"), "bf16", 16)
