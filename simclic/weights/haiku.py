"""A reader of BYOL's checkpoint, a dill pickle of JAX arrays in haiku dicts, that needs none of them and executes no code.

It interprets the opcodes of pickle protocol 2; the few functions that such a file calls are replaced by their meaning.
"""

import re
from copy import copy
from dataclasses import dataclass
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from pickletools import genops
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from simclic.errors import InputError

STATE = ("online_params", "target_params", "online_state", "target_state", "opt_state")
FIELDS = {
    "_ByolExperimentState": STATE,
    "ScaleByLarsState": ("mu",),
    "AddWeightDecayState": (),
    "ScaleState": (),
    "EmptyState": (),
}
KNOWN_GLOBALS = re.compile(
    r"dill\._?dill _(create_namedtuple|create_array|import_module|get_attr|load_type)|copy_?reg _reconstructor|_codecs encode"
    r"|haiku\._src\.data_structures (FlatMapping|FlatMap|frozendict)|collections OrderedDict|numpy (ndarray|dtype)"
    r"|(__builtin__|builtins) (bytes|object|tuple)|numpy\._?core\.(multiarray|_multiarray_umath) (_reconstruct|scalar)"
    rf"|jax\.[\w.]+ _?reconstruct_(device_)?array|(byol|optax)\.[\w.]+ ({'|'.join(FIELDS)})"
)
DTYPES = {code: np.dtype(code).newbyteorder("<") for code in ("f2", "f4", "f8", "i4", "i8", "u1", "u4", "b1")}
TAKEN_VALUES = {"APPEND": 1, "SETITEM": 2, "REDUCE": 2, "NEWOBJ": 2, "BUILD": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
TAKEN_VALUES |= {"APPENDS": 0, "SETITEMS": 0, "TUPLE": 0}  # values taken off the stack; 0: those above the last mark
NEW_VALUES: dict[str, Any] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "EMPTY_LIST": [],
    "EMPTY_DICT": {},
}
MAX_VALUES = 2**20  # opcodes, or values, of a file; the published file has some 30,000
MAX_DEPTH = 16  # of nested containers
WAY_OUT = "the file is damaged or of another kind; fetch it again"


@dataclass(frozen=True)
class _Global:
    """A name in the file: a function, or "module", "fields" (a named tuple) or "dtype" with arguments. It is never imported."""

    name: str
    arguments: tuple[Any, ...] = ()


