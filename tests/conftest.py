"""What tests share: small Runs on real images, and a data set in memory."""

import gc
import multiprocessing
import os
import shutil
from contextlib import chdir
from functools import cache
from pathlib import Path
from unittest import mock

import layouts
import pytest
from commands import simclic
from filelock import FileLock
from reaper import Reaper

from simclic import Finetune, Linear, Run, data
from simclic.experiment import count_cores

ROOT = Path(__file__).parents[1]

# A digits Run that takes a second.
TINY = {
    "dataset": "digits",
    "backbone": "test_resnet",
    "image_size": 16,
    "projector_dim": 32,
    "predictor_dim": 8,
    "epochs": 2,
    "precision": "float32",
}


def tiny(**changes):
    """A Run that takes a second."""
    return Run(**{**TINY, **changes})


# These begin first, the longest first, so that no worker waits for another at the end.
LONGEST = (
    "test_slurm", "test_resume", "test_ranks", "test_finetune", "test_submit", "test_launch", "test_import", "test_linear",
    "test_clustering", "test_gc", "test_baselines",
)  # fmt: skip


def pytest_configure(config):
    """Let nothing outlive the tests; workers belong to the session that started them."""
    gc.disable()  # while everything is imported, collections would take a quarter of the time
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Reaper(config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than cores: the worker that tests on Slurm mostly waits."""
    return count_cores() + 1


def pytest_collection_modifyitems(items):
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As in the processes that launch starts: the last bits depend on the number of threads."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
    gc.freeze()  # what is imported by now takes half a second of each collection, and a grid collects for each bundle
    gc.enable()


@pytest.fixture(autouse=True)
def same_environment():
    """The environment is put back after each test: a task or a command in this process sets variables for its children."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Where to compute; a test that takes it runs on each. Without a CUDA device, that half is skipped."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return request.param


@pytest.fixture(scope="session")
def digits():
    return data.load("digits", "ericsson", Path("nowhere"))


@pytest.fixture
def linear():
    return Linear(l2_low=0.1, l2_count=3, tolerance=1e-3)


@pytest.fixture
def small():
    return Finetune(steps=3, lr_low=0.03, lr_count=2, decay_count=1, augment="none", precision="float32")


def small_backbone():
    """A backbone for tests of everything behind it: of 2 x 2 pixels, 12 numbers an image."""
    import torch

    class Small(torch.nn.Module):
        num_features = 12

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(12, 12)

        def forward(self, x):
            return self.layer(x.flatten(1))

    return Small()


def compute_results(run, protocols, runs, root=None, tell=lambda share, note: None, device="cpu", **options):
    """Train the encoder and measure it under each protocol, in this process. Returns the errors in percent."""
    from simclic.experiment import Job
    from simclic.schedule.work import WorkerOptions, price_jobs, run_jobs

    jobs = [Job(run), *(Job(run, protocol) for protocol in protocols)]
    return run_jobs(jobs, WorkerOptions(runs, root or runs, device=device, **options), tell, price_jobs(jobs, runs))


def do_alone(target, given):
    """As a process of the package begins its work."""
    import torch

    torch.set_num_threads(1)
    target(*given)


@cache
def server():
    """A server of processes that has imported torch, as the package starts it."""
    from simclic.experiment import ComputeOptions
    from simclic.schedule.processes import start_server

    return start_server(ComputeOptions())[0]


def start_process(target, *given):
    """A process of its own that does `target`, forked as those of the package are."""
    process = server().Process(target=do_alone, args=(target, given))
    process.start()
    return process


def spawned(target, *given):
    """Such a process, and our end of the pipe whose other end it is given last."""
    ours, theirs = multiprocessing.Pipe()
    process = start_process(target, *given, theirs)
    theirs.close()
    return process, ours


EXHIBIT = '''"""A small exhibit."""
from simclic import Finetune, Linear, Table, grid

TABLE = Table(
    paper="table2",
    caption="Small",
    runs=grid(dataset="digits", backbone="test_resnet", image_size=16, projector_dim=32, predictor_dim=8, epochs=2,
              precision="float32", perturbation=("noise", "dropout", "history")),
    protocols=(Linear(l2_low=0.1, l2_count=3, tolerance=1e-3),
               Finetune(steps=3, lr_count=1, decay_count=0, augment="none", precision="float32")),
)
'''


# A method by its numbers, as a user writes it.
NUMBERS = """# method: Mine
# source: Doe 2026, Table 3
# pretrained_on: ImageNet-1k
# split: test
protocol,Aircraft,CIFAR10,Flowers
linear,45.40,5.98,
finetune,,2.00,3.00
"""


@pytest.fixture
def exhibit(tmp_path):
    """The path of a file that declares one small Table 2."""
    path = tmp_path / "table2.py"
    path.write_text(EXHIBIT)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """EXHIBIT as table2.py, run once for all workers: its store, its report, and what was told. To be copied, not written to."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with FileLock(root / "finished.lock"):
        if not (root / "finished/told.txt").exists():
            (root / "finished").mkdir()
            with chdir(root / "finished"):
                Path("table2.py").write_text(EXHIBIT)
                Path("told.txt").write_text(simclic("run", "table2.py"))
    return root / "finished"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The eleven data sets on disk, and how their facts differ from the real ones. Not to be written to."""
    root = tmp_path_factory.mktemp("eleven")
    return root, {name: build(root) for name, build in layouts.BUILD.items()}


@pytest.fixture
def eleven(built, tmp_path, monkeypatch):
    """A copy of the eleven data sets to do with as one likes; the facts are theirs."""
    root = tmp_path / "data"
    shutil.copytree(built[0], root)
    layouts.accept(monkeypatch, root, built[1])
    return root


@pytest.fixture(scope="session")
def latex():
    """pdflatex and pdftotext, or these tests are skipped where they may be."""
    if not (shutil.which("pdflatex") and shutil.which("pdftotext")):
        assert not os.environ.get("SIMCLIC_NEEDS_LATEX"), "these tests must run here, and there is no pdflatex or pdftotext"
        pytest.skip("no pdflatex or pdftotext here")
