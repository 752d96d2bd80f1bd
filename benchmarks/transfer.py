"""Table 2 as it should have been: pre-trained on ImageNet, as the 13 cited rows are, and evaluated on twelve data sets.

In the paper the cited methods saw ImageNet and SimCLIC only the target data set, so that the halves of Table 2 do not compare.
Here SimCLIC with each perturbation and with none, SimSiam and MoCo v2 are pre-trained on ImageNet for 100 and for 200 epochs in
batches of 256; twelve pre-trainings, each evaluated on ImageNet and on the eleven. None of it has been run: it needs ImageNet,
and its column a device with about 75 GB of memory, without which that column stays empty.

    simclic plan benchmarks/transfer.py --on slurm/gpu.toml     # what it costs
    simclic submit benchmarks/transfer.py --on slurm/gpu.toml --data DIR
"""

from simclic import Finetune, Linear, Table, grid
from simclic.data import PAPER

WHOLE = {"views_from": "whole"}  # as the cited methods cut their views
METHODS = {"simsiam": WHOLE, "moco-v2": WHOLE, "simclic": {"perturbation": ("history", "dropout", "noise", "none")}}


def list_runs(epochs):
    """Return the pre-trainings of so many epochs, and the untrained backbone."""
    runs = (grid(dataset="imagenet", method=name, epochs=epochs, batch_size=256, **axes) for name, axes in METHODS.items())
    return sum(runs, ()) + grid(dataset="imagenet", perturbation="none", epochs=0)


EXHIBITS = [
    Table(
        name=f"transfer-{epochs}",
        caption=f"Pre-trained on ImageNet for {epochs} epochs: error rates (%) on ImageNet and on the eleven",
        beside="table2",
        runs=list_runs(epochs),
        protocols=(
            Linear(),
            *(kind for name in PAPER for kind in (Linear(on=name), Linear(on=name, solver="as-published"), Finetune(on=name))),
        ),
        notes=(
            "Every row was pre-trained on ImageNet. Ours and the 13 stored ones differ in their epochs, 200 for five of these, "
            "400 to 1,000 for the others (Table 3), and in their recipes, which here are those for small images. The stored rows "
            "of linear evaluation stopped as those here 'as published' do.",
        ),
    )
    for epochs in (100, 200)
]
