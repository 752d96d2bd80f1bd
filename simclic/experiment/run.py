"""Run: one encoder and how it came about. Every axis of every exhibit, and every open question of the paper, is a field."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from typing import Any, ClassVar

from simclic.errors import InputError
from simclic.experiment.baselines import IMPORTED
from simclic.experiment.knob import STRENGTHS, Spec, check_names

# What nothing reads when nothing is trained.
TRAINING = frozenset(
    {"projector_dim", "predictor", "predictor_dim", "perturbs", "history_of", "bernoulli", "normalize_z", "similarity"}
    | {"stop_gradient", "batch_size", "base_lr", "lr_rule", "momentum", "weight_decay", "precision"}
)


FILES = (".safetensors", ".pth", ".pt", ".bin")


def is_file(init: str) -> bool:
    """Is a starting point named by its path?"""
    return "/" in init or init.endswith(FILES)


@dataclass(frozen=True, kw_only=True)
class Run(Spec):
    """One encoder and how it came about. The defaults are Section 3.4 and the paper's 5.92: CIFAR10, noise.

    A field that this Run never reads (eps under history, any field of training under epochs=0) must be left out:
    equal experiments have one name. Raises InputError with the value, the rule and the way out.
    """

    method: str = "simclic"
    # Data
    dataset: str = "cifar10"  # a name of simclic.data.FACTS, or the path of a folder of images
    split: str = "ericsson"  # "paper": 80/20, choose and report on the same 20 % as Section 4 reads
    difficult: str = "negative"  # VOC2007: a class of which only `difficult` objects are shown; "ignore" leaves it out
    image_size: int = 224  # pixels; the paper gives it for evaluation only
    # Encoder f = backbone + projector, predictor h (Section 3.4); widths are SimSiam's, the paper gives none
    backbone: str = "resnet50"  # a timm name, or "pixels": the image itself
    init: str = "random"  # or trained weights: a method that was imported, a timm name with its tag, a file; the paper is silent
    projector_dim: int = 2048
    predictor: str = "2-layer"
    predictor_dim: int = 512
    # Perturbation g (Section 3.2)
    perturbation: str = "noise"
    tau: float | None = None  # Eq. 1; 0.3 under history
    p: float | None = None  # Eq. 2; 0.25 under dropout
    eps: float | None = None  # Eq. 3; 0.1 under noise
    perturbs: str = "z"  # Algorithm 1 writes g(p); Section 3.3 and Eq. 1-6 perturb z
    history_of: str = "image"  # z^{t-1}: of the same image, or of the iteration before, position by position
    bernoulli: str = "drop"  # the text drops with probability p; "keep" multiplies by Bernoulli(p) as Eq. 2 prints
    normalize_z: bool = False  # True: noise on the unit sphere, so that eps does not depend on |z|
    # Loss (Eq. 4-7)
    similarity: str = "cosine"
    stop_gradient: bool = True
    # Optimisation (Section 3.4)
    epochs: int = 1000  # 0: nothing is trained, the backbone is a control
    batch_size: int = 128
    base_lr: float = 0.05
    lr_rule: str = "linear"  # lr = base_lr * batch_size / 256 as in SimSiam; "as-is": lr = base_lr
    momentum: float = 0.9
    weight_decay: float = 0.001
    precision: str = "bf16"
    seed: int = 0

    # What Table 3 lists and SimCLIC does without
    momentum_encoder: ClassVar[bool] = False
    data_augmentation: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs == 0 and self.perturbation != "none":
            raise InputError(f"perturbation={self.perturbation!r} with epochs=0: nothing is trained; say perturbation='none'")
        if self.backbone == "pixels" and self.epochs != 0:
            raise InputError(f"epochs={self.epochs} with backbone='pixels': pixels are not trained; say epochs=0")
        for name in sorted(set(self.differing) & self.unread):
            raise InputError(f"{name}={getattr(self, name)!r} is read by nothing when {self._why_unread(name)}; leave it out")
        if self.perturbation in STRENGTHS:
            strength, default = STRENGTHS[self.perturbation]
            if getattr(self, strength) is None:
                object.__setattr__(self, strength, default)

    @classmethod
    def known(cls, values: Mapping[str, Any]) -> "Run":
        """As parse, but equal values are one Run, made once: a report reads thousands of results of few Runs."""
        try:
            return _known(tuple((k, v, type(v)) for k, v in values.items()))  # True is not 1
        except TypeError as e:  # a list or the like, which no field takes
            raise InputError(f"run: {e}") from e

    @property
    def unread(self) -> frozenset[str]:
        """The fields that nothing reads in this Run, so that they cannot make two names for one experiment."""
        names = {strength for g, (strength, _) in STRENGTHS.items() if g != self.perturbation}
        names |= {"history_of"} if self.perturbation != "history" else set()
        names |= {"bernoulli"} if self.perturbation != "dropout" else set()
        names |= {"normalize_z"} if self.perturbation != "noise" else set()
        names |= {"perturbs"} if self.perturbation == "none" else set()
        names |= {"difficult"} if self.dataset != "voc2007" else set()
        names |= {"predictor_dim"} if self.predictor in ("none", "1-layer") else set()
        if self.epochs == 0:
            names |= TRAINING
        if self.backbone == "pixels":
            names |= {"init", "seed"}
        return frozenset(names)

    def _why_unread(self, name: str) -> str:
        if self.epochs == 0 and name in TRAINING:
            return "epochs=0"
        if self.backbone == "pixels" and name in ("init", "seed"):
            return "backbone='pixels'"
        if name == "difficult":
            return f"dataset={self.dataset!r}"
        if name == "predictor_dim":
            return f"predictor={self.predictor!r}"
        return f"perturbation={self.perturbation!r}"

    @property
    def differing(self) -> dict[str, Any]:
        """As for every spec; the strength of the perturbation counts when it differs from the perturbation's default."""
        values = super().differing
        strength, default = STRENGTHS.get(self.perturbation, ("", 0.0))
        if values.get(strength) == default:
            del values[strength]
        return values

    @property
    def kind(self) -> str:
        """What tells this encoder apart at a glance: the perturbation, or which control it is."""
        if self.epochs:
            return "identity" if self.perturbation == "none" else self.perturbation
        if self.backbone == "pixels":
            return "pixels"
        return "untrained" if self.init == "random" else _slug(self.init)

    @cached_property
    def name(self) -> str:
        """The folder of this Run: readable, then exact."""
        return f"{_slug(self.dataset)}-{self.kind}-{self.digest}"

    @property
    def label(self) -> str:
        """The row of Table 2."""
        if self.epochs:
            start = "" if self.init == "random" else f" from {_shown(self.init)}"
            return f"SimCLIC ({'no perturbation' if self.perturbation == 'none' else self.perturbation}){start}"
        return {"untrained": "Untrained backbone", "pixels": "Raw pixels"}.get(self.kind, _shown(self.init))

    @property
    def lr(self) -> float:
        """The learning rate at the first step."""
        return self.base_lr * self.batch_size / 256 if self.lr_rule == "linear" else self.base_lr

    @property
    def projection_head(self) -> bool:
        """Table 3: does a projection head follow the backbone?"""
        return self.epochs > 0

    @property
    def memory_bank(self) -> bool:
        """Table 3: is one vector kept per image? The paper prints no; with history there is one (Eq. 1)."""
        return self.perturbation == "history" and self.history_of == "image"

    def moved(self, **changes: Any) -> "tuple[Run, ...]":
        """This Run with some fields changed: a value, a function of the old value, or a tuple for one Run each.

        Fields that this Run does not read stay as they are.
        """
        check_names(Run, changes)
        options = {}
        for name, change in changes.items():
            if name not in self.unread:
                value = change(getattr(self, name)) if callable(change) else change
                options[name] = value if isinstance(value, tuple) else (value,)
        return tuple(replace(self, **_unset(self, values)) for values in combinations(options))


