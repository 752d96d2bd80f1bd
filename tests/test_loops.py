"""What training loops share: memory that may be taken, and how its end is told."""

import pytest
import torch

from simclic import loops

CPU = torch.device("cpu")


def test_memory_is_no_more_than_a_job_was_given(monkeypatch):
    monkeypatch.setattr(loops, "cores", lambda: 4)
    monkeypatch.setattr(loops, "_available", lambda: 8 << 30)
    monkeypatch.setattr(loops, "_container", lambda: 1 << 62)
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"):
        monkeypatch.delenv(name, raising=False)
    assert loops.memory(CPU) == 2 << 30  # one of four processes with a thread each
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1024")
    assert loops.memory(CPU) == 1 << 30
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert loops.memory(CPU) == 1 << 29
    monkeypatch.setattr(loops, "_container", lambda: 1 << 30)
    assert loops.memory(CPU) == 1 << 28


def test_memory_here_is_some_of_what_there_is():
    assert 1 << 26 < loops.memory(CPU) < 1 << 50


def test_running_out_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as e:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert loops.full(e.value)
    assert loops.full(MemoryError())
    assert loops.full(torch.OutOfMemoryError("CUDA out of memory."))
    assert loops.full(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not loops.full(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_compiler_s_trial_that_runs_out_of_memory_says_so(capsys):
    class Greedy(torch.nn.Module):
        def forward(self, x):
            raise MemoryError

    with pytest.raises(MemoryError):
        loops.fused(Greedy(), torch.ones(2), "float32")
    assert capsys.readouterr().err == ""
