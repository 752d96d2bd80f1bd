"""The nouns: Run (one encoder and how it came about), the protocols Linear and Finetune, Table, Figure, grid, Suite.

Standard library only, so that planning and reporting never wait for torch.
"""

import hashlib
import itertools
import json
import math
import runpy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self


class InputError(ValueError):
    """A user's mistake, told in one line: the value, the rule, the way out."""


class Diverged(ArithmeticError):
    """A training whose loss is not finite any more: a result of sorts, and no mistake of the user's."""


Tell = Callable[[float, str], None]  # how long work reports: the share that is done, 0-1, and a word about it


# The strength of each perturbation and its default. Section 3.2 gives p = 0.25 "for example" and neither tau nor eps:
# placeholders, to be replaced by what the sweeps of Figures 4-6 show.
STRENGTHS: dict[str, tuple[str, float]] = {"history": ("tau", 0.3), "dropout": ("p", 0.25), "noise": ("eps", 0.1)}

CHOICES: dict[str, tuple[str, ...]] = {
    "split": ("ericsson", "paper"),
    "predictor": ("none", "frozen", "1-layer", "2-layer"),
    "perturbation": (*STRENGTHS, "none"),
    "history_of": ("image", "iteration"),
    "bernoulli": ("drop", "keep"),
    "perturbs": ("z", "p"),
    "similarity": ("cosine", "cross-entropy"),
    "lr_rule": ("linear", "as-is"),
    "precision": ("bf16", "float32"),
    "augment": ("crop+flip", "none"),
}

# Lowest and highest value, both allowed. Eq. 1 has tau in [0, 1).
RANGES: dict[str, tuple[float, float]] = {
    "image_size": (1, 4096),
    "tau": (0.0, math.nextafter(1.0, 0.0)),
    "p": (0.0, 1.0),
    "eps": (0.0, math.inf),
    "projector_dim": (1, 65536),
    "predictor_dim": (1, 65536),
    "epochs": (0, 10**6),
    "batch_size": (2, 10**6),  # batch norm needs two images
    "base_lr": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "weight_decay": (0.0, math.inf),
    "seed": (0, 2**31 - 1),
    "l2_low": (1e-300, math.inf),
    "l2_high": (1e-300, math.inf),
    "l2_count": (1, 1000),
    "iterations": (1, 10**6),
    "tolerance": (0.0, 1.0),
    "steps": (1, 10**7),
    "lr_low": (1e-300, math.inf),
    "lr_high": (1e-300, math.inf),
    "lr_count": (1, 1000),
    "decay_low": (1e-300, math.inf),
    "decay_high": (1e-300, math.inf),
    "decay_count": (0, 1000),
}


def _known(spec: type, names: Mapping[str, Any]) -> None:
    """Raise InputError if a name is no field of `spec`."""
    known = [f.name for f in fields(spec)]
    for name in names:
        if name not in known:
            near: list[str] = get_close_matches(name, known, 1)
            raise InputError(
                f"{name!r} is no field of {spec.__name__}; "
                + (f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}")
            )


def _checked(name: str, value: Any, kind: Any) -> Any:
    """The value of a field in its declared type, or InputError."""
    wants_float, wants_int = kind in (float, float | None), kind is int
    if wants_float and type(value) is int:
        value = float(value)  # 1 and 1.0 are one experiment
    accepted = float if wants_float else kind
    if type(value) is not accepted:
        raise InputError(f"{name}={value!r} is {type(value).__name__}, not {accepted.__name__}")
    if name in CHOICES and value not in CHOICES[name]:
        raise InputError(f"{name}={value!r} is not one of {', '.join(CHOICES[name])}")
    if (wants_float or wants_int) and name in RANGES:
        low, high = RANGES[name]
        if not low <= value <= high or not math.isfinite(value):
            bound = (
                "[0, 1)" if name == "tau" else f"[{low:g}, {high:g}]" if math.isfinite(high) else f"at least {low:g} and finite"
            )
            raise InputError(f"{name}={value!r} is out of range: {'' if 'least' in bound else 'it lies in '}{bound}")
    return value


