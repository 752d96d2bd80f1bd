"""What the store beside this file holds, as commit 8c97877 computed it."""

from simclic import Figure, Finetune, Linear, Table, grid

SMALL = {"dataset": "digits", "backbone": "test_resnet", "image_size": 16, "precision": "float32"}
TRAINED = {**SMALL, "projector_dim": 32, "predictor_dim": 8, "epochs": 2, "base_lr": 0.4}
LINEAR = Linear(l2_count=3, tolerance=1e-3)
FINETUNE = Finetune(steps=3, lr_low=0.03, lr_count=2, decay_count=1, augment="none", precision="float32")

EXHIBITS = [
    Table(
        paper="table2",
        caption="Golden",
        runs=grid(**TRAINED, perturbation=("history", "dropout", "noise", "none"), seed=(0, 1))
        + grid(**{**SMALL, "precision": "bf16"}, perturbation="none", epochs=0)
        + grid(dataset="digits", backbone="pixels", image_size=8, perturbation="none", epochs=0),
        protocols=(LINEAR, FINETUNE, Linear(solver="as-published", l2_count=3)),
    ),
    Figure(
        paper="figure6",
        caption="Golden",
        runs=grid(**TRAINED, perturbation="noise", eps=(0.1, 1.0)),
        protocols=(LINEAR,),
        x="eps",
    ),
    Table(
        paper="table5",
        caption="Diverged",
        runs=grid(**{**TRAINED, "base_lr": 1e9}, perturbation="noise", stop_gradient=(True, False)),
        protocols=(LINEAR,),
        columns="stop_gradient",
    ),
]
