"""The evaluation protocols: how the error of a pre-trained encoder is measured (Section 4.2)."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import ClassVar, Self

from simclic.experiment.knob import Spec, knob, list_knobs

POSITIVE = 1e-300
CONVERGED = {"solver": ("converged",)}
CHECKPOINT_BYTES = 4e9  # at most in a checkpoint of fine-tuning, so that it takes seconds


@dataclass(frozen=True, kw_only=True)
class Evaluation(Spec):
    """Base class of the protocols.

    stage: the name of its results. word: what messages call it. section: of a profile, which says what its jobs ask of a node.
    """

    stage: ClassVar[str]
    word: ClassVar[str]
    section: ClassVar[str]

    # fmt: off
    on: str = knob("", "the data set that is evaluated on, as in Run.dataset, by the Run's split rule; empty: the Run's own")
    difficult: str = knob(
        "negative", "as in Run.difficult, of the data set that is evaluated on", choices=("negative", "ignore"),
        read_if={"on": ("voc2007",)},
    )
    # fmt: on

    @property
    def name(self) -> str:
        """The stem of the result file."""
        return f"{self.stage}-{self.digest}"

    @cached_property
    def plain(self) -> Self:
        """This protocol on the Run's own data set."""
        return replace(self, on="", difficult="negative") if self.on else self


@dataclass(frozen=True, kw_only=True)
class Linear(Evaluation):
    """Linear evaluation (Section 4.2): multinomial logistic regression on frozen features over a path of l2.

    l2 multiplies half the squared weights beside the summed cross-entropy; the intercept is not penalised. The paper says L-BFGS
    and gives no stopping rule, and where L-BFGS stops decides the number when l2 is weak.
    """

    stage = word = section = "linear"

    # fmt: off
    solver: str = knob(
        "converged", "solved to `tolerance`, or L-BFGS as the source of the baselines' stored rows ran it",
        choices=("converged", "as-published"), question="Where the linear probe's solver stops", paper="“L-BFGS”",
        why="at a proven share of the minimum, so that a number does not depend on where a solver happened to stop; "
        "“as-published” stops after 100 iterations, as the source of the stored rows does", also=("tolerance",),
    )
    features: str = knob(
        "float32", "the precision in which the frozen backbone computes them", choices=("float32", "bf16"),
        question="Precision of the frozen features", why="as exact as the images",
    )
    l2_low: float = knob(1e-6, "the weakest value", low=POSITIVE)
    l2_high: float = knob(1e5, "the strongest value", low=POSITIVE)
    l2_count: int = knob(45, "how many values", low=1, high=1000)
    iterations: int = knob(2000, "at most, per value", low=1, high=10**6, read_if=CONVERGED)
    tolerance: float = knob(
        1e-6, "how far above its minimum an objective may be, as a share of it", low=0.0, high=1.0, read_if=CONVERGED
    )
    # fmt: on

    @property
    def title(self) -> str:
        """The title of its block in a table."""
        return "Linear evaluation" + (", as published" if self.solver == "as-published" else "")

    @property
    def l2(self) -> tuple[float, ...]:
        """The regularisation values, weakest first, both ends included."""
        return logspace(self.l2_low, self.l2_high, self.l2_count)

    @property
    def order(self) -> tuple[float, ...]:
        """The values in solving order: strongest first; as published, weakest first. On ties the first wins."""
        return self.l2 if self.solver == "as-published" else self.l2[::-1]


