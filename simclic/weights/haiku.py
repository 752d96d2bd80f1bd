"""BYOL's checkpoint, a pickle by dill of JAX arrays in haiku's dicts, read without any of them: nothing in it is executed.

The opcodes of protocol 2 are followed here; the few functions that such a file calls are replaced by what they mean.
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
KNOWN = re.compile(
    r"dill\._?dill _(create_namedtuple|create_array|import_module|get_attr|load_type)|copy_?reg _reconstructor|_codecs encode"
    r"|haiku\._src\.data_structures (FlatMapping|FlatMap|frozendict)|collections OrderedDict|numpy (ndarray|dtype)"
    r"|(__builtin__|builtins) (bytes|object|tuple)|numpy\._?core\.(multiarray|_multiarray_umath) (_reconstruct|scalar)"
    rf"|jax\.[\w.]+ _?reconstruct_(device_)?array|(byol|optax)\.[\w.]+ ({'|'.join(FIELDS)})"
)
DTYPES = {code: np.dtype(code).newbyteorder("<") for code in ("f2", "f4", "f8", "i4", "i8", "u1", "u4", "b1")}
TAKES = {"APPEND": 1, "SETITEM": 2, "REDUCE": 2, "NEWOBJ": 2, "BUILD": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
TAKES |= {"APPENDS": 0, "SETITEMS": 0, "TUPLE": 0}  # values off the stack; 0: those behind the last mark
NEW: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}
PARTS, DEPTH = 2**20, 16  # opcodes, or values, of a file: the published one should have some 30,000; containers in one another
WAY = "the file is damaged or of another kind; fetch it again"


@dataclass(frozen=True)
class _Global:
    """What a file names: a function; "module", "fields" (a class of named ones) or "dtype", with which. It is never looked up."""

    name: str
    of: tuple[Any, ...] = ()


@dataclass
class _Array:
    values: NDArray[Any] | None = None  # come by BUILD


def read(path: Path) -> dict[str, Any]:
    """The checkpoint as dicts, lists and arrays: experiment_state (its five parts), step (int), rng.

    online_params, target_params, online_state, target_state: {module: {name: array}}, with haiku's names and shapes.
    Raises InputError if the file cannot be read, is not whole, or names a function that no such checkpoint needs. The
    format has no checksum: a number that changed inside an array goes unseen.
    """
    try:
        if not path.is_file():
            raise InputError("is not a file; name the .pkl file of BYOL's checkpoint")
        with open(path, "rb") as f, mmap(f.fileno(), 0, access=ACCESS_READ) as raw:
            return _checkpoint(_Reader(raw).value())
    except InputError as e:
        raise InputError(f"{path}: {e}") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); name the .pkl file of BYOL's checkpoint") from e
    except (ValueError, LookupError, DeprecationWarning) as e:  # of genops, which may warn of a text; of the stack and memo
        raise InputError(f"{path}: is no whole pickle of protocol 2; {WAY}") from e


def _need(whole: bool, what: str) -> None:
    if not whole:
        raise InputError(f"{what}; {WAY}")


def _checkpoint(found: Any) -> dict[str, Any]:
    match found:
        case {"experiment_state": dict(state), "step": int() | np.ndarray() as step, "rng": np.ndarray() as rng}:
            _need(np.shape(step) == () and np.asarray(step).dtype.kind in "iu", "has a step that is no whole number")
            _need((*state,) == STATE, "has other parts than online_params to opt_state")
            for modules in (state[part] for part in STATE[:-1]):
                inner = list(modules.values()) if isinstance(modules, dict) else [None]
                fits = all(isinstance(m, dict) and all(isinstance(a, np.ndarray) for a in m.values()) for m in inner)
                _need(fits, "has parameters that are not {module: {name: array}}")
            return {"experiment_state": state, "step": int(step), "rng": rng}
    raise InputError("has no experiment_state, step and rng as BYOL's checkpoint does; name the .pkl file of one")


class _Reader:
    """On the stack are only texts, numbers, bool, None, bytearray, list, tuple, dict by text, and the two classes above."""

    def __init__(self, raw: mmap):
        self.raw, self.encoded, self.parts = raw, len(raw), PARTS

    def value(self) -> Any:
        stack, marks, memo = [], [], {}  # type: tuple[list[Any], list[int], dict[int, Any]]
        arg: Any
        for step, (op, arg, _) in enumerate(genops(cast(Any, self.raw))):
            _need(step < PARTS and (step > 0 or arg == 2), f"has over {PARTS} opcodes" if step else "is no pickle of protocol 2")
            taken: list[Any] = []
            if op.name in TAKES:
                at = len(stack) - TAKES[op.name] if TAKES[op.name] else marks.pop()
                _need(0 <= at <= len(stack), "takes more values than it has")
                taken, stack[at:] = stack[at:], []
            match op.name:
                case "BINPUT" | "LONG_BINPUT":
                    memo[arg] = stack[-1]
                case "MARK":
                    marks.append(len(stack))
                case "APPEND" | "APPENDS" | "SETITEM" | "SETITEMS":
                    _fill(stack[-1], taken, op.name.startswith("SET"))
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[arg])
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                    stack.append(arg)
                case name if name in NEW:
                    stack.append(copy(NEW[name]))
                case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(taken))
                case "GLOBAL":
                    stack.append(_named(arg))
                case "REDUCE" | "NEWOBJ":
                    stack.append(self._call(*taken))
                case "BUILD":
                    stack.append(_build(*taken))
                case other if other not in ("PROTO", "STOP"):
                    _need(False, f"has the opcode {other}, which such a checkpoint does not")
        _need(self.raw.tell() == len(self.raw) and len(stack) == 1 and not marks, "does not end with its pickle")
        return self._plain(stack[0], DEPTH)

    def _call(self, f: Any, args: Any) -> Any:
        _need(isinstance(f, _Global) and isinstance(args, tuple) and len(args) <= 16, "calls what is no function")
        match (f.name, *args):
            case ("fields", *values) if len(values) == len(f.of):
                return dict(zip(f.of, values, strict=True))
            case ("_reconstructor", _Global("fields") as made, _Global("object" | "tuple"), tuple() | None as values):
                return self._call(made, values or ())
            case ("_create_namedtuple", str(), tuple(names), str(), *_) if len(names) <= 16 and {*map(type, names)} <= {str}:
                return _Global("fields", names)
            case ("FlatMapping" | "FlatMap" | "frozendict" | "OrderedDict", dict(values)):
                return values
            case ("OrderedDict",):
                return {}
            case ("_import_module" | "_load_type", str(name), *_):
                return _Global("module", (name,)) if f.name == "_import_module" else _named(f"builtins {name}")
            case ("_get_attr", _Global("module", (module,)), str(name)):
                return _named(f"{module} {name}")
            case ("encode", str(text), "latin1" | "latin-1"):
                self.encoded -= len(text)
                _need(self.encoded >= 0, "has more values than bytes")
                return bytearray(text, "latin1")
            case ("bytes",):
                return bytearray()
            case ("dtype", str(code), *_):
                _need(code in DTYPES, f"has values of dtype {code!r:.99}, not {', '.join(DTYPES)}")
                return _Global("dtype", (DTYPES[code],))
            case ("scalar", _Global("dtype") as dtype, bytearray(raw)):
                return _build(_Array(), (1, (), dtype, False, raw))
            case ("_reconstruct", _Global("ndarray"), (0,), bytearray()):
                return _Array()
            case ("_create_array" | "array", _Global("_reconstruct"), (_Global("ndarray"), (0,), bytearray()), state, *_):
                return _build(_Array(), state)
        raise InputError(f"calls {f.name} as no checkpoint of BYOL's does; nothing in the file was executed; {WAY}")

    def _plain(self, value: Any, depth: int) -> Any:
        """Without the two classes, and without what contains itself."""
        self.parts -= 1
        _need(self.parts >= 0 and depth > 0, f"has over {PARTS} values, or over {DEPTH} containers in one another")
        match value:
            case _Array(np.ndarray() as values):
                return values
            case dict():
                return {key: self._plain(v, depth - 1) for key, v in value.items()}
            case list() | tuple():
                return [self._plain(v, depth - 1) for v in value]
        _need(value is None or isinstance(value, int | float | str), "holds more than numbers, texts and arrays")
        return value


def _named(known: str) -> _Global:
    if KNOWN.fullmatch(known) is None:
        told = f"asks for {known.replace(' ', '.')!r:.200}, which no checkpoint of BYOL's needs; nothing in the file was executed"
        raise InputError(f"{told}; fetch it again from its publisher")
    name = known.split()[1]
    return _Global("fields", FIELDS[name]) if name in FIELDS else _Global("array" if known.startswith("jax") else name)


def _fill(whole: Any, items: list[Any], named: bool) -> None:
    if named and isinstance(whole, dict) and len(items) % 2 == 0 and all(isinstance(key, str) for key in items[::2]):
        whole.update(zip(items[::2], items[1::2], strict=True))
    else:
        _need(not named and isinstance(whole, list), "fills what is no list, and no dict by text")
        whole.extend(items)


def _build(made: Any, state: Any) -> Any:
    match made, state:
        case _Global("dtype", (np.dtype(),)), (3, "<" | "|", None, None, None, -1, -1, 0):
            return made
        case _Array(None), (1, tuple(n), _Global("dtype", (np.dtype() as dtype,)), bool() | 0 | 1 as fortran, bytearray(raw)):
            small = len(n) <= 32 and all(isinstance(i, int) and i >= 0 for i in n) and prod(i or 1 for i in n) < 2**48
            _need(small and prod(n) * dtype.itemsize == len(raw), "has an array of another size than its shape's")
            made.values = np.ndarray(n, dtype, raw, order="F" if fortran else "C")
            return made
    raise InputError(f"sets what is no array of little-endian numbers; nothing in the file was executed; {WAY}")
