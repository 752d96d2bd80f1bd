"""Table 2 (Section 4.2): eleven data sets, linear evaluation and fine-tuning, beside 13 stored baselines.

The stored rows of linear evaluation come from a solver that stopped early, so that ours are given that way, too, in a block
of their own.

Three controls stand below that the paper lacks: SimCLIC without its perturbation, the backbone before any training (its
batch norms calibrated), and raw pixels. About 44 pre-trainings of 1,000 epochs: weeks on one GPU, days on eight.

    simclic run benchmarks/table2.py --data DIR
"""

from simclic import Finetune, Linear, Table, grid
from simclic.data import PAPER

TABLE = Table(
    paper="table2",
    caption="Linear evaluation and fine-tuning error rates (%)",
    runs=grid(dataset=PAPER, perturbation=("history", "dropout", "noise", "none"))
    + grid(dataset=PAPER, perturbation="none", epochs=0)
    + grid(dataset=PAPER, perturbation="none", epochs=0, backbone="pixels", image_size=32),
    protocols=(Linear(), Finetune(), Linear(solver="as-published")),
    notes=(
        "The two halves of this table are not like for like. The 13 stored baselines are test errors of ResNet-50s trained "
        "on ImageNet (Ericsson et al., CVPR 2021); SimCLIC is pre-trained on the target data set alone, and the paper "
        "scores it on a 'validation set'.",
        "Error is 100 minus top-1 accuracy; for Aircraft, Caltech101, Flowers and Pets minus mean per-class accuracy, for "
        "VOC2007 minus 11-point mAP.",
        "Caltech101 here: 30 training images a class without replacement, the rest test. The list behind the stored baselines "
        "was flawed and differs: it drew with replacement, so that images of its val set are also in its train set.",
        "Linear evaluation is solved at every l2 until a gap of a millionth to the minimum is proven. The stored rows are not: "
        "their source stopped after 100 iterations. What this suite reaches in that way stands under 'as published'.",
        "Two stored cells differ from their source: fine-tuned MoCo v1 / Cars 34.88 (source 34.98), BYOL / Food 14.45 (14.46).",
    ),
)
