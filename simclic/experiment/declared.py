"""The declarations of all methods and perturbations, read from the files of simclic/methods without importing torch.

    @method("SimSiam", passes=2, views=2, reads=("projector_dim", "predictor", "predictor_dim"))
    class SimSiam(Method): ...

    @perturbation(knob(0.3, "share of the past", low=0.0, below=1.0))
    def history(z, tau, z_before=None, generator=None): ...

A method is named after its file, with hyphens, a perturbation after its function, and its strength after the second argument.
Methods of one's own are files of the same kind in the folder `methods` of the working directory.
"""

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from simclic.errors import InputError
from simclic.experiment.knob import Knob, knob, list_knobs

T = TypeVar("T", bound=Callable[..., Any])
PACKAGE = Path(__file__).parents[1]
FOLDER = PACKAGE / "methods"
OWN_METHODS = "own_methods"  # the folder beside a submitted copy of this package that holds them


@dataclass(frozen=True)
class MethodFacts:
    """The declaration of a method.

    title: as tables call it. passes: of an image through the encoder in one step, with a gradient; target_passes: without one,
    as through a momentum encoder; both are what a step costs. views: augmented views of each image, 0 for the image as it is.
    reads: fields of Run that this method reads, of those that not every method does. knobs: fields of Run that are its own.
    defaults: of fields of Run, where this method's differ. momentum_encoder, memory_bank: whether it has one (Table 3). halves:
    whether the backbone is two encoders of half its width, of luminance and of colour. note: what stands below its numbers.
    """

    title: str
    passes: int
    target_passes: int = 0
    views: int = 0
    reads: tuple[str, ...] = ()
    knobs: Mapping[str, Any] = field(default_factory=dict)
    momentum_encoder: bool = False
    memory_bank: bool = False
    halves: bool = False
    note: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    path: Path = Path()
    class_name: str = ""

    def __call__(self, declared: T) -> T:
        """Return the class that is declared."""
        return declared


@dataclass(frozen=True)
class PerturbationFacts:
    """The declaration of a perturbation. strength: the field of Run that holds its strength; "" if it has none."""

    knob: Any = None
    name: str = ""
    strength: str = ""
    function: str = ""

    def __call__(self, declared: T) -> T:
        """Return the function that is declared."""
        return declared


method, perturbation = MethodFacts, PerturbationFacts


def own_methods_folder() -> Path:
    """Return the folder of the methods of one's own: in the working directory, or beside a submitted copy of this package."""
    copied = PACKAGE.parent / OWN_METHODS
    return copied if copied.is_dir() else Path("methods").absolute()


def read_methods(*folders: Path) -> dict[str, MethodFacts]:
    """Return what the methods in these folders declare, by their names, SimCLIC first.

    Raise InputError for a declaration that is wrong, and for a name that is taken.
    """
    methods = dict[str, MethodFacts]()
    for folder in dict.fromkeys(folders):
        for path, node, facts in _read_declarations(folder, "method"):
            name = path.stem.replace("_", "-")
            if name in methods:
                raise InputError(f"{path}: {methods[name].path} declares a method {name!r} already; name this file otherwise")
            methods[name] = replace(facts, name=name, path=path, class_name=node.name)
    return {name: methods[name] for name in sorted(methods, key=lambda name: (name != "simclic", name))}


def read_perturbations(folder: Path = FOLDER) -> dict[str, PerturbationFacts]:
    """Return what the perturbations in a folder declare, by their names, in the order of their files."""
    perturbations = {}
    for path, node, facts in _read_declarations(folder, "perturbation"):
        name = facts.name or node.name
        if facts.knob and len(node.args.args) < 2:
            raise InputError(f"{path}:{node.lineno}: {node.name} has no second argument, which would name its strength")
        strength = node.args.args[1].arg if facts.knob else ""
        perturbations[name] = replace(facts, name=name, strength=strength, function=node.name)
    return perturbations


def _read_declarations(folder: Path, decorator: str) -> Iterable[tuple[Path, Any, Any]]:
    """Yield file, statement and facts of each class or function that has this decorator."""
    for path in sorted(folder.glob("*.py")):
        for node in _parse_statements(path, decorator):
            for call in getattr(node, "decorator_list", ()):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == decorator:
                    yield path, node, _evaluate_declaration(path, call)


