"""Run: one encoder and how it came about. Every axis of every exhibit, and every open question of the paper, is a field."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from simclic.errors import InputError
from simclic.experiment.baselines import IMPORTED
from simclic.experiment.declared import AUGMENTING, ERRORS, METHODS, PERTURBATIONS, by, unset_dependent, with_declared_knobs
from simclic.experiment.knob import Spec, check_names, combinations, knob
from simclic.experiment.names import make_slug, start_title

UNTRAINED, PIXELS = {"epochs": (0,)}, {"backbone": ("pixels",)}  # nothing is trained; there is no backbone
PLOTTABLE = ("encoder_passes", "lr")  # properties that the x axis of a figure may show, besides fields
TRAINED_HERE = " (trained here)"  # behind the label of a method of which the paper prints a row, trained on other images


@dataclass(frozen=True, kw_only=True)
@with_declared_knobs
class Run(Spec):
    """One encoder and how it is trained. The defaults are Section 3.4 and give the paper's 5.92 % on CIFAR10 with noise.

    A field without effect (eps with history, any training field with epochs=0) must be left out, so that equal experiments have
    one name. Raise InputError, with the value, the rule and the way out, for a value that is not allowed. The strength of each
    perturbation and the fields of single methods are declared in simclic/methods/.
    """

    # fmt: off
    no_fields = dict.fromkeys(("views", "augment", "augmentation"), "SimCLIC on two augmented views: method='simclic-two-views'")
    method: str = knob("simclic", "how the encoder is trained", choices=tuple(METHODS))
    # Data
    dataset: str = knob("cifar10", "a name of simclic.data.FACTS, a folder of images, or PATH/** for all in it, without labels")
    split: str = knob(
        "ericsson", "which images are trained on, chosen on, and reported on", choices=("ericsson", "paper"),
        question="Split", paper="“validation set”, a random 80 % where undefined",
        why="comparable with the stored baselines; pre-trained on train + val, never on test. “paper” takes the makers' train "
        "and val where they define both, else 80 and 20 % of all images, and reports on what it chooses on",
    )
    difficult: str = knob(
        "negative", "images of VOC2007 that show only `difficult` objects of a class: they do not show it, or are left out",
        choices=("negative", "ignore"), read_if={"dataset": ("voc2007",)}, question="Objects marked difficult in VOC2007",
        why="as the cited baselines: a class of which only such objects are shown counts as not shown; VOC leaves it out",
    )
    image_size: int = knob(
        224, "pixels along a side", low=1, high=4096, question="Image size in pre-training",
        why="that of evaluation: shorter side resized, centre crop, no augmentation",
    )
    views_from: str = knob(
        "square", "what augmented views are cut from: the centre square of image_size, or the whole image, its shorter side "
        "at 8/7 of image_size, which is 256 for 224", choices=("square", "whole"), read_if={"method": AUGMENTING},
        unread_if={**UNTRAINED, "dataset": ("cifar10", "cifar100", "digits")},
    )
    # Encoder f = backbone + projector, predictor h (Section 3.4)
    backbone: str = knob("resnet50", "a timm name, or “pixels”: the image itself")
    stem: str = knob(
        "default", "the backbone's first layers; “small”: one 3 x 3 convolution of stride 1 without pooling, as every published "
        "number on CIFAR at 32 pixels has it (ResNets)", choices=("default", "small"), unread_if=PIXELS,
    )
    init: str = knob(
        "random", "or trained weights: a method that was imported, a timm name with its tag, a file", unread_if=PIXELS,
        question="Initialisation", paper="“pre-training on the training set”",
        why="what the words say; some of the paper's numbers suggest ImageNet weights",
    )
    projector_dim: int = knob(
        2048, "width of the projector: the length d of z", low=1, high=65536, unread_if=UNTRAINED, also=("predictor_dim",),
        question="Widths of projector and predictor", paper="layers and batch norms only",
        why="SimSiam's, which the paper follows",
    )
    predictor: str = knob(
        "2-layer", "h", choices=("none", "frozen", "1-layer", "2-layer"), read_if=by("predictor"), unread_if=UNTRAINED,
        question="Predictor “1-layer”", why="one linear layer, d to d; an output layer has no batch norm",
    )
    predictor_dim: int = knob(
        512, "width of the predictor's hidden layer", low=1, high=65536, unread_if=UNTRAINED,
        read_if=by("predictor_dim", predictor=("frozen", "2-layer")),
    )
    hidden_dim: int = knob(
        2048, "width of the hidden layers of projector and predictor", low=1, high=65536, read_if=by("hidden_dim"),
        unread_if=UNTRAINED,
    )
    # Perturbation g (Section 3.2)
    perturbation: str = knob("noise", "g", choices=tuple(PERTURBATIONS), read_if=by("perturbation"))
    perturbs: str = knob(
        "z", "what g perturbs", choices=("z", "p"), read_if=by("perturbs"), unread_if={**UNTRAINED, "perturbation": ("none",)},
        question="What g perturbs", paper="Algorithm 1: g(p). Section 3.3, Eq. 1-6: g(z)", why="equations and text agree",
    )
    history_of: str = knob(
        "image", "whose z^{t-1}: of the same image, or of the iteration before, position by position",
        choices=("image", "iteration"), read_if=by("history_of", perturbation=("history",)), unread_if=UNTRAINED,
        question="z of the iteration before", paper="“the previous iteration”",
        why="only the same image's last z is defined per image; at the first visit, z itself",
    )
    bernoulli: str = knob(
        "drop", "p is the probability to drop, or to keep, as Eq. 2 prints", choices=("drop", "keep"),
        read_if=by("bernoulli", perturbation=("dropout",)), unread_if=UNTRAINED,
        question="Bernoulli(p)", paper="dropped with probability p, but multiplied by Bernoulli(p)",
        why="the text, and errors that rise with p",
    )
    normalize_z: bool = knob(
        False, "noise on the unit sphere, so that eps does not depend on |z|",
        read_if=by("normalize_z", perturbation=("noise",)), unread_if=UNTRAINED,
        question="Size of the noise", paper="norm ε on z as it is", why="literal; |z| is about √d, so ε = 0.1 hardly turns z",
    )
    # Loss (Eq. 4-7)
    similarity: str = knob(
        "cosine", "of p and the perturbed z", choices=("cosine", "cross-entropy"),
        read_if=by("similarity"), unread_if=UNTRAINED,
    )
    stop_gradient: bool = knob(True, "no gradient reaches the target", read_if=by("stop_gradient"), unread_if=UNTRAINED)
    temperature: float = knob(
        0.1, "by which similarities are divided before the softmax", low=1e-4, high=100.0, read_if=by("temperature"),
        unread_if=UNTRAINED,
    )
    # What methods keep beside the encoder
    target_momentum: float = knob(
        0.99, "share of itself that the momentum encoder keeps in a step", low=0.0, high=1.0, read_if=by("target_momentum"),
        unread_if=UNTRAINED,
    )
    target_schedule: str = knob(
        "cosine", "that share rises to 1 by a cosine, or stays", choices=("cosine", "constant"),
        read_if=by("target_schedule"), unread_if=UNTRAINED,
    )
    queue_size: int = knob(
        0, "keys of earlier batches; 0: the largest power of two up to half of the images beyond a batch, at most 4,096 or a "
        "sixteenth of the images, which is ImageNet's 65,536", low=0, high=10**7, read_if=by("queue_size"), unread_if=UNTRAINED,
    )
    prototypes: int = knob(
        0, "vectors that images are assigned to; 0: a tenth of the images, at most the method's number",
        low=0, high=10**6, read_if=by("prototypes"), unread_if=UNTRAINED,
    )
    frozen_prototypes: int = knob(
        1, "epochs at first in which the prototypes stay as they are", low=0, high=10**6, read_if=by("frozen_prototypes"),
        unread_if=UNTRAINED,
    )
    norm_groups: int = knob(
        1, "parts of a batch that batch norm sees apart, as on as many GPUs", low=1, high=1024, read_if=by("norm_groups"),
        unread_if=UNTRAINED,
    )
    # Optimisation (Section 3.4)
    epochs: int = knob(1000, "passes over the data; 0: nothing is trained, the backbone is a control", low=0, high=10**6)
    batch_size: int = knob(128, "images in a step; batch norm needs two", low=2, high=10**6, unread_if=UNTRAINED)
    base_lr: float = knob(
        0.05, "learning rate before its rule", low=0.0, unread_if=UNTRAINED, also=("lr_rule",),
        question="Learning rate", paper="“base learning rate 0.05”",
        why="SimSiam's rule for a base rate: times batch / 256; the cosine falls with every step",
    )
    lr_rule: str = knob(
        "linear", "base_lr * batch_size / 256 as in SimSiam, base_lr * sqrt(batch_size) as in SimCLR v2, or base_lr as it is",
        choices=("linear", "sqrt", "as-is"), unread_if=UNTRAINED,
    )
    warmup_epochs: int = knob(
        0, "epochs in which the learning rate rises from 0, before the cosine", low=0, high=10**6, unread_if=UNTRAINED
    )
    optimizer: str = knob(
        "sgd", "“lars” scales each layer's step to its weights (trust .001) and decays no bias or norm; “larc” likewise, trust "
        ".02 and never beyond the rate itself, as solo-learn's recipes for small data", choices=("sgd", "lars", "larc"),
        unread_if=UNTRAINED,
    )
    momentum: float = knob(0.9, "of the optimiser", low=0.0, high=1.0, unread_if=UNTRAINED)
    weight_decay: float = knob(0.001, "of the optimiser", low=0.0, unread_if=UNTRAINED)
    precision: str = knob(
        "bf16", "of the training", choices=("bf16", "float32"), unread_if=UNTRAINED,
        question="Precision of the training", why="bf16 halves the time; float32 by choice",
    )
    seed: int = knob(0, "of weights, order and draws", low=0, high=2**31 - 1, unread_if=PIXELS)
    # fmt: on

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # the fields that methods and perturbations declare

    def __post_init__(self) -> None:
        if ERRORS:
            raise ERRORS[0]
        if self.epochs == 0 and self.method != "simclic":
            raise InputError(f"method={self.method!r} has no effect with epochs=0; remove it")
        super().__post_init__()
        if METHODS[self.method].halves and self.init != "random":
            raise InputError(f"init={self.init!r} with method={self.method!r}: its encoders are half as wide; remove init")
        if self.epochs == 0 and self.perturbation != "none":
            raise InputError(f"perturbation={self.perturbation!r} with epochs=0: nothing is trained; set perturbation='none'")
        if self.backbone == "pixels" and self.epochs != 0:
            raise InputError(f"epochs={self.epochs} with backbone='pixels': pixels are not trained; set epochs=0")
        if self.warmup_epochs >= max(1, self.epochs):
            raise InputError(f"warmup_epochs={self.warmup_epochs} with epochs={self.epochs}: must be fewer; set warmup_epochs=0")

    @classmethod
    def known(cls, values: Mapping[str, Any]) -> "Run":
        """Return the Run with these values, cached: a report reads thousands of results of few Runs."""
        try:
            return _parse_cached(tuple((k, v, type(v)) for k, v in values.items()))  # True is not 1
        except TypeError as e:  # a list or the like, which no field takes
            raise InputError(f"run: {e}") from e

    @property
    def kind(self) -> str:
        """The short kind of this encoder: its perturbation, its method, or which control it is."""
        if self.epochs:
            g = "" if self.why_unread("perturbation") else "identity" if self.perturbation == "none" else self.perturbation
            return "-".join(filter(None, ("" if self.method == "simclic" else self.method, g)))
        if self.backbone == "pixels":
            return "pixels"
        return "untrained" if self.init == "random" else make_slug(self.init)

    @cached_property
    def name(self) -> str:
        """The name of this Run's folder: data set and kind, then a hash of all fields that are not defaults."""
        return f"{make_slug(self.dataset)}-{self.kind}-{self.digest}"

    @property
    def title(self) -> str:
        """The method, as Table 3 prints it."""
        return METHODS[self.method].title

    @property
    def label(self) -> str:
        """The row label in Table 2."""
        if not self.epochs:
            return {"untrained": "Untrained backbone", "pixels": "Raw pixels"}.get(self.kind, start_title(self.init))
        start = "" if self.init == "random" else f" from {start_title(self.init)}"
        g = "" if self.why_unread("perturbation") else {"none": "no perturbation"}.get(self.perturbation, self.perturbation)
        return self.title + (f" ({g})" if g else "") + (TRAINED_HERE if self.title in IMPORTED.values() else "") + start

    @property
    def lr(self) -> float:
        """The learning rate at the first step."""
        if self.lr_rule == "sqrt":
            return self.base_lr * self.batch_size**0.5
        return self.base_lr * self.batch_size / 256 if self.lr_rule == "linear" else self.base_lr

    @property
    def whole_side(self) -> int:
        """Pixels of the shorter side of the whole images that views are cut from; 0 if they are cut from centre squares."""
        return whole_side(self.image_size) if self.views_from == "whole" else 0

    @property
    def network(self) -> str:
        """The backbone with its stem, which is what a pass through it costs."""
        stem = " with the small stem" if self.stem == "small" else ""
        return self.backbone + stem + (" in two halves" if METHODS[self.method].halves else "")

    @property
    def passes(self) -> int:
        """The passes of an image through an encoder in one step, with and without a gradient."""
        return METHODS[self.method].passes + METHODS[self.method].target_passes

    @property
    def encoder_passes(self) -> int:
        """The passes of an image through an encoder in the whole training."""
        return self.epochs * self.passes

    @property
    def projection_head(self) -> bool:
        """Whether a projection head follows the backbone (Table 3)."""
        return self.epochs > 0

    @property
    def memory_bank(self) -> bool:
        """Whether one vector per image is stored (Table 3). The paper prints no; with history there is one (Eq. 1)."""
        return METHODS[self.method].memory_bank or (self.perturbation == "history" and self.history_of == "image")

    @property
    def momentum_encoder(self) -> bool:
        """Whether a second encoder follows the first as a moving average (Table 3)."""
        return METHODS[self.method].momentum_encoder

    @property
    def data_augmentation(self) -> bool:
        """Whether images are augmented in pre-training (Table 3)."""
        return METHODS[self.method].views > 0

    def moved(self, **changes: Any) -> "tuple[Run, ...]":
        """Return this Run with some fields changed: to a value, by a function of the old value, or one Run for each of a tuple.

        Fields without effect in this Run stay unchanged.
        """
        check_names(Run, changes)
        options = {}
        for name, change in changes.items():
            if name not in self.unread:
                value = change(getattr(self, name)) if callable(change) else change
                options[name] = value if isinstance(value, tuple) else (value,)
        return tuple(replace(self, **unset_dependent(self, values)) for values in combinations(options))


def whole_side(image_size: int) -> int:
    """Return pixels of the shorter side of the whole images from which views of image_size are cut."""
    return round(image_size * 8 / 7)


@cache
def _parse_cached(items: tuple[tuple[str, Any, type], ...]) -> Run:
    return Run.parse({k: v for k, v, _ in items})


def grid(**axes: Any) -> tuple[Run, ...]:
    """Return every Run with one value from each axis. A tuple is an axis, anything else a constant; the last axis is fastest."""
    check_names(Run, axes)
    return tuple(Run(**v) for v in combinations({n: v if isinstance(v, tuple) else (v,) for n, v in axes.items()}))
