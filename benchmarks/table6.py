"""Table 6 (Section 5.4): cross-entropy similarity (Eq. 7) is worse than cosine, but does not collapse."""

from simclic import Table, grid

TABLE = Table(
    paper="table6",
    caption="Effect of loss function",
    runs=grid(dataset="cifar10", perturbation="noise", similarity=("cosine", "cross-entropy")),
    columns="similarity",
    labels={"cosine": "Cosine", "cross-entropy": "Cross-entropy"},
)