class _Spec:
    """What Run and the protocols share: every field is checked on the way in, and the fields that differ give a name."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if value is not None or f.default is not None:
                object.__setattr__(self, f.name, _checked(f.name, value, f.type))

    @property
    def differing(self) -> dict[str, Any]:
        """The fields whose value is not the default: what an experiment's declaration says, and what its name hashes."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) != f.default}  # type: ignore[arg-type]

    @cached_property
    def digest(self) -> str:
        """Ten hex digits of the SHA-256 over `differing`."""
        return hashlib.sha256(json.dumps(self.differing, sort_keys=True).encode()).hexdigest()[:10]

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """The spec that `dataclasses.asdict` turned into `values`. Raises InputError for unknown fields and bad values."""
        _known(cls, values)
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Run(_Spec):
    """One encoder and how it came about. The defaults are Section 3.4 and the paper's 5.92: CIFAR10, noise.

    A field that this Run never reads (eps under history, any field of training under epochs=0) must be left out:
    equal experiments have one name. Raises InputError with the value, the rule and the way out.
    """

    # Data
    dataset: str = "cifar10"
    split: str = "ericsson"  # "paper": 80/20, choose and report on the same 20 % as Section 4 reads
    image_size: int = 224  # pixels; the paper gives it for evaluation only
    # Encoder f = backbone + projector, predictor h (Section 3.4); widths are SimSiam's, the paper gives none
    backbone: str = "resnet50"  # a timm name, or "pixels": the image itself
    init: str = "random"  # the paper does not say
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

    @property
    def unread(self) -> frozenset[str]:
        """The fields that nothing reads in this Run, so that they cannot make two names for one experiment."""
        names = {strength for g, (strength, _) in STRENGTHS.items() if g != self.perturbation}
        names |= {"history_of"} if self.perturbation != "history" else set()
        names |= {"bernoulli"} if self.perturbation != "dropout" else set()
        names |= {"normalize_z"} if self.perturbation != "noise" else set()
        names |= {"perturbs"} if self.perturbation == "none" else set()
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
        return "untrained" if self.init == "random" else self.init

    @property
    def name(self) -> str:
        """The folder of this Run: readable, then exact."""
        return f"{self.dataset}-{self.kind}-{self.digest}"

    @property
    def method(self) -> str:
        """The row of Table 2."""
        if self.epochs:
            return f"SimCLIC ({'no perturbation' if self.perturbation == 'none' else self.perturbation})"
        return {"untrained": "Untrained backbone", "pixels": "Raw pixels"}.get(self.kind, self.init)

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
        _known(Run, changes)
        options = {}
        for name, change in changes.items():
            if name not in self.unread:
                value = change(getattr(self, name)) if callable(change) else change
                options[name] = value if isinstance(value, tuple) else (value,)
        return tuple(replace(self, **_unset(self, values)) for values in _product(options))


TRAINING = frozenset(
    {"projector_dim", "predictor", "predictor_dim", "perturbs", "history_of", "bernoulli", "normalize_z", "similarity"}
    | {"stop_gradient", "batch_size", "base_lr", "lr_rule", "momentum", "weight_decay", "precision"}
)


@dataclass(frozen=True, kw_only=True)
class Linear(_Spec):
    """Linear evaluation (Section 4.2): multinomial logistic regression by L-BFGS on frozen features over a path of l2.

    l2 multiplies half the squared weights beside the summed cross-entropy; the intercept is not penalised.
    """

    stage: ClassVar[str] = "linear"
    title: ClassVar[str] = "Linear evaluation"

    l2_low: float = 1e-6
    l2_high: float = 1e5
    l2_count: int = 45
    iterations: int = 1000  # at most, per value; the paper gives no stopping rule
    tolerance: float = 1e-5  # largest entry of the gradient of the mean objective, each variable in units of its curvature

    @property
    def l2(self) -> tuple[float, ...]:
        """The regularisation values, weakest first, both ends included."""
        return logspace(self.l2_low, self.l2_high, self.l2_count)

    @property
    def name(self) -> str:
        """The stem of the result file."""
        return f"{self.stage}-{self.digest}"


@dataclass(frozen=True, kw_only=True)
class Finetune(_Spec):
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

    @property
    def settings(self) -> tuple[tuple[float, float], ...]:
        """Every (learning rate, weight decay), largest first: on equal error the earlier one is chosen."""
        rates = logspace(self.lr_low, self.lr_high, self.lr_count)[::-1]
        decays = (*logspace(self.decay_low, self.decay_high, self.decay_count)[::-1], 0.0)
        return tuple(itertools.product(rates, decays))

    @property
    def name(self) -> str:
        """The stem of the result file."""
        return f"{self.stage}-{self.digest}"


