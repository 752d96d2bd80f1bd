"""Figure 4 (Section 4.3): the share tau of the past under history. More classes are said to gain from a larger tau."""

from simclic import Figure, Finetune, Linear, grid

FIGURE = Figure(
    paper="figure4",
    caption="The effect of the magnitude of the momentum parameter τ",
    runs=grid(dataset=("cifar10", "pets", "caltech101"), perturbation="history", tau=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
    protocols=(Linear(), Finetune()),
    x="tau",
    xlabel="τ (share of the past, Eq. 1)",
    notes=("The paper prints no numbers for this figure.",),
)
