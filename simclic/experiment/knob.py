"""What a field may hold, and Spec: frozen dataclasses that check their fields and are named by those that differ."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Self

from simclic.errors import InputError

# The strength of each perturbation and its default. Section 3.2 gives p = 0.25 "for example" and neither tau nor eps:
# placeholders, to be replaced by what the sweeps of Figures 4-6 show.
STRENGTHS: dict[str, tuple[str, float]] = {"history": ("tau", 0.3), "dropout": ("p", 0.25), "noise": ("eps", 0.1)}

CHOICES: dict[str, tuple[str, ...]] = {
    "method": ("simclic",),
    "split": ("ericsson", "paper"),
    "difficult": ("negative", "ignore"),
    "predictor": ("none", "frozen", "1-layer", "2-layer"),
    "perturbation": (*STRENGTHS, "none"),
    "history_of": ("image", "iteration"),
    "bernoulli": ("drop", "keep"),
    "perturbs": ("z", "p"),
    "similarity": ("cosine", "cross-entropy"),
    "lr_rule": ("linear", "as-is"),
    "precision": ("bf16", "float32"),
    "solver": ("converged", "as-published"),
    "features": ("float32", "bf16"),
    "augment": ("crop+flip", "none"),
    "batch_norm": ("train", "eval"),
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
    "eval_resize": (1.0, 4.0),
}


class Spec:
    """What Run and the protocols share: every field is checked on the way in, and the fields that differ give a name."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if value is not None or f.default is not None:
                object.__setattr__(self, f.name, checked(f.name, value, f.type))

    @cached_property
    def values(self) -> dict[str, Any]:
        """Every field by its name, as JSON holds it: scalars all. Not to be changed."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @property
    def differing(self) -> dict[str, Any]:
        """The fields whose value is not the default: what an experiment's declaration says, and what its name hashes."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) != f.default}  # type: ignore[arg-type]

    @cached_property
    def digest(self) -> str:
        """Ten hex digits of the SHA-256 over `differing`."""
        return hashlib.sha256(json.dumps(self.differing, sort_keys=True).encode()).hexdigest()[:10]

    @classmethod
    def with_defaults(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Stored fields, completed: a field that was added since then has its default."""
        return {f.name: f.default for f in fields(cls)} | dict(stored)  # type: ignore[arg-type]

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Say in which fields stored ones differ from these, a field that this version does not know included."""
        ours, theirs = self.values, self.with_defaults(stored)
        unknown = [f"{k} {theirs[k]!r} there, no such field here" for k in sorted(theirs.keys() - ours.keys())]
        return [f"{k} {theirs[k]!r} there, {v!r} here" for k, v in sorted(ours.items()) if theirs[k] != v] + unknown

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """The spec with these values. Raises InputError for unknown fields and bad values."""
        check_names(cls, values)
        return cls(**values)


def check_names(spec: type, names: Mapping[str, Any]) -> None:
    """Raise InputError if a name is no field of `spec`."""
    known = [f.name for f in fields(spec)]
    for name in names:
        if name not in known:
            near: list[str] = get_close_matches(name, known, 1)
            raise InputError(
                f"{name!r} is no field of {spec.__name__}; "
                + (f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}")
            )


def checked(name: str, value: Any, kind: Any) -> Any:
    """The value of a field in its declared type, or InputError."""
    wants_float = kind in (float, float | None)
    if wants_float and type(value) is int:
        value = float(value)  # 1 and 1.0 are one experiment
    accepted = float if wants_float else kind
    if type(value) is not accepted:
        raise InputError(f"{name}={value!r} is {type(value).__name__}, not {accepted.__name__}")
    if name in CHOICES and value not in CHOICES[name]:
        raise InputError(f"{name}={value!r} is not one of {', '.join(CHOICES[name])}")
    if name in RANGES:
        low, high = RANGES[name]
        if not low <= value <= high or not math.isfinite(value):
            rule = "[0, 1)" if name == "tau" else f"[{low:g}, {high:g}]" if math.isfinite(high) else f"[{low:g}, ∞)"
            raise InputError(f"{name}={value!r} is out of range: it lies in {rule}")
    return value
