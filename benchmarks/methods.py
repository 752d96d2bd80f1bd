"""What is the idea worth? Every method on equal terms: the same images, backbone, epochs and batch, from random weights

Each method has its own declared recipe, and the same small search: three learning rates around its own, chosen on val. The table
says what was chosen and what the search cost. A method of your own in methods/ has its row and its lines, too.

Equal epochs are not equal work: two views are two passes through the encoder, a momentum encoder adds two without a gradient.
So the figures show the error against epochs and against passes, each point a training of its own, with its own cosine.

ResNet-18 at 128 pixels and a small grid of fine-tuning: about 760 GPU-hours by guess, where ResNet-50 at 224 and the paper's grid
would take 22,000. Edit SIZE and GRID for these.

    simclic run benchmarks/methods.py --data DIR
"""

from simclic import Figure, Finetune, Knn, Linear, Run, Table, grid
from simclic.data import PAPER
from simclic.experiment import METHODS

SEARCHED = (1 / 3, 1, 3)  # factors of a method's own learning rate
SIZE = {"backbone": "resnet18", "image_size": 128}
GRID = Finetune(steps=2500, lr_low=1e-3, lr_count=3, decay_count=1)


def list_runs(factors=SEARCHED, **axes):
    """Return the Runs of all methods; those that perturb, with each perturbation and none."""
    runs = ()
    for method in METHODS:
        rate = Run(method=method).base_lr
        perturbations = (
            {"perturbation": ("noise", "dropout", "history", "none")} if "perturbation" in METHODS[method].reads else {}
        )
        runs += grid(method=method, base_lr=tuple(float(f"{rate * f:.3g}") for f in factors), **perturbations, **axes)
    return runs


NOTES = (
    "Every method is trained from random weights on the images of its data set, with its own recipe at the same epochs and "
    "batch. Its learning rate is one of three around its own, the best on val; numbers are test errors.",
    "A step takes one pass of each image through the encoder for SimCLIC and for SimSiam without augmentation, two for methods "
    "with two views, and two more, without a gradient, for those with a momentum encoder (MoCo v1: one and one).",
)

EXHIBITS = [
    Table(
        name="methods",
        caption="Every method on equal terms, 200 epochs (%)",
        runs=list_runs(dataset=PAPER, epochs=200, **SIZE) + grid(dataset=PAPER, perturbation="none", epochs=0, **SIZE),
        protocols=(Linear(), GRID, Knn()),
        search="base_lr",
        notes=NOTES,
    ),
    *(
        Figure(
            name=f"methods-{name}-{dataset}",
            caption=f"Every method on equal terms on {title}: error against {name}",
            runs=list_runs(dataset=dataset, epochs=(50, 100, 200), **SIZE),
            protocols=(Linear(),),
            search="base_lr",
            x=x,
            xlabel=xlabel,
            logx=True,
            lines="label",
            notes=NOTES,
        )
        for dataset, title in (("cifar10", "CIFAR10"), ("pets", "Pets"))
        for name, x, xlabel in (("epochs", "epochs", "Epochs"), ("passes", "encoder_passes", "Encoder passes per image"))
    ),
]
