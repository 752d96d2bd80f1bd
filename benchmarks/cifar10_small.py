"""SimCLIC and its rivals on photographs, in miniature: CIFAR10 at 32 pixels

The question that the project exists for, at a scale that two cores can train in three hours: timm's smallest ResNet, 50,000
images, 3 epochs; 30 for the ablations, long enough that a collapse shows. The backbone was chosen for the time that it takes, and
the learning rate of SimCLIC on val, with noise; every rival has the best on val of three learning rates around its own (the table
of rates), before anything else was trained. What holds here need not hold for a ResNet-50 and 1,000 epochs.

cifar10_jpeg.py runs the same on a folder of images.

    simclic run benchmarks/cifar10_small.py --data DIR
"""

from dataclasses import replace
from pathlib import Path

from simclic import Figure, Finetune, Knn, Linear, Run, Table, grid, load

HERE = Path(__file__).parent
SIZE = {"dataset": "cifar10", "image_size": 32, "backbone": "test_resnet"}
SMALL = {**SIZE, "precision": "float32"}
SIMCLIC = {**SMALL, "projector_dim": 256, "predictor_dim": 64, "base_lr": 0.0167, "epochs": 3}
HEADS = {"projector_dim": 256, "predictor_dim": 64, "hidden_dim": 256}  # at most
RIVALS = ("simclic-two-views", "simsiam", "simsiam-no-augmentation", "simclr-v1", "byol", "moco-v2")
# Factors of a method's own learning rate, as the table of rates chose them.
FACTORS = {"simclic-two-views": 3, "simsiam": 3, "simsiam-no-augmentation": 1 / 3, "moco-v2": 3}
SEEDS = (0, 1, 2)
UNTRAINED = grid(**SIZE, perturbation="none", epochs=0, seed=SEEDS)
PIXELS = grid(dataset="cifar10", image_size=32, backbone="pixels", perturbation="none", epochs=0)
L2 = {"l2_low": 1e-2, "l2_high": 1e4, "l2_count": 13}
PROTOCOLS = (Linear(**L2), Knn())
LONG = 30  # epochs
GRID = Finetune(steps=300, lr_low=0.01, lr_count=2, decay_count=1, precision="float32")


def list_rivals(methods=RIVALS, factor=None, **axes):
    """The Runs of other methods, with heads as wide as the backbone wants. factor: of their learning rates; None: the chosen."""
    runs = ()
    for method in methods:
        own = Run(method=method)
        heads = {name: min(getattr(own, name), width) for name, width in HEADS.items() if name not in own.unread}
        rate = float(f"{own.base_lr * (factor or FACTORS.get(method, 1)):.3g}")
        runs += grid(method=method, base_lr=rate, **SMALL, **heads, **axes)
    return runs


def list_all(**axes):
    """SimCLIC with each perturbation and none, and the rivals."""
    perturbed = grid(**{**SIMCLIC, **axes}, perturbation=("noise", "dropout", "history", "none"))
    return perturbed + list_rivals(**{"epochs": SIMCLIC["epochs"], **axes})


def shrink_figure(stem, **axes):
    """A figure of the paper, made small."""
    (figure,) = load(HERE / f"{stem}.py").exhibits
    return replace(figure, runs=grid(**SIMCLIC, **axes), protocols=PROTOCOLS)


def shrink_table(stem):
    """A table of ablations of the paper, made small."""
    (table,) = load(HERE / f"{stem}.py").exhibits
    return replace(table.moved(**{**SIMCLIC, "epochs": LONG}), protocols=PROTOCOLS)


def draw_errors(name, x, xlabel):
    """A figure of one seed: error as training goes on; SimCLIC and SimSiam for equally many encoder passes, too."""
    rivals = ("simclic-two-views", "simsiam", "simclr-v1", "moco-v2")
    return Figure(
        name=f"cifar10-small-by-{name}",
        caption=f"Error against {xlabel.lower()} on CIFAR10, in miniature",
        runs=grid(**{**SIMCLIC, "epochs": (1, 3, 6, LONG)}, perturbation=("noise", "none"))
        + list_rivals(rivals, epochs=(1, 3))
        + list_rivals(("simsiam",), epochs=LONG // 2),
        protocols=PROTOCOLS,
        x=x,
        xlabel=xlabel,
        logx=True,
        lines="label",
    )


EXHIBITS = [
    Table(
        name="cifar10-small-rates",
        caption="Learning rates after 2 epochs: the best on val is taken for all that follows",
        runs=tuple(
            run
            for factor in (1 / 3, 1, 3)
            for run in grid(**{**SIMCLIC, "epochs": 2, "base_lr": float(f"{Run().base_lr * factor:.3g}")}, perturbation="noise")
            + list_rivals(factor=factor, epochs=2)
        ),
        protocols=(Knn(),),
        search="base_lr",
    ),
    Table(
        name="cifar10-small",
        caption="SimCLIC, its controls and rivals on CIFAR10, in miniature",
        runs=list_all(seed=SEEDS) + UNTRAINED + PIXELS,
        protocols=PROTOCOLS,
    ),
    Table(
        name="cifar10-small-as-published",
        caption="The same, with the linear probe as the source of the stored rows has it",
        runs=list_all(seed=SEEDS) + UNTRAINED,
        protocols=(Linear(solver="as-published", **L2),),
    ),
    Table(
        name="cifar10-small-finetuned",
        caption="Fine-tuned on a small grid; untrained: supervised from scratch",
        runs=grid(**SIMCLIC, perturbation=("noise", "none"))
        + list_rivals(("simsiam", "simclr-v1"), epochs=SIMCLIC["epochs"])
        + UNTRAINED[:1],
        protocols=(GRID,),
    ),
    draw_errors("epochs", "epochs", "Epochs"),
    draw_errors("passes", "encoder_passes", "Encoder passes per image"),
    shrink_figure("figure4", perturbation="history", tau=(0.1, 0.3, 0.6)),
    shrink_figure("figure5", perturbation="dropout", p=(0.1, 0.25, 0.5)),
    shrink_figure("figure6", perturbation="noise", eps=(0.01, 0.1, 1.0)),
    *(shrink_table(f"table{n}") for n in (4, 5, 6)),
]
