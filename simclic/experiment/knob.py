"""knob() declares a field once, where it stands; Spec derives checks, names and messages from the declaration."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache, cached_property
from itertools import product
from typing import Any, ClassVar, Self, get_args

from simclic.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Knob:
    """The declaration of one field of an experiment.

    what: its meaning, in a phrase. default: its value where it is read and not set. choices: all allowed values.
    low, high: lowest and highest value, both allowed; below: the first value that is too high.
    read_if, unread_if: another field -> the values with which this one is read, or has no effect.
    by_method: method -> its own default, where that differs.
    question, paper, why: what the paper leaves open here, what it says, and the reason for the default; also: further
    fields that answer the same question.
    """

    what: str
    default: Any
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float = math.inf
    below: float = math.inf
    read_if: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    unread_if: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    by_method: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    question: str = ""
    paper: str = "not given"
    why: str = ""
    also: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Raise InputError if the value is not one of the choices, or out of range."""
        if self.choices and value not in self.choices:
            near = get_close_matches(value, self.choices, 1)
            more = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{name}={value!r} is not one of {', '.join(self.choices)}{more}")
        if self.low is None:
            return
        if not (self.low <= value <= self.high and value < self.below and math.isfinite(value)):
            top = f"{self.below:g})" if self.below < math.inf else f"{self.high:g}]" if self.high < math.inf else "∞)"
            raise InputError(f"{name}={value!r} is out of range: it must lie in [{self.low:g}, {top}")


def knob(default: Any, what: str, **more: Any) -> Any:
    """Declare a field of a dataclass: its default, its meaning, and any other field of Knob."""
    return dataclasses.field(default=default, metadata={"knob": Knob(default=default, what=what, **more)})


def list_knobs(spec: Any) -> dict[str, Knob]:
    """Return the declaration of each field of a Spec or of its class. Do not modify it."""
    return _list_knobs_of_class(spec if isinstance(spec, type) else type(spec))


@cache
def _list_knobs_of_class(spec: Any) -> dict[str, Knob]:
    return {f.name: f.metadata["knob"] for f in fields(spec)}


