"""One pre-training on several processes is the same pre-training."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from conftest import start_process
from torch import nn

from simclic import InputError, Run, data, ranks
from simclic.data.images import Images
from simclic.experiment import METHODS, PERTURBATIONS
from simclic.train import loop

CPU = torch.device("cpu")
STEPS, BATCH = 50, 16
CASES = {f"simclic {name}": {"method": "simclic", "perturbation": name} for name in PERTURBATIONS}
CASES |= {name: {"method": name} for name in METHODS if name != "simclic"}


class Small(nn.Module):
    """A backbone of two convolutions with batch norms, (B, 3, 16, 16) to (B, 16)."""

    num_features = 16

    def __init__(self):
        super().__init__()
        convolutions = [nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in ((3, 8), (8, 16))]
        self.layers = nn.Sequential(convolutions[0], nn.BatchNorm2d(8), nn.ReLU(), convolutions[1], nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, x):
        return self.layers(x).mean(dim=(2, 3))


def small_run(settings):
    """A Run on digits whose heads are small, too."""
    wanted = {"hidden_dim": 16, "predictor_dim": 8, "prototypes": 32, "queue_size": 64} | settings
    reads = {"method", "perturbation", *METHODS[settings["method"]].reads}
    same = {"dataset": "digits", "image_size": 16, "projector_dim": 8, "batch_size": BATCH, "precision": "float32", "epochs": 2}
    return Run(**same, **{name: value for name, value in wanted.items() if name in reads})


def train_all(cases):
    """The loss of every step, and all weights and states in the end, of each case."""
    digits, ended = data.load("digits", "ericsson", Path()), {}
    fit = torch.from_numpy(digits.splits.fit)
    for name, settings in cases.items():
        run, images, losses = small_run(settings), Images(digits, 16, CPU), []
        training = loop.Training(run, len(images), CPU, len(fit))
        if training.model.visits_first:
            training.visit_images(images, loop.shuffled_batches(fit, BATCH, range(10), 0, "visit"))
        batches = training.stream_batches(images, loop.shuffled_batches(fit, BATCH, range(STEPS), 0, "order"))
        for step, (pixels, index) in enumerate(batches):
            if step % (STEPS // 2) == 0:
                training.model.before_epoch(2 * step // STEPS)
            out = training.train_step(training.prepare_views(pixels, images), index, run.lr, (step + 1) / STEPS)
            losses.append(out.loss.detach())
            training.step += 1
        ended[name] = {"losses": torch.stack(losses), **training.model.state_dict()}
    return ended


def train_ranks(cases, rank, count, ports, path):
    """Train as one of some ranks, or alone."""
    # In double precision two sums in another order stay alike for 50 steps; in single they differ in the last bits at first, and
    # in the first digits after 25 steps at these learning rates.
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    loop.build_backbone = lambda run: Small()
    if count == 1:
        torch.save(train_all(cases), path)
        return
    if rank == 0:
        store = ranks.serve_store()
        ports.send(store.port)
    else:
        store = torch.distributed.TCPStore("127.0.0.1", ports.recv(), is_master=False)
    with ranks.join(store, rank, count, CPU, is_local=True):
        torch.save(train_all(cases), path)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What each case ended with: on one process, and on both of two."""
    folder, (theirs, ours) = tmp_path_factory.mktemp("ranks"), multiprocessing.Pipe(duplex=False)
    parts = [(0, 1, None), (0, 2, ours), (1, 2, theirs)]
    processes = [start_process(train_ranks, CASES, *part, folder / str(n)) for n, part in enumerate(parts)]
    for process in processes:
        process.join()
    return [torch.load(folder / str(n)) for n in range(3)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_what_one_trains(ended, name):
    """Every loss, weight, statistic, history, queue, bank and centre, after 50 steps and in double precision."""
    one, first, second = (each[name] for each in ended)
    assert len(one["losses"]) == STEPS
    assert not one["losses"][0].equal(one["losses"][-1])  # it does train
    assert one.keys() == first.keys()
    for part, value in one.items():
        assert torch.allclose(first[part].double(), value.double(), rtol=1e-6, atol=1e-8), part
        assert first[part].equal(second[part]), part  # ranks never drift apart, not by a bit


def test_a_rank_has_equal_rows_of_each_batch():
    assert ranks.own_rows(6) == slice(0, 6)  # of a single process, all
    x = torch.rand(4, 3)
    assert ranks.gather_rows(x) is x
    assert ranks.agree(True, False) == [True, False]


@pytest.mark.parametrize(
    ("batch", "norm", "line"),
    [
        (15, nn.BatchNorm2d(2), "batch_size=15 is not a multiple of ranks=2"),
        (1, nn.BatchNorm2d(2), "batch_size=1 is not a multiple of ranks=2"),
        (16, nn.BatchNorm1d(2), "ranks=2: a BatchNorm1d of this backbone cannot see all rows"),
    ],
)
def test_what_cannot_be_spread_is_one_line(monkeypatch, batch, norm, line):
    monkeypatch.setattr("simclic.ranks.spread.count_ranks", lambda: 2)
    model = nn.Sequential(norm)
    model.register_forward_hook(ranks.gather_output)
    with pytest.raises(InputError, match=line):
        ranks.Spread(model, batch)