Protocol = Linear | Finetune
PROTOCOLS: dict[str, type[Linear] | type[Finetune]] = {"linear": Linear, "finetune": Finetune}


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A table or a figure of the paper: which Runs it shows, under which protocols, and how they are laid out."""

    number: int
    caption: str
    runs: tuple[Run, ...]
    protocols: tuple[Protocol, ...] = (Linear(),)
    notes: tuple[str, ...] = ()  # what a reader must know to read the numbers; printed below the exhibit

    @property
    def name(self) -> str:
        """The stem that names this exhibit in benchmarks/, baselines/ and reports/out/."""
        return f"{type(self).__name__.lower()}{self.number}"

    @property
    def title(self) -> str:
        """As the paper calls it."""
        return f"{type(self).__name__} {self.number}"

    @property
    def jobs(self) -> tuple[tuple[Run, Protocol], ...]:
        """Every result that the exhibit shows. Pixels have no weights to fine-tune."""
        pairs = itertools.product(self.runs, self.protocols)
        return tuple((r, p) for r, p in pairs if not (r.backbone == "pixels" and isinstance(p, Finetune)))

    def moved(self, linear: Mapping[str, Any] | None = None, finetune: Mapping[str, Any] | None = None, **changes: Any) -> Self:
        """The same exhibit with its Runs (see Run.moved) and its protocols changed; equal Runs become one."""
        runs = tuple(dict.fromkeys(moved for run in self.runs for moved in run.moved(**changes)))
        edits: dict[str, Mapping[str, Any]] = {"linear": linear or {}, "finetune": finetune or {}}
        for stage, edit in edits.items():
            _known(PROTOCOLS[stage], edit)
        return replace(self, runs=runs, protocols=tuple(replace(p, **edits[p.stage]) for p in self.protocols))

    def where(self, **kept: tuple[Any, ...]) -> Self:
        """The same exhibit with those Runs alone whose fields have one of the values named."""
        _known(Run, kept)
        return replace(self, runs=tuple(r for r in self.runs if all(getattr(r, k) in values for k, values in kept.items())))


@dataclass(frozen=True, kw_only=True)
class Table(Exhibit):
    """Errors in cells: one block per protocol, one row per value of `rows`, one column per value of `columns`.

    With several names in `columns` the cells are those properties of the Runs themselves (Table 3).
    """

    rows: str = "method"
    columns: str | tuple[str, ...] = "dataset"
    labels: Mapping[Any, str] = field(default_factory=dict, hash=False)  # value of a row or column -> what is printed


@dataclass(frozen=True, kw_only=True)
class Figure(Exhibit):
    """Error against the field `x`, one line for each value of `lines`, one panel per protocol."""

    x: str
    lines: str = "dataset"
    xlabel: str = ""
    logx: bool = False


@dataclass(frozen=True)
class Suite:
    """The exhibits that one file declares. `name` is the folder of the report: the file's stem if it holds several."""

    name: str
    title: str
    exhibits: tuple[Exhibit, ...]
    path: str

    @property
    def jobs(self) -> tuple[tuple[Run, Protocol], ...]:
        """All results that the exhibits show, each once."""
        return tuple(dict.fromkeys(job for exhibit in self.exhibits for job in exhibit.jobs))


def grid(**axes: Any) -> tuple[Run, ...]:
    """Every Run with one value from each axis; a tuple is an axis, anything else a constant. Last axis fastest."""
    _known(Run, axes)
    return tuple(Run(**v) for v in _product({n: v if isinstance(v, tuple) else (v,) for n, v in axes.items()}))


def logspace(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` values from `low` to `high`, both included exactly, equally far apart in the logarithm."""
    if count == 1:
        return (high,)
    inner = (low * (high / low) ** (i / (count - 1)) for i in range(1, count - 1))
    return (low, *inner, high) if count else ()


def load(path: str | Path) -> Suite:
    """The exhibits that a file under benchmarks/ declares: TABLE, FIGURE or EXHIBITS.

    Raises InputError if there is no such file, if Python cannot run it, or if it declares nothing.
    """
    path = Path(path)
    if not path.is_file():
        near = get_close_matches(path.stem, [p.stem for p in path.parent.glob("*.py")], 1)
        raise InputError(f"{path}: no such exhibit" + (f"; did you mean {path.with_stem(near[0])}?" if near else ""))
    try:
        names = runpy.run_path(str(path))
    except SyntaxError as e:
        raise InputError(f"{e.filename}:{e.lineno}: {e.msg}") from e
    except Exception as e:
        raise InputError(f"{_where(e, path)}: {e if isinstance(e, InputError) else f'{type(e).__name__}: {e}'}") from e
    found = [names[n] for n in ("TABLE", "FIGURE") if n in names]
    found += names.get("EXHIBITS", ())
    if not found or not all(isinstance(e, Exhibit) for e in found):
        raise InputError(f"{path}: declares no exhibit; it needs TABLE, FIGURE or a list EXHIBITS of them")
    title = (names.get("__doc__") or path.stem).strip().splitlines()[0]
    return Suite(path.stem if len(found) > 1 else "", title, tuple(found), str(path))


def _product(options: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def _unset(run: Run, changes: dict[str, Any]) -> dict[str, Any]:
    """`changes`, plus None for the old perturbation's strength when the perturbation itself changes."""
    new = changes.get("perturbation", run.perturbation)
    if new == run.perturbation or run.perturbation not in STRENGTHS:
        return changes
    return {STRENGTHS[run.perturbation][0]: None, **changes}


def _where(error: BaseException, path: Path) -> str:
    """path:line of the statement in `path` that raised `error`."""
    line, tb = 0, error.__traceback__
    while tb:
        line = tb.tb_lineno if tb.tb_frame.f_code.co_filename == str(path) else line
        tb = tb.tb_next
    return f"{path}:{line}" if line else str(path)


__all__ = [
    "Exhibit",
    "Figure",
    "Finetune",
    "InputError",
    "Linear",
    "Protocol",
    "Run",
    "Suite",
    "Table",
    "asdict",
    "grid",
    "load",
    "logspace",
]
