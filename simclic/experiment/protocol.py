"""The protocols: how a frozen encoder is turned into an error (Section 4.2)."""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from simclic.errors import InputError
from simclic.experiment.knob import Spec

CHECKPOINT_BYTES = 4e9  # at most in a checkpoint of fine-tuning, so that it takes seconds


@dataclass(frozen=True, kw_only=True)
class Linear(Spec):
    """Linear evaluation (Section 4.2): multinomial logistic regression on frozen features over a path of l2.

    l2 multiplies half the squared weights beside the summed cross-entropy; the intercept is not penalised. The paper says L-BFGS
    and gives no stopping rule, and where L-BFGS stops decides the number when l2 is weak.
    """

    stage: ClassVar[str] = "linear"

    solver: str = "converged"  # or "as-published": scikit-learn's L-BFGS as the baselines' source ran it, for their stored rows
    features: str = "float32"  # the precision in which the frozen backbone computes them; or "bf16"

    l2_low: float = 1e-6
    l2_high: float = 1e5
    l2_count: int = 45
    iterations: int = 2000  # converged: at most, per value
    tolerance: float = 1e-6  # converged: how far above its minimum an objective may be, as a share of it

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in sorted({"iterations", "tolerance"} & set(self.differing)) if self.solver == "as-published" else ():
            value = getattr(self, name)
            raise InputError(f"{name}={value!r} is read by nothing when solver='as-published'; leave it out")

    @property
    def title(self) -> str:
        """What its block of a table is called."""
        return "Linear evaluation" + (", as published" if self.solver == "as-published" else "")

    @property
    def l2(self) -> tuple[float, ...]:
        """The regularisation values, weakest first, both ends included."""
        return logspace(self.l2_low, self.l2_high, self.l2_count)

    @property
    def order(self) -> tuple[float, ...]:
        """The values as they are solved: from the strongest, or as published from the weakest. On equal error the first wins."""
        return self.l2 if self.solver == "as-published" else self.l2[::-1]

    @property
    def name(self) -> str:
        """The stem of the result file."""
        return f"{self.stage}-{self.digest}"


@dataclass(frozen=True, kw_only=True)
class Finetune(Spec):
    """Fine-tuning (Section 4.2): SGD with Nesterov momentum 0.9 over 7 learning rates x (7 weight decays and none)."""

    stage: ClassVar[str] = "finetune"
    title: ClassVar[str] = "Fine-tuned"

    steps: int = 5000
    batch_size: int = 128
    lr_low: float = 1e-4
    lr_high: float = 0.1
    lr_count: int = 7
    decay_low: float = 1e-6
    decay_high: float = 1e-3
    decay_count: int = 7  # besides no decay at all
    decay_over_lr: bool = True  # SGD is handed decay / lr, as the cited protocols do; the paper does not say
    momentum: float = 0.9
    augment: str = "crop+flip"  # of the training images; the paper says "slight modifications" of [11, 47]
    eval_resize: float = 1.0  # shorter side before the centre crop, in image sizes: 1 in [47], 256 / 224 in [11, 49]
    batch_norm: str = "train"  # "eval": its statistics stay those of the pre-training
    precision: str = "bf16"

    def side(self, image_size: int) -> int:
        """The shorter side, in pixels, to which images are resized before the centre crop."""
        return round(self.eval_resize * image_size)

    @property
    def settings(self) -> tuple[tuple[float, float], ...]:
        """Every (learning rate, weight decay), largest first: on equal error the earlier one is chosen."""
        rates = logspace(self.lr_low, self.lr_high, self.lr_count)[::-1]
        decays = (*logspace(self.decay_low, self.decay_high, self.decay_count)[::-1], 0.0)
        return tuple(product(rates, decays))

    @property
    def name(self) -> str:
        """The stem of the result file."""
        return f"{self.stage}-{self.digest}"


Protocol = Linear | Finetune
PROTOCOLS: dict[str, type[Linear] | type[Finetune]] = {"linear": Linear, "finetune": Finetune}


def logspace(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` values from `low` to `high`, both included exactly, equally far apart in the logarithm."""
    if count == 1:
        return (high,)
    inner = (low * (high / low) ** (i / (count - 1)) for i in range(1, count - 1))
    return (low, *inner, high) if count else ()
