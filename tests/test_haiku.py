"""BYOL's checkpoint: what dill wrote is read to the bit, and no file makes the reader execute anything."""

import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from simclic.errors import InputError
from simclic.weights.haiku import DTYPES, STATE, read_checkpoint

GOLDEN = sorted((Path(__file__).parent / "golden/byol").glob("*.pkl"))  # written by dill itself, of six kinds
NUMPYS = ["numpy.core.multiarray", "numpy._core.multiarray"]


class Named(str):
    """A global, "module name": written by its name, whether it exists or not."""


class Call:
    """f(*args), then BUILD with state where there is one; f may be another Call."""

    def __init__(self, f, *args, state=None, opcode=pickle.REDUCE):
        self.f, self.args, self.state, self.opcode = Named(f) if isinstance(f, str) else f, args, state, opcode


class Writer(pickle._Pickler):
    def save_named(self, named):
        self.write(b"c" + named.replace(" ", "\n").encode() + b"\n")
        self.memoize(named)

    def save_call(self, call):
        self.save(call.f)
        self.save(call.args)
        self.write(call.opcode)
        self.memoize(call)
        if call.state is not None:
            self.save(call.state)
            self.write(pickle.BUILD)

    dispatch = {**pickle._Pickler.dispatch, Named: save_named, Call: save_call}  # noqa: RUF012


def dump(path, value):
    with open(path, "wb") as f:
        Writer(f, 2).dump(value)
    return path


def imported(module, name):
    return Call("dill._dill _get_attr", Call("dill._dill _import_module", module), name)


def encode(raw, f="_codecs encode"):
    return Call(f, str(raw, "latin1"), "latin1")


def dtype(code, order="<", rest=(None, None, None, -1, -1, 0)):
    return Call("numpy dtype", code, False, True, state=(3, order, *rest))


def array(a, by="numpy.core.multiarray", **other):
    """As numpy writes one, its parts open to change; by: the module of numpy's functions, _get_attr, _create_array or jax."""
    a = np.asarray(a)
    fortran = a.flags.f_contiguous and not a.flags.c_contiguous
    bare = by in NUMPYS
    f = Named(f"{by} _reconstruct") if bare else imported("numpy.core._multiarray_umath", "_reconstruct")
    coder = "_codecs encode" if bare else imported("_codecs", "encode")
    given = {"shape": a.shape, "dtype": dtype(a.dtype.str[1:], a.dtype.str[0]), "fortran": fortran} | other
    state = (1, given["shape"], given["dtype"], given["fortran"], given.get("raw", encode(a.tobytes("A"), coder)))
    args = (Named("numpy ndarray"), (0,), encode(b"b", coder))
    if by == "_create_array":
        return Call("dill._dill _create_array", f, args, state, None)
    if by == "jax":
        return Call("jax._src.device_array reconstruct_device_array", f, args, state, {"weak_type": False})
    return Call(f, *args, state=state)


def write(path, params, state, kind="haiku._src.data_structures FlatMapping", dill="dill._dill", by=NUMPYS[0], **other):
    """A checkpoint in the layout of BYOL's: params and state are both networks', mu is zeros. other: parts in their place."""

    def tree(modules, f=lambda a: a):
        inner = {m: {n: array(f(a), by) for n, a in d.items()} for m, d in modules.items()}
        return Call(kind, {m: Call(kind, d) for m, d in inner.items()}) if kind else inner

    def made(module, name, fields, *values):
        f = Call(f"{dill} _create_namedtuple", name, fields, module) if dill else Named(f"{module} {name}")
        return Call(f, *values, opcode=pickle.NEWOBJ)

    mu = made("byol.utils.optimizers", "ScaleByLarsState", ("mu",), tree(params, np.zeros_like))
    empty = (made("byol.utils.optimizers", "AddWeightDecayState", ()), mu, made("optax._src.transform", "ScaleState", ()))
    parts = {"online_params": tree(params), "target_params": tree(params), "online_state": tree(state)}
    parts |= {"target_state": tree(state), "opt_state": empty} | other
    experiment = made("byol.byol_experiment", "_ByolExperimentState", STATE, *(parts.pop(p) for p in STATE))
    rng = array(np.array([0, 7], np.uint32), by)
    return dump(path, {"experiment_state": experiment, "step": 300000, "rng": rng} | parts)


