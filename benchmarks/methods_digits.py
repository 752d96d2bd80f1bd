"""Every method in miniature: scikit-learn's digits

methods.py made small as digits.py makes the paper small: 8 x 8 images, timm's smallest ResNet, and heads of its size; about
twenty minutes on two cores. What holds here need not hold on photographs: digits have no colours to jitter, and a mirrored 2 is
no digit.

The learning rates are a method's own, 3 and 9 times it: so few steps want larger ones than the recipes' hundreds of epochs.

    simclic run benchmarks/methods_digits.py
"""

import runpy
from pathlib import Path

from simclic import Figure, Finetune, Knn, Linear, Table, grid

FULL = runpy.run_path(str(Path(__file__).parent / "methods.py"))
SMALL = {"dataset": "digits", "image_size": 16, "backbone": "test_resnet", "precision": "float32"}
UNTRAINED = {name: value for name, value in SMALL.items() if name != "precision"}  # of a training
HEADS = {"projector_dim": 128, "predictor_dim": 64, "hidden_dim": 128, "norm_groups": 4}
GRID = Finetune(steps=48, lr_low=0.03, lr_count=2, decay_count=1, augment="none", precision="float32")


def shrink_heads(run):
    """The Run with heads as wide as the small backbone wants, where its method has such."""
    return run.moved(**{name: width for name, width in HEADS.items() if name not in run.unread})[0]


def list_small_runs(**axes):
    """The Runs of methods.py, made small."""
    return tuple(shrink_heads(run) for run in FULL["list_runs"](factors=(1, 3, 9), **SMALL, **axes))


EXHIBITS = [
    Table(
        name="methods-digits",
        caption="Every method in miniature, on digits (%)",
        runs=list_small_runs(epochs=12) + grid(**UNTRAINED, perturbation="none", epochs=0),
        protocols=(Linear(), GRID, Knn(k=20)),
        search="base_lr",
        notes=FULL["NOTES"],
    ),
    *(
        Figure(
            name=f"methods-digits-{name}",
            caption=f"Every method in miniature: error against {name}",
            runs=tuple(run for run in list_small_runs(epochs=(3, 6, 12)) if run.method != "cmc"),  # digits have no colour
            protocols=(Knn(k=20),),
            search="base_lr",
            x=x,
            xlabel=xlabel,
            logx=True,
            lines="label",
            notes=FULL["NOTES"],
        )
        for name, x, xlabel in (("epochs", "epochs", "Epochs"), ("passes", "encoder_passes", "Encoder passes per image"))
    ),
]
