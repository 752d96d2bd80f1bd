"""Beyond Figure 7: batches of up to 4,096, which the paper expects to help further and had no GPUs for (Section 5.3).

Each batch size has the learning rate by the rule, base_lr * batch_size / 256, and that of a batch of 128 as it is. A batch that
one GPU cannot hold needs `ranks` in a profile.

    simclic submit benchmarks/beyond_figure7.py --on slurm/gpu.toml
"""

from simclic import Figure, Run, grid

PAPER_LR = Run().lr  # of a batch of 128, by the rule
SIZES = (128, 256, 512, 1024, 2048, 4096)


def list_runs(dataset: str, sizes: tuple[int, ...]) -> tuple[Run, ...]:
    """Return the Runs of one figure: the paper's longest training, by both learning rates."""
    same = {"dataset": dataset, "perturbation": "noise", "epochs": 1000, "batch_size": sizes}
    return grid(**same) + grid(**same, lr_rule="as-is", base_lr=PAPER_LR)


EXHIBITS = [
    Figure(
        name=f"beyond-figure7-{dataset}",
        caption=f"Effect of batch sizes beyond the paper's, {title}",
        runs=list_runs(dataset, sizes),
        x="batch_size",
        xlabel="Batch size",
        logx=True,
        lines="lr_rule",
        beyond="figure7",
        notes=(
            "The paper expects larger batches to help further; with ours, as-is is the learning rate of a batch of 128.",
            *more,
        ),
    )
    for dataset, title, sizes, more in (
        ("cifar10", "CIFAR10", SIZES, ()),
        ("pets", "Pets", SIZES[:-1], ("Pets has 3,680 images to train on, fewer than a batch of 4,096.",)),
    )
]