@dataclass
class _Array:
    values: NDArray[Any] | None = None  # set by BUILD


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the checkpoint as dicts, lists and arrays: experiment_state (its five parts), step (int), rng.

    online_params, target_params, online_state, target_state: {module: {name: array}}, with haiku's names and shapes.
    Raises InputError if the file cannot be read, is damaged, or names a function that no such checkpoint needs. The format has
    no checksum: a changed number inside an array cannot be detected.
    """
    try:
        if not path.is_file():
            raise InputError("is not a file; name the .pkl file of BYOL's checkpoint")
        with open(path, "rb") as f, mmap(f.fileno(), 0, access=ACCESS_READ) as raw:
            return _check_structure(_Reader(raw).read_value())
    except InputError as e:
        raise InputError(f"{path}: {e}") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); name the .pkl file of BYOL's checkpoint") from e
    except (ValueError, LookupError, DeprecationWarning) as e:  # of genops, the stack and the memo
        raise InputError(f"{path}: is not a complete pickle of protocol 2; {WAY_OUT}") from e


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise InputError(f"{problem}; {WAY_OUT}")


def _check_structure(content: Any) -> dict[str, Any]:
    match content:
        case {"experiment_state": dict(state), "step": int() | np.ndarray() as step, "rng": np.ndarray() as rng}:
            _require(np.shape(step) == () and np.asarray(step).dtype.kind in "iu", "has a step that is not an integer")
            _require((*state,) == STATE, "has other parts than online_params to opt_state")
            for modules in (state[part] for part in STATE[:-1]):
                inner = list(modules.values()) if isinstance(modules, dict) else [None]
                fits = all(isinstance(m, dict) and all(isinstance(a, np.ndarray) for a in m.values()) for m in inner)
                _require(fits, "has parameters that are not {module: {name: array}}")
            return {"experiment_state": state, "step": int(step), "rng": rng}
    raise InputError("has no experiment_state, step and rng as BYOL's checkpoint does; name the .pkl file of one")


class _Reader:
    """Reads one pickle. Its stack holds only text, numbers, bool, None, bytearray, list, tuple, dict, _Global and _Array."""

    def __init__(self, raw: mmap):
        self.raw, self.bytes_left, self.values_left = raw, len(raw), MAX_VALUES

    def read_value(self) -> Any:
        stack, marks, memo = [], [], {}  # type: tuple[list[Any], list[int], dict[int, Any]]
        arg: Any
        for step, (op, arg, _) in enumerate(genops(cast(Any, self.raw))):
            _require(
                step < MAX_VALUES and (step > 0 or arg == 2),
                f"has over {MAX_VALUES} opcodes" if step else "is not a pickle of protocol 2",
            )
            taken: list[Any] = []
            if op.name in TAKEN_VALUES:
                at = len(stack) - TAKEN_VALUES[op.name] if TAKEN_VALUES[op.name] else marks.pop()
                _require(0 <= at <= len(stack), "takes more values than it has")
                taken, stack[at:] = stack[at:], []
            match op.name:
                case "BINPUT" | "LONG_BINPUT":
                    memo[arg] = stack[-1]
                case "MARK":
                    marks.append(len(stack))
                case "APPEND" | "APPENDS" | "SETITEM" | "SETITEMS":
                    _fill_container(stack[-1], taken, op.name.startswith("SET"))
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[arg])
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                    stack.append(arg)
                case name if name in NEW_VALUES:
                    stack.append(copy(NEW_VALUES[name]))
                case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(taken))
                case "GLOBAL":
                    stack.append(_resolve_global(arg))
                case "REDUCE" | "NEWOBJ":
                    stack.append(self._call_known(*taken))
                case "BUILD":
                    stack.append(_build_array(*taken))
                case other if other not in ("PROTO", "STOP"):
                    _require(False, f"has the opcode {other}, which such a checkpoint does not")
        _require(self.raw.tell() == len(self.raw) and len(stack) == 1 and not marks, "does not end with its pickle")
        return self._to_plain(stack[0], MAX_DEPTH)

    def _call_known(self, f: Any, args: Any) -> Any:
        _require(isinstance(f, _Global) and isinstance(args, tuple) and len(args) <= 16, "calls a value that is not a function")
        match (f.name, *args):
            case ("fields", *values) if len(values) == len(f.arguments):
                return dict(zip(f.arguments, values, strict=True))
            case ("_reconstructor", _Global("fields") as made, _Global("object" | "tuple"), tuple() | None as values):
                return self._call_known(made, values or ())
            case ("_create_namedtuple", str(), tuple(names), str(), *_) if len(names) <= 16 and {*map(type, names)} <= {str}:
                return _Global("fields", names)
            case ("FlatMapping" | "FlatMap" | "frozendict" | "OrderedDict", dict(values)):
                return values
            case ("OrderedDict",):
                return {}
            case ("_import_module" | "_load_type", str(name), *_):
                return _Global("module", (name,)) if f.name == "_import_module" else _resolve_global(f"builtins {name}")
            case ("_get_attr", _Global("module", (module,)), str(name)):
                return _resolve_global(f"{module} {name}")
            case ("encode", str(text), "latin1" | "latin-1"):
                self.bytes_left -= len(text)
                _require(self.bytes_left >= 0, "has more values than bytes")
                return bytearray(text, "latin1")
            case ("bytes",):
                return bytearray()
            case ("dtype", str(code), *_):
                _require(code in DTYPES, f"has values of dtype {code!r:.99}, not {', '.join(DTYPES)}")
                return _Global("dtype", (DTYPES[code],))
            case ("scalar", _Global("dtype") as dtype, bytearray(raw)):
                return _build_array(_Array(), (1, (), dtype, False, raw))
            case ("_reconstruct", _Global("ndarray"), (0,), bytearray()):
                return _Array()
            case ("_create_array" | "array", _Global("_reconstruct"), (_Global("ndarray"), (0,), bytearray()), state, *_):
                return _build_array(_Array(), state)
        raise InputError(f"calls {f.name} as no checkpoint of BYOL's does; nothing in the file was executed; {WAY_OUT}")

    def _to_plain(self, value: Any, depth: int) -> Any:
        """Return the value with arrays for _Array. Raises InputError for a _Global, or a value that contains itself."""
        self.values_left -= 1
        _require(
            self.values_left >= 0 and depth > 0, f"has over {MAX_VALUES} values, or over {MAX_DEPTH} containers in one another"
        )
        match value:
            case _Array(np.ndarray() as values):
                return values
            case dict():
                return {key: self._to_plain(v, depth - 1) for key, v in value.items()}
            case list() | tuple():
                return [self._to_plain(v, depth - 1) for v in value]
        _require(value is None or isinstance(value, int | float | str), "holds more than numbers, texts and arrays")
        return value


def _resolve_global(known: str) -> _Global:
    if KNOWN_GLOBALS.fullmatch(known) is None:
        problem = (
            f"asks for {known.replace(' ', '.')!r:.200}, which no checkpoint of BYOL's needs; nothing in the file was executed"
        )
        raise InputError(f"{problem}; fetch it again from its publisher")
    name = known.split()[1]
    return _Global("fields", FIELDS[name]) if name in FIELDS else _Global("array" if known.startswith("jax") else name)


def _fill_container(container: Any, items: list[Any], named: bool) -> None:
    if named and isinstance(container, dict) and len(items) % 2 == 0 and all(isinstance(key, str) for key in items[::2]):
        container.update(zip(items[::2], items[1::2], strict=True))
    else:
        _require(
            not named and isinstance(container, list), "adds items to something that is neither a list nor a dict with text keys"
        )
        container.extend(items)


def _build_array(target: Any, state: Any) -> Any:
    match target, state:
        case _Global("dtype", (np.dtype(),)), (3, "<" | "|", None, None, None, -1, -1, 0):
            return target
        case _Array(None), (1, tuple(n), _Global("dtype", (np.dtype() as dtype,)), bool() | 0 | 1 as fortran, bytearray(raw)):
            small = len(n) <= 32 and all(isinstance(i, int) and i >= 0 for i in n) and prod(i or 1 for i in n) < 2**48
            _require(small and prod(n) * dtype.itemsize == len(raw), "has an array of another size than its shape's")
            target.values = np.ndarray(n, dtype, raw, order="F" if fortran else "C")
            return target
    raise InputError(f"holds an array that is not of little-endian numbers; nothing in the file was executed; {WAY_OUT}")
