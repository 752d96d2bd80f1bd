"""Fine-tuning (Section 4.2): SGD over a grid of learning rates and weight decays; the best on val is refitted and tested once.

The source of the stored rows differs: it computes in float32, where bf16 is the default here; it trains on the incomplete last
batch of an epoch; and of equal errors on val it chooses the smaller weight decay, here the larger.
"""

from collections.abc import Sequence

from simclic.data import labels
from simclic.data.metrics import METRICS, score_test
from simclic.errors import Diverged
from simclic.evaluate.finetune.grid import GridSearch, Phase
from simclic.evaluate.finetune.grid_progress import GridProgress
from simclic.evaluate.finetune.member import FinetuneTask, Member, Setting, finetune_loss
from simclic.evaluate.finetune.parts import Helpers, read_part, share_settings
from simclic.evaluate.finetune.train_batches import TrainBatches
from simclic.progress import Tell
from simclic.store.result_file import Scored
from simclic.train.numerics import check_gradients_supported, exact_float32

__all__ = [
    "FinetuneTask",
    "GridProgress",
    "GridSearch",
    "Member",
    "Phase",
    "TrainBatches",
    "finetune",
    "finetune_loss",
    "train_part",
    "train_settings",
]


@exact_float32()
def finetune(
    task: FinetuneTask, progress: GridProgress, on_progress: Tell = lambda share, note: None, helpers: Helpers | None = None
) -> Scored:
    """Train every setting on train, choose on val, train the best again on train + val, score test once.

    progress: the rows that earlier processes finished; new rows are added to it. A setting that diverges cannot be chosen.
    helpers: processes that train parts of the grid beside this one, to the same bits.

    Raises Diverged if all settings diverge; InputError for unusable labels, for gradients that torch would compute wrongly, or if
    memory does not suffice; RankLost if a helper ended.
    """
    dataset, splits, classes = task.dataset, task.dataset.splits, task.dataset.facts.classes
    labels.check_labels(dataset.labels, classes)
    labels.check_learnable(dataset.labels[splits.train], classes, dataset.names)
    labels.check_judgeable(dataset)
    check_gradients_supported(task.f, task.images.device, task.protocol.precision, task.images.size)
    grid = GridSearch(task, progress, on_progress)

    with share_settings(task.protocol.settings, progress, helpers) as settings:
        train_settings(grid, progress, settings)
    finished_rows = [row for row in progress.rows if row["error"] is not None]
    if not finished_rows:
        raise Diverged(f"all {len(progress.rows)} settings of the fine-tuning grid diverged")
    best = min(finished_rows, key=lambda row: row["error"])

    (((diverged_at, test_logits),),) = grid.train_bundles(Phase("refit", splits.fit, splits.test), [(best["lr"], best["decay"])])
    if test_logits is None:
        progress.delete_bundle()
        where = f"lr {best['lr']:.1e}, decay {best['decay']:.1e}, step {diverged_at or task.protocol.steps:,}"
        raise Diverged(f"the refit diverged at {where}")
    truth = dataset.labels[splits.test]
    record = {
        **score_test(dataset.facts, truth, test_logits), "curve": progress.rows, "sizes": splits.sizes,
        "chosen": {"lr": best["lr"], "decay": best["decay"], "val_error": best["error"]},
        "members": progress.members, "compiled": grid.compiled, "resumed": progress.resumed, "seconds": progress.seconds,
    }  # fmt: skip
    return record, truth, test_logits


@exact_float32()
def train_settings(grid: GridSearch, progress: GridProgress, settings: Sequence[Setting]) -> None:
    """Train settings on train, and add a row with the error on val of each to progress."""
    dataset, splits, steps = grid.task.dataset, grid.task.dataset.splits, grid.task.protocol.steps
    metric, begin = METRICS[dataset.facts.metric], 0
    for judged in grid.train_bundles(Phase("grid", splits.train, splits.val), settings):
        rows = []
        for (lr, decay), (diverged_at, logits) in zip(settings[begin:], judged, strict=False):
            error = None if logits is None else metric(dataset.labels[splits.val], logits)
            rows.append({"lr": lr, "decay": decay, "error": error, "diverged": (diverged_at or steps) if error is None else None})
        progress.add_rows(rows)
        begin += len(rows)


def train_part(task: FinetuneTask, progress: GridProgress, place: tuple[int, str, int]) -> None:
    """Train the part of a grid that the process which leads gives to this one. place: as in `simclic.evaluate.finetune.parts`."""
    with read_part(place) as settings:
        train_settings(GridSearch(task, progress), progress, settings)