@dataclass(frozen=True, kw_only=True)
class Finetune(Evaluation):
    """Fine-tuning (Section 4.2): SGD with Nesterov momentum 0.9 over 7 learning rates x (7 weight decays and none)."""

    stage, word, section = "finetune", "fine-tuned", "finetune"
    title: ClassVar[str] = "Fine-tuned"

    # fmt: off
    steps: int = knob(5000, "of each training", low=1, high=10**7)
    batch_size: int = knob(128, "images in a step, or all if there are fewer; batch norm needs two", low=2, high=10**6)
    lr_low: float = knob(1e-4, "the smallest learning rate", low=POSITIVE)
    lr_high: float = knob(0.1, "the largest learning rate", low=POSITIVE)
    lr_count: int = knob(7, "how many learning rates", low=1, high=1000)
    decay_low: float = knob(1e-6, "the smallest weight decay", low=POSITIVE)
    decay_high: float = knob(1e-3, "the largest weight decay", low=POSITIVE)
    decay_count: int = knob(7, "how many weight decays, besides none at all", low=0, high=1000)
    decay_over_lr: bool = knob(
        True, "SGD is handed decay / lr", question="Weight decay in fine-tuning", paper="seven values and none",
        why="the cited protocols hand SGD the value divided by the learning rate",
    )
    momentum: float = knob(0.9, "of SGD", low=0.0, high=1.0)
    augment: str = knob(
        "crop+flip", "of the training images", choices=("crop+flip", "none"),
        question="Augmentation in fine-tuning", paper="“slight modifications” of the cited protocols",
        why="theirs: random resized crop (8 to 100 % of the area, aspect 3/4 to 4/3, bicubic) of the whole image, and flip",
    )
    eval_resize: float = knob(
        1.0, "shorter side before the centre crop, in image sizes: 1 in [47], 256 / 224 in [11, 49]", low=1.0, high=4.0,
        question="Resizing before the centre crop, in fine-tuning",
        why="the shorter side to the crop's own size, as the source of the stored rows; SimCLR and BYOL resize to 256 for 224",
    )
    batch_norm: str = knob(
        "train", "“eval”: its statistics stay those of the pre-training", choices=("train", "eval"),
        question="Batch norm in fine-tuning", why="its statistics follow the training images, as everywhere cited",
    )
    precision: str = knob("bf16", "of the training", choices=("bf16", "float32"))
    # fmt: on

    def resize_side(self, image_size: int) -> int:
        """Return the shorter side, in pixels, to which images are resized before the centre crop."""
        return round(self.eval_resize * image_size)

    @property
    def settings(self) -> tuple[tuple[float, float], ...]:
        """Every (learning rate, weight decay), largest first: on equal error the earlier one is chosen."""
        rates = logspace(self.lr_low, self.lr_high, self.lr_count)[::-1]
        decays = (*logspace(self.decay_low, self.decay_high, self.decay_count)[::-1], 0.0)
        return tuple(product(rates, decays))


@dataclass(frozen=True, kw_only=True)
class Knn(Evaluation):
    """k nearest neighbours on frozen features (Wu et al., 2018, Section 3.4): nothing is trained and nothing chosen.

    The k nearest images of the bank, by the cosine s of their features, vote for their classes with weight exp(s / T). For the
    error on val the bank is train; for the error on test it is train + val. The paper prints no such numbers.
    """

    stage, word, section = "knn", "kNN", "linear"

    # fmt: off
    k: int = knob(
        200, "neighbours that vote: 200 in InsDis (Wu et al., 2018) and since; 20 is usual for small data sets", low=1, high=10**6
    )
    temperature: float = knob(
        0.07, "T of a vote exp(cosine / T), InsDis's; from 0.025 on, a vote is a number in float32", low=0.025, high=100.0
    )
    features: str = knob("float32", "the precision in which the frozen backbone computes them", choices=("float32", "bf16"))
    # fmt: on

    @property
    def title(self) -> str:
        """The title of its block in a table."""
        return "k-nearest neighbours" + (f", k {self.k}" if self.k != list_knobs(Knn)["k"].default else "")


Protocol = Linear | Finetune | Knn
OnFeatures = Linear | Knn  # the protocols that read the frozen features of all images
PROTOCOLS: dict[str, type[Linear] | type[Finetune] | type[Knn]] = {p.stage: p for p in (Linear, Finetune, Knn)}


def logspace(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return `count` values from `low` to `high`, both included exactly, with equal ratios."""
    if count == 1:
        return (high,)
    inner = (low * (high / low) ** (i / (count - 1)) for i in range(1, count - 1))
    return (low, *inner, high) if count else ()
