"""Figure 6 (Section 4.3): the size eps of the noise. Matters less than tau and p; the paper's range is unknown."""

from simclic import Figure, Finetune, Linear, grid

FIGURE = Figure(
    paper="figure6",
    caption="The effect of the magnitude of the noise parameter ε",
    runs=grid(dataset=("cifar10", "pets", "caltech101"), perturbation="noise", eps=(0.01, 0.05, 0.1, 0.2, 0.5, 1.0)),
    protocols=(Linear(), Finetune()),
    x="eps",
    xlabel="ε (length of the step, Eq. 3)",
    logx=True,
    notes=("The paper prints no numbers for this figure, nor the values of ε.",),
)
