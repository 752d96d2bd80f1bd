"""Figure 7 (Section 5.3): larger batches and more epochs help."""

from simclic import Figure, grid

FIGURE = Figure(
    paper="figure7",
    caption="Effect of batch sizes",
    runs=grid(dataset="cifar10", perturbation="noise", epochs=(500, 600, 700, 800, 900, 1000), batch_size=(16, 32, 64, 128)),
    x="batch_size",
    xlabel="Batch size",
    logx=True,
    lines="epochs",
    notes=("The paper gives the end points, batch 16 to 128 and 500 to 1,000 epochs; the steps between are ours.",),
)