@cache
def _known(items: tuple[tuple[str, Any, type], ...]) -> Run:
    return Run.parse({k: v for k, v, _ in items})


def _last(name: str) -> str:
    """The last part of a path."""
    return name.rstrip("/").rsplit("/", 1)[-1]


def _shown(init: str) -> str:
    """What a starting point is called in a table: a published method by its name, a file by its own."""
    if init in IMPORTED:
        return IMPORTED[init]
    name = _last(init).rsplit(".", 1)[0] if is_file(init) else _last(init)
    return f"{name} (a file)" if name in IMPORTED.values() else name  # it is not what the paper prints


def _slug(name: str) -> str:
    """A name, or the last part of a path, as a part of a file's name."""
    return re.sub("[^a-z0-9_.]+", "-", _last(name).lower()).strip("-.") or "folder"


def grid(**axes: Any) -> tuple[Run, ...]:
    """Every Run with one value from each axis; a tuple is an axis, anything else a constant. Last axis fastest."""
    check_names(Run, axes)
    return tuple(Run(**v) for v in combinations({n: v if isinstance(v, tuple) else (v,) for n, v in axes.items()}))


def combinations(options: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """One dict for every way to take a value from each option, the last option fastest."""
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]


def _unset(run: Run, changes: dict[str, Any]) -> dict[str, Any]:
    """`changes`, plus None for the old perturbation's strength when the perturbation itself changes."""
    new = changes.get("perturbation", run.perturbation)
    if new == run.perturbation or run.perturbation not in STRENGTHS:
        return changes
    return {STRENGTHS[run.perturbation][0]: None, **changes}