class Spec:
    """Base class of Run and the protocols: it checks every field, and derives a name from the fields that are not defaults.

    A field whose default is None takes the default of its knob where it has an effect.
    """

    no_fields: ClassVar[Mapping[str, str]] = {}  # names that are not fields but may be tried, and what to do

    def __new__(cls, **values: Any) -> Self:
        """Raise InputError for a name that is not a field."""
        check_names(cls, values)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Raise InputError for a value that is not allowed, and for a field that has no effect."""
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if value is not None or f.default is not None:
                object.__setattr__(self, f.name, self.checked(f.name, value))
        knobs = list_knobs(self)
        for name in sorted(knobs):
            value = getattr(self, name)
            if value not in (None, self.stored_default(name)) and (why := self.why_unread(name)):
                raise InputError(f"{name}={value!r} has no effect with {why}; remove it")
        for name, knob in knobs.items():
            if getattr(self, name) is None and (knob.by_method or not self.why_unread(name)):
                object.__setattr__(self, name, self.default_of(name))

    def default_of(self, name: str) -> Any:
        """Return the value that a field has here if it is not set: the method's own default, or the general one."""
        knob = list_knobs(self)[name]
        return knob.by_method.get(getattr(self, "method", ""), knob.default) if not self.why_unread(name) else knob.default

    @classmethod
    def stored_default(cls, name: str) -> Any:
        """Return the default of a field that is stored where it has no effect."""
        declared = cls.__dataclass_fields__[name]  # type: ignore[attr-defined]
        return declared.metadata["knob"].default if declared.metadata["knob"].by_method else declared.default

    @cached_property
    def values(self) -> dict[str, Any]:
        """Every field by name; all are scalars, as JSON stores them. Do not modify it."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @property
    def differing(self) -> dict[str, Any]:
        """The fields whose value is not the default; the name is a hash of these."""
        values = {f: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {f.name: v for f, v in values.items() if v not in (f.default, f.metadata["knob"].default)}

    @cached_property
    def digest(self) -> str:
        """The first ten hex digits of the SHA-256 of `differing`."""
        return hashlib.sha256(json.dumps(self.differing, sort_keys=True).encode()).hexdigest()[:10]

    @cached_property
    def unread(self) -> frozenset[str]:
        """The fields that have no effect here; they must be left out, so that equal experiments have one name."""
        return frozenset(f.name for f in fields(self) if self.why_unread(f.name))  # type: ignore[arg-type]

    def why_unread(self, name: str) -> str:
        """Return why a field has no effect, as "epochs=0"; "" if it has one."""
        knob: Knob = self.__dataclass_fields__[name].metadata["knob"]  # type: ignore[attr-defined]
        for other, values in knob.unread_if.items():
            if getattr(self, other) in values:
                return f"{other}={getattr(self, other)!r}"
        for other, values in knob.read_if.items():
            if why := self.why_unread(other):
                return why
            if getattr(self, other) not in values:
                return f"{other}={getattr(self, other)!r}"
        return ""

    @classmethod
    def checked(cls, name: str, value: Any) -> Any:
        """Return the value of a field in its declared type. Raise InputError if it has another type or is not allowed."""
        declared = cls.__dataclass_fields__[name]  # type: ignore[attr-defined]
        value = _convert_type(name, value, declared.type)
        declared.metadata["knob"].check(name, value)
        return value

    def with_defaults(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return stored fields, with defaults for the fields that were added since they were stored.

        A field that was added to this method has its own default, one of another method None.
        """
        added = {f.name: self.stored_default(f.name) for f in fields(self) if f.name not in stored}  # type: ignore[arg-type]
        own = {name: self.default_of(name) for name, value in added.items() if value is None and not self.why_unread(name)}
        return added | own | dict(stored)

    def list_differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Return a text for each stored field that differs from ours, including fields that this version does not know."""
        ours, theirs = self.values, self.with_defaults(stored)
        unknown = [
            f"{k} {theirs[k]!r} there, no such field here" for k in sorted(theirs.keys() - ours.keys()) if theirs[k] is not None
        ]
        return [f"{k} {theirs[k]!r} there, {v!r} here" for k, v in sorted(ours.items()) if theirs[k] != v] + unknown

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Return a spec with these values. Raise InputError for an unknown field or a value that is not allowed.

        An unknown field that is None was read by nothing: it belonged to a method of one's own that is not here.
        """
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        values = {k: v for k, v in values.items() if k in known or v is not None}
        check_names(cls, values)
        return cls(**values)


def check_names(spec: type[Spec], names: Mapping[str, Any]) -> None:
    """Raise InputError if a name is not a field of `spec`."""
    known = [f.name for f in fields(spec)]  # type: ignore[arg-type]
    for name in names:
        if name not in known:
            near: list[str] = get_close_matches(name, known, 1)
            remedy = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise InputError(f"{name!r} is not a field of {spec.__name__}; {spec.no_fields.get(name, remedy)}")


def combinations(options: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return one dict for each combination of values; the last option varies fastest. Raise InputError for one without values."""
    if empty := [name for name, values in options.items() if not values]:
        raise InputError(f"{empty[0]}=() has no value; give at least one, or leave it out")
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]


def _convert_type(name: str, value: Any, kind: Any) -> Any:
    """Return the value of a field in its declared type. Raise InputError if it has another."""
    kind = next((k for k in get_args(kind) if k is not type(None)), kind)
    if kind is float and type(value) is int:
        value = float(value)  # 1 and 1.0 are one experiment
    if type(value) is not kind:
        raise InputError(f"{name}={value!r} is {type(value).__name__}, not {kind.__name__}")
    return value
