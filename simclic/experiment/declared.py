"""The declarations of all methods and perturbations, read from the files of simclic/methods without importing torch.

    @method("SimSiam", passes=2, views=2, reads=("projector_dim", "predictor", "predictor_dim"))
    class SimSiam(Method): ...

    @perturbation(knob(0.3, "share of the past", low=0.0, below=1.0))
    def history(z, tau, z_before=None, generator=None): ...

A method is named after its file, a perturbation after its function, and its strength after the second argument.
"""

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from simclic.errors import InputError
from simclic.experiment.knob import Knob, knob

T = TypeVar("T", bound=Callable[..., Any])
FOLDER = Path(__file__).parents[1] / "methods"


@dataclass(frozen=True)
class MethodFacts:
    """The declaration of a method.

    title: as tables call it. passes: of an image through an encoder in one step, which is what a step costs. views: augmented
    views of each image, 0 for the image as it is. reads: fields of Run that this method reads, of those that not every method
    does. knobs: fields of Run that are its own. momentum_encoder, memory_bank: whether it has one (Table 3).
    """

    title: str
    passes: int
    views: int = 0
    reads: tuple[str, ...] = ()
    knobs: Mapping[str, Any] = field(default_factory=dict)
    momentum_encoder: bool = False
    memory_bank: bool = False
    name: str = ""

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


def read_methods(folder: Path = FOLDER) -> dict[str, MethodFacts]:
    """Return what the methods in a folder declare, by their names, SimCLIC first."""
    declarations = {path.stem: (path, facts) for path, _, facts in _read_declarations(folder, "method")}
    names = sorted(declarations, key=lambda name: (name != "simclic", name))
    return {name: replace(declarations[name][1], name=name) for name in names}


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
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text, str(path)).body if f"@{decorator}(" in text else ():
            for call in getattr(node, "decorator_list", ()):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == decorator:
                    yield path, node, _evaluate_declaration(path, call)


def _evaluate_declaration(path: Path, call: ast.Call) -> Any:
    names = {"method": method, "perturbation": perturbation, "knob": knob, "__builtins__": {}}
    try:
        return eval(compile(ast.Expression(call), str(path), "eval"), names)  # our own source, literals alone
    except (NameError, TypeError) as e:
        raise InputError(f"{path}:{call.lineno}: {e}; a declaration may contain only literals and knob()") from e


METHODS = read_methods()
PERTURBATIONS = read_perturbations()


def declared_knobs() -> dict[str, Knob]:
    """Return the fields that perturbations and methods add to Run; each is read with them alone."""
    strengths = [(g.strength, g.knob, "perturbation", g.name) for g in PERTURBATIONS.values() if g.strength]
    own = [(name, k, "method", m.name) for m in METHODS.values() for name, k in m.knobs.items()]
    added_knobs = dict[str, Knob]()
    for name, declared, by, value in (*strengths, *own):
        if name in added_knobs:
            raise InputError(f"{by} {value}: {name!r} is declared twice; rename one of the two")
        assert isinstance(declared, Field)
        added_knobs[name] = replace(declared.metadata["knob"], read_if={by: (value,)})
    return added_knobs


def methods_reading(name: str) -> tuple[str, ...]:
    """Return the methods that read a field, if not all do."""
    return tuple(m.name for m in METHODS.values() if name in m.reads)
