"""The 13 baselines of Table 2, measured again: the same probe and the same fine-tuning grid as SimCLIC, on all eleven data sets.

Each starts from its authors' ResNet-50, imported once: simclic import NAME FILE (NAME as below; nothing is downloaded here). The
three that the stored rows padded otherwise than their authors stand a second time as they were stored: simclic import NAME FILE
--as-stored. About 1 GPU-hour each for the probes; for the grids 16 x 11 x 57 trainings of 5,000 steps.

    simclic run benchmarks/baselines.py --data DIR
"""

from simclic import Finetune, Linear, Table, grid
from simclic.data import PAPER
from simclic.experiment.baselines import IMPORTED

TABLE = Table(
    paper="table2",
    caption="The 13 baselines, stored and measured again (%)",
    runs=grid(dataset=PAPER, init=tuple(IMPORTED), perturbation="none", epochs=0),
    protocols=(Linear(), Finetune(), Linear(solver="as-published")),
    notes=(
        "Stored: test errors of Ericsson et al., CVPR 2021. Measured again: the same splits but Caltech101's, whose list was "
        "flawed.",
        "SimCLR v1 and v2 take images without normalisation; that stands on the card of their weights.",
    ),
)