def _parse_statements(path: Path, decorator: str) -> list[Any]:
    """Return the statements of a file that uses this decorator. Raise InputError if it is not Python."""
    try:
        text = path.read_text(encoding="utf-8")
        return ast.parse(text, str(path)).body if f"@{decorator}(" in text else []
    except (OSError, UnicodeDecodeError, SyntaxError) as e:
        raise InputError(f"{path}:{getattr(e, 'lineno', 1)}: {getattr(e, 'msg', e)}") from e


def _evaluate_declaration(path: Path, call: ast.Call) -> Any:
    names = {"method": method, "perturbation": perturbation, "knob": knob, "__builtins__": {}}
    try:
        return eval(compile(ast.Expression(call), str(path), "eval"), names)  # our own source, literals alone
    except (NameError, TypeError) as e:
        raise InputError(f"{path}:{call.lineno}: {e}; a declaration may contain only literals and knob()") from e


def declared_knobs(methods: Mapping[str, MethodFacts]) -> dict[str, Knob]:
    """Return the fields that perturbations and methods add to Run; each is read with them, and by methods that say so."""
    strengths = [(g.strength, g.knob, "perturbation", g.name) for g in PERTURBATIONS.values() if g.strength]
    own = [(name, k, "method", m.name) for m in methods.values() for name, k in m.knobs.items()]
    added_knobs = dict[str, Knob]()
    for name, declared, axis, value in (*strengths, *own):
        if name in added_knobs:
            raise InputError(f"{axis} {value}: {name!r} is declared twice; rename one of the two, or list it in reads")
        assert isinstance(declared, Field)
        also = (m.name for m in methods.values() if axis == "method" and name in m.reads)
        added_knobs[name] = replace(declared.metadata["knob"], read_if={axis: (value, *also)})
    return added_knobs


def _read_all_methods() -> tuple[dict[str, MethodFacts], list[InputError]]:
    """Return the methods of this package and one's own, or without these what is wrong with them."""
    try:
        methods = read_methods(FOLDER, own_methods_folder())
        declared_knobs(methods)
    except InputError as e:
        return read_methods(FOLDER), [e]
    return methods, []


PERTURBATIONS = read_perturbations()
METHODS, ERRORS = _read_all_methods()  # ERRORS: of the methods of one's own; the first use of a Run raises them
AUGMENTING = tuple(m.name for m in METHODS.values() if m.views)  # methods that see augmented views


def defaults_by_method(name: str) -> dict[str, Any]:
    """Return the methods that have a default of their own for a field, with that."""
    return {m.name: m.defaults[name] for m in METHODS.values() if name in m.defaults}


def methods_reading(name: str) -> tuple[str, ...]:
    """Return the methods that read a field, if not all do."""
    return tuple(m.name for m in METHODS.values() if name in m.reads)


def by(name: str, **more: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
    """Return `read_if` of a field that only some methods read; more: further conditions."""
    return {"method": methods_reading(name), **more}


def with_declared_knobs(cls: type) -> type:
    """Return the class with a field for each knob of a perturbation or a method: None where it is not read.

    A field of which methods have defaults of their own is None until it is known which method it is.
    """
    declared = declared_knobs(METHODS)
    known = {*declared, *(name for name, own in vars(cls).items() if isinstance(own, Field))}
    for facts in METHODS.values():
        if unknown := sorted({*facts.reads, *facts.defaults} - known):
            ERRORS.append(InputError(f"{facts.path}: {unknown[0]!r} is not a field of {cls.__name__}; declare it in knobs"))
    for name in [n for n, own in vars(cls).items() if isinstance(own, Field) and defaults_by_method(n)]:
        declared[name] = replace(getattr(cls, name).metadata["knob"], by_method=defaults_by_method(name))
    for name, own in declared.items():
        cls.__annotations__[name] = type(own.default) | None
        setattr(cls, name, field(default=None, metadata={"knob": own}))
    return cls


def unset_dependent(run: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """Return `changes`, plus None for the old perturbation's strength and the old method's own fields and defaults."""
    moved = [n for n in ("method", "perturbation") if changes.get(n, getattr(run, n)) != getattr(run, n)]
    unset = dict[str, Any]()
    for name, spec in (list_knobs(run) if moved else {}).items():
        method = changes.get("method", run.method)
        if spec.by_method and getattr(run, name) == run.default_of(name) and "method" in moved:
            unset[name] = None
        elif method not in spec.read_if.get("method", (method,)):
            unset[name] = run.stored_default(name)
        elif run.__dataclass_fields__[name].default is None and not spec.by_method:
            unset[name] = None
    return {**unset, **changes}
