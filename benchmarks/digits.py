"""SimCLIC in miniature: scikit-learn's digits

The nine exhibits of the paper on 1,797 real images of 8 x 8 pixels that every installation has: same declarations, another
data set, timm's smallest ResNet and 6 epochs for 1,000. Minutes on a laptop.

Backbone, image size, epochs and base_lr were chosen among a few on the validation images, with noise and seeds 0-2 only, for
what can be learned in the time: 6 epochs are 66 steps, and base_lr 0.05 moves too little in them.

    simclic run benchmarks/digits.py
"""

from pathlib import Path

from simclic import load

HERE = Path(__file__).parent
SMALL = {
    "dataset": "digits",
    "image_size": {224: 16, 32: 8}.get,  # raw pixels stay as they are
    "backbone": {"resnet50": "test_resnet", "pixels": "pixels"}.get,
    "projector_dim": 256,
    "predictor_dim": 64,
    "epochs": lambda epochs: epochs // 150,
    "base_lr": 0.4,
    "precision": "float32",
    "finetune": {
        "steps": 48,
        "lr_low": 0.03,
        "lr_count": 2,
        "decay_count": 1,
        "augment": "none",
        "precision": "float32",
    },  # a mirrored 2 is no digit
}


def shrink_exhibit(stem, **changes):
    """One exhibit of the paper, made small."""
    (paper_exhibit,) = load(HERE / f"{stem}.py").exhibits
    return paper_exhibit.moved(**SMALL, **changes)


EXHIBITS = [
    shrink_exhibit("table2", seed=(0, 1, 2)),
    *(shrink_exhibit(f"table{n}") for n in (3, 4, 5, 6)),
    shrink_exhibit("figure4").where(tau=(0.1, 0.2, 0.3, 0.6)),
    shrink_exhibit("figure5").where(p=(0.1, 0.2, 0.25, 0.4)),
    shrink_exhibit("figure6").where(eps=(0.01, 0.1, 0.5, 1.0)),
    shrink_exhibit("figure7").where(batch_size=(32, 64, 128), epochs=(3, 4, 6)),
]
