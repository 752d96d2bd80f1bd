"""BYOL's checkpoint, a pickle by dill of JAX arrays in haiku's dicts, read without any of them: nothing in it is executed.

The few opcodes of protocol 2 are followed here, and each function that such a file calls is replaced by what it means.
"""

import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from simclic.spec import InputError

STATE = ("online_params", "target_params", "online_state", "target_state", "opt_state")  # _ByolExperimentState, in this order
FIELDS = {"_ByolExperimentState": STATE, "ScaleByLarsState": ("mu",)} | dict.fromkeys(
    ("AddWeightDecayState", "ScaleState", "EmptyState"), ()
)
KNOWN = re.compile(
    r"dill\._?dill (_create_namedtuple|_create_array|_import_module|_get_attr|_load_type)|copy_?reg _reconstructor"
    r"|haiku\._src\.data_structures (FlatMapping|FlatMap|frozendict)|collections OrderedDict|_codecs encode|numpy (ndarray|dtype)"
    r"|(__builtin__|builtins) (bytes|object|tuple)|numpy\._?core\.(multiarray|_multiarray_umath) (_reconstruct|scalar)"
    rf"|jax\.[\w.]+ _?reconstruct_(device_)?array|(byol|optax)\.[\w.]+ ({'|'.join(FIELDS)})"
)
MODULES = re.compile(r"numpy\._?core\.(multiarray|_multiarray_umath)|_codecs")  # whose functions dill names by _get_attr
DTYPES = {code: np.dtype(code).newbyteorder("<") for code in ("f2", "f4", "f8", "i4", "i8", "u1", "u4", "b1")}
ARGUMENTS = dict(
    zip(b"\x80qrhjKMJGX\x8a", ("<B", "<B", "<I", "<B", "<I", "<B", "<H", "<i", ">d", "<I", "<B"), strict=True)
)  # X, \x8a: bytes that follow
STEPS, DEPTH = 2**20, 16  # opcodes of a file, of which the published one has some 30,000; and containers inside one another


@dataclass(frozen=True)
class _Global:
    """What a file names, never looked up: a function; a class of named fields; or a module, which is then its only field."""

    name: str
    fields: tuple[Any, ...] = ()


@dataclass
class _Array:
    """An array; its values may come after it is first named, as BUILD does it."""

    values: NDArray[Any] | None = None


def read(path: Path) -> dict[str, Any]:
    """The checkpoint as plain dicts, lists and arrays: experiment_state (its five parts), step (an int), rng.

    online_params, target_params, online_state, target_state: {module: {name: array}}, with haiku's names and shapes.
    Raises InputError if the file cannot be read, is not whole, or names a function that no such checkpoint needs. The
    format has no checksum: a number that changed inside an array goes unseen.
    """
    try:
        _need(path.is_file(), "is not a file", "name the .pkl file of BYOL's checkpoint")
        with open(path, "rb") as f:
            return _checkpoint(_Reader(f, path.stat().st_size).value())
    except InputError as e:
        raise InputError(f"{path}: {e}") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); name the .pkl file of BYOL's checkpoint") from e
    except (UnicodeError, IndexError, KeyError) as e:  # no text; not on the stack; not in the memo
        raise InputError(f"{path}: is damaged or no pickle of BYOL's checkpoint; fetch it again") from e


def _need(whole: bool, what: str, way: str = "the file is damaged or of another kind; fetch it again") -> None:
    if not whole:
        raise InputError(f"{what}; {way}")


def _refuse(what: object) -> InputError:
    told = f"asks for {what!s:.100}, which no checkpoint of BYOL's needs; nothing in the file was executed"
    return InputError(f"{told}; fetch it again from its publisher")


