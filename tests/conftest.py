"""What tests share: small Runs on real images, and a data set in memory."""

from pathlib import Path

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

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    return data.load("digits", "ericsson", Path("nowhere"))


@pytest.fixture
def linear():
    return Linear(l2_count=3, tolerance=1e-3)


@pytest.fixture
def small():
    return Finetune(steps=3, lr_low=0.03, lr_count=2, decay_count=1, augment="none")


EXHIBIT = '''"""A small exhibit."""
from simclic import Finetune, Linear, Table, grid

TABLE = Table(
    number=2,
    caption="Small",
    runs=grid(dataset="digits", backbone="test_resnet", image_size=16, projector_dim=32, predictor_dim=8, epochs=2,
              precision="float32", perturbation=("noise", "dropout", "history")),
    protocols=(Linear(l2_count=3, tolerance=1e-3), Finetune(steps=3, lr_count=1, decay_count=0, augment="none")),
)
'''


@pytest.fixture
def exhibit(tmp_path):
    """The path of a file that declares one small Table 2."""
    path = tmp_path / "table2.py"
    path.write_text(EXHIBIT)
    return path
