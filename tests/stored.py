"""Results in a store without the training that they would come from."""

import numpy as np

from simclic.data.metrics import METRICS
from simclic.store.run_folder import RunFolder


def solver_options(protocol, superseded=False):
    """What a result says of an as-published solver; version 0.1.0 said nothing."""
    return {"lbfgs": {"maxiter": 100}} if getattr(protocol, "solver", "") == "as-published" and not superseded else {}


def publish(runs, run, protocol, error=12.5, data="d1", truth=(0, 1), images=2):
    RunFolder(runs, run).create_folder(data)
    setting = {"l2": 1.0} if protocol.stage == "linear" else {"lr": 0.1, "decay": 0.0}
    lost = [] if protocol.stage == "linear" else [{"lr": 1.0, "decay": 0.0, "error": None, "diverged": 3}]
    record = {
        "error": error,
        "metric": "top-1",
        "chosen": setting,
        "curve": [*lost, setting | {"error": error}],
        "sizes": {"train": 2, "val": 1, "test": images, "fit": 3},
        "seconds": 0.5,
        **solver_options(protocol),
    }
    scored = (record, np.array(truth), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])[: len(truth)])
    RunFolder(runs, run).write_result(protocol, scored, data=data, seed=0, device="cpu", threads=1)
    return RunFolder(runs, run).result_path(protocol)


def measure(
    runs, run, protocol, error, images=10_000, metric="top-1", data="d1", hard=None, superseded=False, val_error=None, seconds=1.0
):
    """A result whose predictions have about this error. hard: the order in which images are got wrong. superseded: as version
    0.1.0 wrote it. val_error: by which it chose its settings."""
    rng = np.random.default_rng([run.seed, 7])
    truth = np.arange(images) % 10
    wrong = rng.permutation(images) if hard is None else hard
    scores = np.eye(10)[truth]
    miss = wrong[: round(error / 100 * images)]
    scores[miss] = np.roll(scores[miss], 1, axis=1)
    RunFolder(runs, run).create_folder(data)
    setting = {"l2": 1.0} if protocol.stage == "linear" else {"lr": 0.1, "decay": 0.0}
    chosen = setting if val_error is None else setting | {"val_error": val_error}
    record = solver_options(protocol, superseded) | {
              "error": METRICS[metric](truth, scores), "metric": metric, "chosen": chosen, "curve": [setting | {"error": 1.0}],
              "sizes": {"train": 1, "val": 1, "test": images, "fit": 2}, "seconds": seconds}  # fmt: skip
    RunFolder(runs, run).write_result(protocol, (record, truth, scores), data=data, seed=run.seed, device="cpu", threads=1)
