"""What tests share: small Runs on real images, and a data set in memory."""

import multiprocessing
import shutil
from pathlib import Path

import layouts
import pytest

from simclic import Finetune, Linear, Run, data

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


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As in the processes that launch starts: the last bits depend on the number of threads."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


@pytest.fixture(scope="session")
def digits():
    return data.load("digits", "ericsson", Path("nowhere"))


@pytest.fixture
def linear():
    return Linear(l2_count=3, tolerance=1e-3)


@pytest.fixture
def small():
    return Finetune(steps=3, lr_low=0.03, lr_count=2, decay_count=1, augment="none", precision="float32")


def spawned(target, *given):
    """A process of its own that does `target`, and our end of the pipe whose other end it is given last."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*given, theirs))
    process.start()
    theirs.close()
    return process, ours


EXHIBIT = '''"""A small exhibit."""
from simclic import Finetune, Linear, Table, grid

TABLE = Table(
    number=2,
    caption="Small",
    runs=grid(dataset="digits", backbone="test_resnet", image_size=16, projector_dim=32, predictor_dim=8, epochs=2,
              precision="float32", perturbation=("noise", "dropout", "history")),
    protocols=(Linear(l2_count=3, tolerance=1e-3),
               Finetune(steps=3, lr_count=1, decay_count=0, augment="none", precision="float32")),
)
'''


@pytest.fixture
def exhibit(tmp_path):
    """The path of a file that declares one small Table 2."""
    path = tmp_path / "table2.py"
    path.write_text(EXHIBIT)
    return path


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