def parts():
    draw = np.random.default_rng(0).standard_normal
    w = np.asfortranarray(draw((3, 3, 2, 4)).astype("f4"))
    params = {"classifier": {"b": draw(3).astype("f4")}, "res_net50/~/initial_conv": {"w": w}}
    state = {"res_net50/~/initial_batchnorm/~/mean_ema": {"average": draw((1, 1, 1, 4)), "counter": np.array(9, np.int32)}}
    return params, state


def same(a, b):
    """Equal to the bit, in dtype and shape."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [*a] == [*b] and all(same(a[key], b[key]) for key in a)
    return isinstance(a, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def refused(path):
    """The one line that says why a file is not read."""
    with pytest.raises(InputError) as e:
        read_checkpoint(path)
    told = str(e.value)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told
    assert len(told) < len(str(path)) + 400
    return told.removeprefix(f"{path}: ")


@pytest.mark.parametrize("by", [*NUMPYS, "_get_attr", "_create_array", "jax"])
@pytest.mark.parametrize("dill", ["dill._dill", "dill.dill", ""])
@pytest.mark.parametrize("kind", ["FlatMapping", "frozendict", ""])
def test_reads_what_was_written(tmp_path, kind, dill, by):
    params, state = parts()
    kind = kind and f"haiku._src.data_structures {kind}"
    found = read_checkpoint(write(tmp_path / "a.pkl", params, state, kind, dill, by))
    inside = found["experiment_state"]
    assert [*found] == ["experiment_state", "step", "rng"]
    assert found["step"] == 300000
    assert same(found["rng"], np.array([0, 7], np.uint32))
    assert [*inside] == [*STATE]
    assert same(inside["online_params"], params)
    assert same(inside["target_params"], params)
    assert same(inside["online_state"], state)
    assert same(inside["target_state"], state)
    assert inside["opt_state"][::2] == [{}, {}]
    assert same(inside["opt_state"][1]["mu"]["classifier"]["b"], np.zeros(3, "f4"))
    inside["online_params"]["classifier"]["b"][:] = 0  # may be written to, as torch asks of an array


@pytest.mark.parametrize("code", DTYPES)
def test_reads_each_dtype_and_numpy_number(tmp_path, code):
    a = np.array([[0, 1, 1], [1, 0, 0]], code)
    number = Call("numpy.core.multiarray scalar", dtype("i8"), encode(np.int64(5).tobytes()))
    empty = {"m": {"w": array(np.zeros((0, 3), "f4"), raw=Call("__builtin__ bytes"))}}
    path = write(tmp_path / "a.pkl", {"m": {"a": a}}, {}, step=number, online_state=empty)
    found = read_checkpoint(path)
    assert (found["step"], type(found["step"])) == (5, int)
    assert same(found["experiment_state"]["online_params"]["m"]["a"], a)
    assert found["experiment_state"]["online_state"]["m"]["w"].shape == (0, 3)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_reads_what_dill_wrote(path):
    found = read_checkpoint(path)
    inside = found["experiment_state"]
    named = {f"{part}|{m}|{n}": a for part in STATE[:-1] for m, d in inside[part].items() for n, a in d.items()}
    named |= {f"mu|{m}|{n}": a for m, d in inside["opt_state"][1]["mu"].items() for n, a in d.items()}
    with np.load(path.with_suffix(".npz")) as expected:
        assert {*named, "rng"} == {*expected}
        assert all(same(np.asarray(a, order="C"), np.asarray(expected[key], order="C")) for key, a in named.items())
        assert same(found["rng"], expected["rng"])
    assert found["step"] == 300000
    assert len(GOLDEN) == 6


class Evil:
    def __init__(self, f, *args):
        self.f, self.args = f, args

    def __reduce__(self):
        return self.f, self.args


def test_pickle_would_execute_what_the_reader_refuses(tmp_path):
    made, path = tmp_path / "made", tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(Evil(os.mkdir, str(made)), 2))
    assert "posix.mkdir" in refused(path)
    assert not made.exists()
    pickle.loads(path.read_bytes())
    assert made.exists()


def hostile(made):
    """What would run a command, look something up, or reach into an object; each stands where opt_state would."""
    command = f"mkdir {made}"
    code = f"__import__('os').mkdir({str(made)!r})"
    system = imported("os", "system")
    data = "haiku._src.data_structures FlatMapping"
    for module in ("os", "posix", "nt", "subprocess", "commands"):
        yield from (Call(f"{module} system", command), Call(f"{module} getoutput", command))
    for name in ("eval", "exec", "compile", "getattr", "setattr", "__import__", "open", "type", "globals", "map", "bytes"):
        yield from (Call(f"{module} {name}", code, "os", "exec") for module in ("builtins", "__builtin__"))
    for name in ("os system", "numpy load", "numpy.testing._private.utils runstring", "numpy.f2py.crackfortran myeval", "jax os"):
        yield Call(name, code)
    for name in (
        "_create_function",
        "_create_type",
        "_unmarshal",
        "_eval_repr",
        "_create_code",
        "_load_type",
        "_getattribute",
        "loads",
    ):
        yield from (Call(f"dill._dill {name}", x) for x in ("CodeType", "FunctionType", code))
    for name in (
        "importlib import_module",
        "operator attrgetter",
        "functools partial",
        "runpy run_path",
        "haiku.os system",
        "byol.os x",
    ):
        yield Call(name, code)
    yield from (Call(system, command), system, Call("dill._dill _import_module", "os"), Named("numpy ndarray"), dtype("f4"))
    yield Call(Call("builtins getattr", Call("builtins __import__", "os"), "system"), command)
    yield Call(Call("dill._dill _get_attr", system, "__call__"), command)
    yield Call("dill._dill _get_attr", Named("collections OrderedDict"), "__init__")
    yield imported("numpy.core._multiarray_umath", "__builtins__")
    yield imported("numpy.core._multiarray_umath", "fromfile")
    yield imported("numpy.core._multiarray_umath\nos", "system")
    yield Call("dill._dill _create_array", system, (command,), (), None)
    yield Call("dill._dill _create_array", Named("os system"), (command,), ())
    yield Call("jax.x reconstruct_device_array", Named("os system"), (command,), (), {})
    yield Call("dill._dill _create_namedtuple", "a", ("x",) * 17, "m")
    yield Call(Call("dill._dill _create_namedtuple", "system", ("x",), "os"), command, command)
    yield Call("copy_reg _reconstructor", Named("os _wrap_close"), Named("builtins object"), None)
    yield Call("copyreg _reconstructor", Named("optax.x EmptyState"), Named("os system"), command)
    yield Call("_codecs encode", code, "rot13")
    yield Call("_codecs encode", "\u0100", "latin1")
    yield array(np.ones(2, "f4"), raw=Call("_codecs encode", "a" * 8, "utf-8"))
    state = (1, (1,), dtype("u1"), False, encode(b"a"))
    for made_of in ((Named("numpy dtype"), (0,), encode(b"b")), (Named("numpy ndarray"), (9,), encode(b"b")), ()):
        yield Call("numpy.core.multiarray _reconstruct", *made_of, state=state)
    for state in ({"__class__": 1}, (None, {"__call__": Named("optax.x EmptyState")}), {"__setstate__": 1}, [], 0):
        targets = ("collections OrderedDict", ()), (data, ({},)), ("optax.x EmptyState", ()), ("numpy ndarray", ())
        yield from (Call(f, *args, state=state) for f, args in targets)
        yield from (array(np.ones(2, "f4"), dtype=Call("numpy dtype", "f4", False, True, state=state)), array(1.0, shape=state))
        yield Call("numpy.core.multiarray _reconstruct", Named("numpy ndarray"), (0,), encode(b"b"), state=state)
    yield Call("numpy.core.multiarray _reconstruct", Named("numpy memmap"), (0,), encode(b"b"))
    yield Call("numpy.core.multiarray _reconstruct", Named("numpy ndarray"), (2**40,), encode(b"b"))
    for other in ("O8", "O", "V8", "S4", "U4", "M8", ">f4", "f4,f4", "object", "c16"):
        yield array(np.ones(2, "f4"), dtype=dtype(other))
    for order, rest in (
        (">", (None, None, None, -1, -1, 0)),
        ("<", (None, ("a",), {"a": 1}, -1, -1, 0)),
        ("|", (None, None, None, 8, 8, 63)),
    ):
        yield array(np.ones(2, "f4"), dtype=dtype("f4", order, rest))
    for shape in (
        (2**62, 4),
        (3,),
        (1,),
        (-2, -1),
        (2.0,),
        ("2",),
        (2, None),
        (1,) * 40 + (2,),
        2,
        (0, 2**70),
        (2**1000,),
        ((2,),),
    ):
        yield array(np.ones(2, "f4"), shape=shape)
    yield from (array(np.ones(2, "f4"), raw=raw) for raw in ([1, 2], "text", None, {}, array(np.ones(2, "f4"))))
    yield from (array(np.ones(2, "f4"), fortran=2), [[]] * 2**20, {1: 2}, {(): 1}, Evil(print, made), [Named("a b\x1b[31m")])


def test_executes_nothing_and_refuses_in_one_line(tmp_path):
    made, path, (params, state) = tmp_path / "made", tmp_path / "a.pkl", parts()
    evils = list(hostile(made))
    assert len(evils) > 150
    for evil in evils:
        write(path, params, state, opt_state=evil)
        told = refused(path)
        assert not made.exists(), told
        assert read_checkpoint(write(path, params, state))  # and nothing that it left behind changes the next reading
        dump(path, evil)
        refused(path)
    assert not made.exists()


def test_says_which_function_was_asked_for(tmp_path):
    params, state = parts()
    told = refused(write(tmp_path / "a.pkl", params, state, opt_state=Call("os system", "true")))
    what, rest = "asks for 'os.system', which no checkpoint of BYOL's needs", "nothing in the file was executed"
    assert told == f"{what}; {rest}; fetch it again from its publisher"
    for name in ("collections OrderedDicts", "numpy dtype.type", "xnumpy dtype", "jax.x reconstruct_device_array2"):
        asked = Named(name)
        assert f"asks for '{name.replace(' ', '.')}'" in refused(write(tmp_path / "a.pkl", params, state, opt_state=asked))
    assert "'os.system'" in refused(write(tmp_path / "a.pkl", params, state, opt_state=imported("os", "system")))
    assert "'O8'" in refused(write(tmp_path / "a.pkl", params, state, opt_state=array(1.0, dtype=dtype("O8", "|"))))


def test_refuses_objects_in_arrays_of_numpy_itself(tmp_path):
    made, path = tmp_path / "made", tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"step": np.array([Evil(os.mkdir, str(made))], object)}, 2))
    assert "posix.mkdir" in refused(path) or "'O8'" in refused(path)
    assert not made.exists()


def test_refuses_other_layouts(tmp_path):
    params, state = parts()
    rest = {"params": params}
    for other in ({"online_params": rest}, {"target_state": {"m": {"w": 1}}}, {"online_state": {"m": array(1.0)}}, {"step": "1"}):
        refused(write(tmp_path / "a.pkl", params, state, **other))
    for other in (
        {"step": None},
        {"step": 1.5},
        {"step": array(1.0)},
        {"step": array([1, 2])},
        {"rng": [0, 7]},
        {"online_params": []},
    ):
        refused(write(tmp_path / "a.pkl", params, state, **other))
    for other in ({}, [], 3, None, "text", {"experiment_state": {}, "step": 1}, params):
        dump(tmp_path / "a.pkl", other if other is not params else {"state_dict": 1})
        refused(tmp_path / "a.pkl")


def bombs():
    """Small files that stand for something endless."""
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20
    coder = b"c_codecs\nencode\nq\0" + text + b"q\1X\6\0\0\0latin1q\2(0"
    yield b"}" * 3 * 2**20 + b"."
    yield b"(" * 3 * 2**20 + b"."
    yield b"]q\0" + b"h\0a" * 10 + b"."  # a list that contains itself
    yield b"}q\0X\1\0\0\0ah\0s."
    yield b")" + b"\x85" * 500_000 + b"."
    yield b"]" + b"(" * 100_000 + b"l" * 100_000 + b"."
    yield b")" + b"q\0h\0\x86" * 100 + b"."  # 2**100 values, each time the same two
    yield b"Nr\xff\xff\xff\xff."  # a memo of 2**32 places
    yield b"(((((Nq\0" + b"".join([b"h\0" * 1000 + b"tq\0"] * 5) + b"."  # 1000**5 values, 5 deep
    yield b"N" + b"".join(b"r" + struct.pack("<I", 2**32 - 2**k) for k in range(32)) + b"."
    yield b"X\xff\xff\xff\xffaaa."
    yield from (op + b"\xff" * 7 + b"\x7f" + b"aaa." for op in (b"\x8d", b"\x8e", b"\x95", b"\x96"))
    yield from (op + b"\xff\xff\xff\x7faaa." for op in (b"\x8b", b"T", b"B"))
    yield b"\x8a\xff" + b"\x7f" * 255 + b"."
    yield coder.replace(b"(0", b"") + b"(" + b"h\0h\1h\2\x86R" * 2000 + b"t."  # 2 GB of bytes from 1 MB
    yield b"cdill._dill\n_create_namedtuple\nX\1\0\0\0a(" + b"X\1\0\0\0x" * 100_000 + b"tX\1\0\0\0m\x87R."
    yield b"cdill._dill\n_create_namedtuple\n(" + b"K\1" * 100_000 + b"tq\0" + b"h\0Rh\0" * 100_000 + b"."
    yield b"c" + b"a" * 2**20
    yield b"I" + b"9" * 2**20 + b"\n."
    yield b"S'\\p'\n."
    yield b"(((tttR."


def test_bombs_are_refused_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("simclic.weights.haiku.MAX_VALUES", 2**17)  # for time: tracemalloc is slow
    path = tmp_path / "a.pkl"
    for bomb in bombs():
        path.write_bytes(b"\x80\2" + bomb)
        tracemalloc.start()
        refused(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60e6, bomb[:40]


@pytest.mark.parametrize("path", GOLDEN[:1] + GOLDEN[-1:], ids=lambda path: path.stem)
def test_refuses_a_part_of_a_file_and_more_than_one(tmp_path, path):
    raw, cut = path.read_bytes(), tmp_path / "a.pkl"
    for size in [*range(0, len(raw), 13), *range(len(raw) - 9, len(raw))]:
        cut.write_bytes(raw[:size])
        refused(cut)
    for more in (b"\0", b".", raw):
        cut.write_bytes(raw + more)
        assert "does not end with its pickle" in refused(cut)
    for protocol in (0, 1, 3, 4, 5):
        cut.write_bytes(raw[:1] + bytes([protocol]) + raw[2:])
        assert "not a pickle of protocol 2" in refused(cut)


@pytest.mark.parametrize("path", GOLDEN[:1] + GOLDEN[-1:], ids=lambda path: path.stem)
def test_a_flipped_byte_is_refused_or_changes_a_value(tmp_path, path):
    draw, raw, flipped = random.Random(0), path.read_bytes(), tmp_path / "a.pkl"
    refusals = 0
    for at in range(0, len(raw), 5):
        flipped.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << draw.randrange(8)]) + raw[at + 1 :])
        try:
            parts = read_checkpoint(flipped)["experiment_state"]
        except InputError:
            assert refused(flipped)
            refusals += 1
        else:
            assert [*parts] == [*STATE]
    assert refusals > len(raw) / 5 / 4


def test_refuses_other_files(tmp_path):
    path = tmp_path / "a.pkl"
    assert "is not a file" in refused(tmp_path)
    assert "is not a file" in refused(path)
    os.mkfifo(tmp_path / "fifo")
    assert "is not a file" in refused(tmp_path / "fifo")
    draw = random.Random(0)
    noise = [draw.randbytes(1000) for _ in range(100)]
    pickles = [pickle.dumps({"experiment_state": 1, "step": 2, "rng": 3}, protocol) for protocol in (0, 1, 3, 4, 5)]
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)  # how torch.save began before its zip files
    for raw in (
        b"",
        b"\n",
        b"text\n",
        b"\x80\2",
        b"\x80\2.",
        b"\x80",
        b"{}",
        b"<html>",
        b"\x1f\x8b\x08\0",
        *pickles,
        legacy,
        *noise,
    ):
        path.write_bytes(raw)
        refused(path)
    for raw in noise:
        path.write_bytes(b"\x80\2" + raw)
        refused(path)
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("archive/data.pkl", pickles[0])
    assert "not a complete pickle" in refused(path) or "not a pickle" in refused(path)


def test_names_what_the_system_says(tmp_path, monkeypatch):
    path = tmp_path / "a.pkl"
    write(path, *parts())

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    assert "cannot be read (Permission denied)" in refused(path)
