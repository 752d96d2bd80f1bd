"""Table 5 (Section 5.2): without stop-gradient SimCLIC collapses."""

from simclic import Table, grid

TABLE = Table(
    paper="table5",
    caption="Effect of stop-gradient operator",
    runs=grid(dataset="cifar10", perturbation="noise", stop_gradient=(True, False)),
    columns="stop_gradient",
    labels={True: "With stop-gradient", False: "Without stop-gradient"},
)