def _checkpoint(found: Any) -> dict[str, Any]:
    match found:
        case {"experiment_state": dict(state), "step": int() | np.ndarray() as step, "rng": np.ndarray()} if (*state,) == STATE:
            parts = [part for name, part in state.items() if name != "opt_state"]
            modules = [module for part in parts for module in (part.values() if isinstance(part, dict) else [part])]
            arrays = [a for module in modules for a in (module.values() if isinstance(module, dict) else [module, None])]
            _need(all(isinstance(a, np.ndarray) for a in arrays), "has parameters that are not {module: {name: array}}")
            _need(isinstance(step, int) or (step.shape == () and step.dtype.kind in "iu"), "has a step that is no whole number")
            return {"experiment_state": state, "step": int(step), "rng": found["rng"]}
    raise InputError("has no experiment_state, step and rng as BYOL's checkpoints do; name the .pkl file of one")


class _Reader:
    """A pickle's stack, marks and memo: values are only str, numbers, bool, None, list, tuple, dict and the classes above."""

    def __init__(self, f: BinaryIO, size: int):
        self.f, self.left, self.encoded, self.steps = f, size, size, STEPS
        self.stack, self.marks, self.memo = [], [], {}  # type: tuple[list[Any], list[int], dict[int, Any]]

    def value(self) -> Any:
        """What the file holds, once it is read to its end."""
        while (op := self._take(1)) != b".":
            self._step(op)
        _need(self.left == 0 and len(self.stack) == 1 and not self.marks, "does not end where its pickle does")
        return self._plain(self.stack[0], DEPTH)

    def _count(self) -> None:
        self.steps -= 1
        _need(self.steps >= 0, "has far more parts than BYOL's checkpoint")

    def _take(self, size: int) -> bytes:
        self.left -= size
        raw = self.f.read(size) if self.left >= 0 else b""
        _need(len(raw) == size, "ends too early")
        return raw

    def _popped(self, count: int | None) -> list[Any]:
        """The last values of the stack: so many, or those behind the last mark."""
        at = len(self.stack) - count if count else self.marks.pop()
        _need(0 <= at <= len(self.stack), "takes more values than it has")
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def _step(self, op: bytes) -> None:
        """Do what one opcode says; n is its number, or the length of what follows."""
        self._count()
        layout, stack = ARGUMENTS.get(op[0], ""), self.stack
        n = struct.unpack(layout, self._take(struct.calcsize(layout)))[0] if layout else 0
        match op:
            case b"\x80":
                _need(n == 2, f"is a pickle of protocol {n}, not 2")
            case b"q" | b"r":
                self.memo[n] = stack[-1]
            case b"h" | b"j":
                stack.append(self.memo[n])
            case b"(":
                self.marks.append(len(stack))
            case b"K" | b"M" | b"J" | b"G":
                stack.append(n)
            case b"N" | b"\x88" | b"\x89":
                stack.append({b"N": None, b"\x88": True, b"\x89": False}[op])
            case b"X":
                stack.append(self._take(n).decode())
            case b"\x8a":
                stack.append(int.from_bytes(self._take(n), "little", signed=True))
            case b"}" | b"]" | b")":
                stack.append({b"}": dict, b"]": list, b")": tuple}[op]())
            case b"t" | b"\x85" | b"\x86" | b"\x87":
                items = self._popped(op[0] - 0x84 if op != b"t" else None)
                self.stack.append(tuple(items))
            case b"a" | b"e" | b"s" | b"u":
                items = self._popped({b"a": 1, b"s": 2}.get(op))
                self._extend(self.stack[-1], items)
            case b"c":
                stack.append(_named(self._line(), self._line()))
            case b"R" | b"\x81":
                f, args = self._popped(2)
                self.stack.append(self._call(f, args))
            case b"b":
                made, state = self._popped(2)
                self.stack.append(self._build(made, state))
            case _:
                raise InputError(
                    f"has {op!r} where such a checkpoint has none; the file is damaged or of another kind; fetch it again"
                )

    def _line(self) -> str:
        raw = self.f.readline(min(self.left, 200))
        self.left -= len(raw)
        _need(raw.endswith(b"\n"), "has a name that does not end")
        return raw[:-1].decode()

    def _extend(self, whole: Any, items: list[Any]) -> None:
        if isinstance(whole, list):
            whole.extend(items)
            return
        fits = isinstance(whole, dict) and len(items) % 2 == 0 and all(isinstance(key, str) for key in items[::2])
        _need(fits, "fills what is no list, and no dict by name")
        whole.update(zip(items[::2], items[1::2], strict=True))

    def _call(self, f: Any, args: Any) -> Any:
        """What a function makes of its arguments, or a class of its fields."""
        _need(isinstance(f, _Global) and isinstance(args, tuple) and len(args) <= 16, "calls what is no function")
        match (f.name, *args):
            case ("fields", *values) if len(values) == len(f.fields):
                return dict(zip(f.fields, values, strict=True))
            case ("_reconstructor", _Global("fields") as made, _Global("object" | "tuple"), tuple() | None as values):
                return self._call(made, values or ())
            case ("_create_namedtuple", str(), tuple(names), str(), *_) if len(names) <= 16 and all(
                isinstance(n, str) for n in names
            ):
                return _Global("fields", names)
            case ("FlatMapping" | "FlatMap" | "frozendict" | "OrderedDict", dict(values)):
                return values
            case ("OrderedDict",):
                return {}
            case ("_import_module", str(module), *_) if MODULES.fullmatch(module):
                return _Global("module", (module,))
            case ("_import_module" | "_load_type", str(name), *_) if name != "bytes":
                raise _refuse(name)
            case ("_load_type", "bytes"):
                return _Global("bytes")
            case ("_get_attr", _Global("module", (module,)), str(name)):
                return _named(module, name)
            case ("encode", str(text), "latin1" | "latin-1"):
                self.encoded -= len(text)
                _need(self.encoded >= 0, "has more values than it has bytes")
                return bytearray(text, "latin1")
            case ("bytes",):
                return bytearray()
            case ("dtype", str(code), *_):
                _need(code in DTYPES, f"has values of dtype {code!r:.100}; only {', '.join(DTYPES)} are read")
                return _Global("values", (DTYPES[code],))
            case ("scalar", _Global("values") as dtype, bytearray(raw)):
                return self._build(_Array(), (1, (), dtype, False, raw))
            case ("_reconstruct", _Global("ndarray"), (0,), bytearray()):
                return _Array()
            case ("_create_array" | "array", _Global("_reconstruct"), (_Global("ndarray"), (0,), bytearray()), state, *_):
                return self._build(_Array(), state)
        raise InputError(f"calls {f.name} as no checkpoint of BYOL's does; nothing in the file was executed; fetch it again")

    def _build(self, made: Any, state: Any) -> Any:
        match made, state:
            case _Global("values"), (3, "<" | "|", None, None, None, -1, -1, 0):
                return made
            case _Array(None), (1, tuple(shape), _Global("values", (dtype,)), bool() | 0 | 1 as fortran, bytearray(raw)):
                whole = (
                    len(shape) <= 32 and all(isinstance(n, int) and n >= 0 for n in shape) and prod(n or 1 for n in shape) < 2**48
                )
                _need(whole and prod(shape) * dtype.itemsize == len(raw), "has an array whose size is not that of its shape")
                made.values = np.ndarray(shape, dtype, raw, order="F" if fortran else "C")
                return made
        raise InputError("sets what is no array of little-endian numbers; nothing in the file was executed; fetch it again")

    def _plain(self, value: Any, depth: int) -> Any:
        """Without the classes above, and without what contains itself."""
        self._count()
        _need(depth > 0, f"has more than {DEPTH} containers inside one another")
        match value:
            case _Array(np.ndarray() as values):
                return values
            case dict():
                return {key: self._plain(v, depth - 1) for key, v in value.items()}
            case list() | tuple():
                return [self._plain(v, depth - 1) for v in value]
            case None | bool() | int() | float() | str():
                return value
        raise InputError("holds more than numbers, texts and arrays; the file is damaged or of another kind")


def _named(module: str, name: str) -> _Global:
    """A function or class of KNOWN, or a class of FIELDS."""
    if KNOWN.fullmatch(f"{module} {name}") is None:
        raise _refuse(f"{module}.{name}")
    if name in FIELDS:
        return _Global("fields", FIELDS[name])
    return _Global("array" if module.startswith("jax") else name)
