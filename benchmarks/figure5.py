"""Figure 5 (Section 4.3): the drop probability p. Best near 0.25, and worse the faster the larger p becomes."""

from simclic import Figure, Finetune, Linear, grid

FIGURE = Figure(
    paper="figure5",
    caption="The effect of the magnitude of the dropout parameter p",
    runs=grid(dataset=("cifar10", "pets", "caltech101"), perturbation="dropout", p=(0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)),
    protocols=(Linear(), Finetune()),
    x="p",
    xlabel="p (drop probability, Eq. 2)",
    notes=("The paper prints no numbers for this figure.",),
)
