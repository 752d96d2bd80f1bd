"""Fine-tuning (Section 4.2): SGD over a grid of learning rates and weight decays, chosen on val, trained again, scored once.

Members of the grid are trained in bundles, in one pass over the images each.
"""

from simclic.data import labels
from simclic.data.metrics import METRICS
from simclic.errors import Diverged
from simclic.evaluate.finetune.feed import Feed
from simclic.evaluate.finetune.grid import Grid, Part
from simclic.evaluate.finetune.kept import Kept
from simclic.evaluate.finetune.member import Member, Task, loss
from simclic.progress import Tell
from simclic.store.result_file import Scored
from simclic.train.numerics import check_gradients_supported, exact_float32

__all__ = ["Feed", "Grid", "Kept", "Member", "Part", "Task", "finetune", "loss"]


@exact_float32()
def finetune(task: Task, kept: Kept, tell: Tell = lambda share, note: None) -> Scored:
    """Train every setting on train, choose on val, train the best again on train + val from the same start, score test once.

    kept: rows of the curve that are finished already, and where to keep more. A setting that diverges loses; Diverged is raised
    if all do. Raises InputError for labels that nothing can be learned from or judged by, for gradients that would be wrong, and
    if memory does not suffice.
    """
    dataset, splits, settings = task.dataset, task.dataset.splits, task.protocol.settings
    metric, classes = METRICS[dataset.facts.metric], dataset.facts.classes
    labels.valid(dataset.labels, classes)
    labels.learnable(dataset.labels[splits.train], classes, dataset.names)
    labels.judging(dataset.labels[splits.val], classes, dataset.names)
    check_gradients_supported(task.f, task.images.device, task.protocol.precision, task.images.size)
    grid = Grid(task, kept, tell)

    for found in grid.bundles(Part("grid", splits.train, splits.val), settings[len(kept.rows) :]):
        rows = []
        for (lr, decay), (diverged, scores) in zip(settings[len(kept.rows) :], found, strict=False):
            error = None if scores is None else metric(dataset.labels[splits.val], scores)
            lost = (diverged or task.protocol.steps) if error is None else None
            rows.append({"lr": lr, "decay": decay, "error": error, "diverged": lost})
        kept.add(rows)
    whole = [row for row in kept.rows if row["error"] is not None]
    if not whole:
        raise Diverged(f"all {len(kept.rows)} settings of the fine-tuning grid diverged")
    best = min(whole, key=lambda row: row["error"])

    (((diverged, test),),) = grid.bundles(Part("refit", splits.fit, splits.test), [(best["lr"], best["decay"])])
    if test is None:
        kept.drop()
        where = f"lr {best['lr']:.1e}, decay {best['decay']:.1e}, step {diverged or task.protocol.steps:,}"
        raise Diverged(f"the refit diverged at {where}")
    truth = dataset.labels[splits.test]
    record = {
        "error": metric(truth, test), "metric": dataset.facts.metric, "curve": kept.rows, "sizes": splits.sizes,
        "chosen": {"lr": best["lr"], "decay": best["decay"], "val_error": best["error"]},
        "members": kept.members, "compiled": grid.compiled, "resumed": kept.resumed, "seconds": kept.seconds,
    }  # fmt: skip
    return record, truth, test
