"""Table 4 (Section 5.1): without a trained predictor SimCLIC falls to chance, 90 % error; two layers beat one."""

from simclic import Table, grid

TABLE = Table(
    paper="table4",
    caption="Effect of predictor h",
    runs=grid(dataset="cifar10", perturbation="noise", predictor=("none", "frozen", "1-layer", "2-layer")),
    columns="predictor",
    labels={"none": "No predictor", "frozen": "Fixed random init", "1-layer": "1-layer MLP", "2-layer": "2-layer MLP"},
)
