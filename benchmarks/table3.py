"""Table 3 (Section 4.2): how each method was trained. SimCLIC's row is read from the defaults of Run."""

from simclic import Run, Table

TABLE = Table(
    paper="table3",
    caption="Training details reported in the original papers",
    runs=(Run(),),
    protocols=(),
    columns=("epochs", "batch_size", "momentum_encoder", "memory_bank", "projection_head", "data_augmentation"),
    labels={
        "epochs": "Epochs",
        "batch_size": "Batch size",
        "momentum_encoder": "Momentum encoder",
        "memory_bank": "Memory bank",
        "projection_head": "Projection head",
        "data_augmentation": "Data augmentation",
    },
    notes=(
        "SimCLIC needs a memory bank after all if its perturbation is history: one vector per image (Eq. 1, as we read it).",
        "Methods marked * are re-implementations of the original work.",
    ),
)
