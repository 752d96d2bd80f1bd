"""CIFAR10 at the scale of one GPU: every method once, ResNet-18 with the stem for small images, 10, 50 and 200 epochs

Each method trains by its own declared recipe, without a search, from random weights; SimCLIC with each perturbation and none. The
shorter trainings come first (gpu.sh), so that whatever the time allows is a whole table. The images are a JPEG copy of CIFAR10,
lossy and not the makers' bytes, in a folder with `train` and `test`; DATASET = "cifar10" takes the makers' own.

    benchmarks/gpu.sh --images ARCHIVE record
"""

import runpy
from pathlib import Path

from simclic import Figure, Knn, Linear, Table, grid

FULL = runpy.run_path(str(Path(__file__).parent / "methods.py"))
DATASET = "data/cifar10-jpeg"
EPOCHS = (10, 50, 200)
SIZE = {"dataset": DATASET, "image_size": 32, "backbone": "resnet18", "stem": "small"}
CONTROLS = grid(**SIZE, perturbation="none", epochs=0) + grid(
    dataset=DATASET, image_size=32, backbone="pixels", perturbation="none", epochs=0
)
PROTOCOLS = (Linear(), Knn())

EXHIBITS = [
    *(
        Table(
            name=f"cifar10-resnet18-{epochs}",
            caption=f"Every method once on a JPEG copy of CIFAR10 with ResNet-18, {epochs} epochs (%)",
            runs=FULL["list_runs"](factors=(1,), epochs=epochs, **SIZE) + CONTROLS,
            protocols=PROTOCOLS,
        )
        for epochs in EPOCHS
    ),
    Figure(
        name="cifar10-resnet18-passes",
        caption="Every method once on a JPEG copy of CIFAR10 with ResNet-18: error against encoder passes",
        runs=FULL["list_runs"](factors=(1,), epochs=EPOCHS, **SIZE),
        protocols=PROTOCOLS,
        x="encoder_passes",
        xlabel="Encoder passes per image",
        logx=True,
        lines="label",
    ),
]
