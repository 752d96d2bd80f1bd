"""TensorFlow's checkpoints and BYOL's pickle, written without TensorFlow and haiku: checked by hand against both."""

import pickle
import struct
import sys
import types
from collections import namedtuple
from pathlib import Path
from unittest import mock

import numpy as np

CODES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}


def crc(raw):
    """The masked CRC-32C, bit by bit: no code shared with the reader."""
    register = 0xFFFFFFFF
    for byte in raw:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    register ^= 0xFFFFFFFF
    return ((register >> 15 | register << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(n):
    return (bytes([n & 127 | 128]) + varint(n >> 7)) if n > 127 else bytes([n])


def message(*fields):
    """A protobuf message of (number, int or bytes) fields."""
    return b"".join(
        varint(n << 3 | 2) + varint(len(v)) + v if isinstance(v, bytes) else varint(n << 3) + varint(v) for n, v in fields
    )


def entry(dtype, shape, shard, offset, raw, *more, crc=crc):
    dims = message(*((2, message((1, n))) for n in shape))
    return message((1, dtype), (2, dims), (3, shard), (4, offset), (5, len(raw)), *more) + b"\x35" + struct.pack("<I", crc(raw))


def block(rows, kind=0):
    """A table's block: each key's bytes but those it shares with the one before, then where the only full key stands."""
    body, last = b"", b""
    for key, value in rows:
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return sealed(body, kind)


def sealed(body, kind=0):
    body += struct.pack("<IIB", 0, 1, kind)
    return body + struct.pack("<I", crc(body))


def table(rows, per_block=7, kind=0):
    """A whole table: blocks of rows, an empty one, the list of blocks, and where these two stand."""
    raw, handles = b"", []
    for at in range(0, len(rows), per_block):
        made = block(rows[at : at + per_block], kind)
        handles.append((rows[at : at + per_block][-1][0], varint(len(raw)) + varint(len(made) - 5)))
        raw += made
    ends = b""
    for made in (block([]), block(handles)):
        ends += varint(len(raw)) + varint(len(made) - 5)
        raw += made
    return raw + ends.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write(prefix, tensors, shards=1, more=(), crc=crc, **how):
    """Write arrays as a checkpoint: the i-th name into data file i modulo `shards`. more: further rows of the index."""
    data, rows = [bytearray() for _ in range(shards)], [(b"", message((1, shards), (3, message((1, 1)))))]
    for i, (name, x) in enumerate(sorted(tensors.items())):
        raw = x.tobytes()
        rows.append((name.encode(), entry(CODES[x.dtype.name], x.shape, i % shards, len(data[i % shards]), raw, crc=crc)))
        data[i % shards] += raw
    for i, raw in enumerate(data):
        Path(f"{prefix}.data-{i:05d}-of-{shards:05d}").write_bytes(raw)
    Path(f"{prefix}.index").write_bytes(table(sorted([*rows, *more]), **how))


def byol(path, state, change=lambda params, averages: None, step=312784):
    """BYOL's pickle with this backbone, given under torchvision's names: haiku's modules, averages and heads, in its classes.

    change: of what is written, in place. step: 1,000 epochs. Returns the path.
    """
    params, averages = {}, {}
    for key, value in state.items():
        layer, _, what = key.rpartition(".")
        if what == "num_batches_tracked":
            continue
        module, array = f"res_net50/~/{_haiku(layer)}", value.numpy()
        if array.ndim == 4:
            params[module] = {"w": np.ascontiguousarray(array.transpose(2, 3, 1, 0))}
        elif what in ("weight", "bias"):
            params.setdefault(module, {})["scale" if what == "weight" else "offset"] = array.reshape(1, 1, 1, -1)
        else:
            kept = {"average": array.reshape(1, 1, 1, -1), "hidden": array.reshape(1, 1, 1, -1), "counter": np.array(9, "i4")}
            averages[f"{module}/~/{'mean' if what == 'running_mean' else 'var'}_ema"] = kept
    for head, width in (("projector", 2048), ("predictor", 256)):
        params[f"{head}/linear"] = {"w": np.zeros((width, 4096), "f"), "b": np.zeros(4096, "f")}
        params[f"{head}/batch_norm"] = {"scale": np.ones((1, 4096), "f"), "offset": np.zeros((1, 4096), "f")}
        params[f"{head}/linear_1"] = {"w": np.zeros((4096, 256), "f")}
        for ema in ("mean_ema", "var_ema"):
            averages[f"{head}/batch_norm/~/{ema}"] = {k: np.zeros((1, 4096), "f") for k in ("average", "hidden")}
    params["classifier"] = {"w": np.zeros((2048, 1000), "f"), "b": np.zeros(1000, "f")}
    change(params, averages)

    flat, experiment = types.ModuleType("haiku._src.data_structures"), types.ModuleType("byol.byol_experiment")
    flat.FlatMapping = type("FlatMapping", (), {"__module__": flat.__name__, "__reduce__": lambda m: (type(m), (m.content,))})
    names = ("online_params", "target_params", "online_state", "target_state", "opt_state")
    experiment._ByolExperimentState = namedtuple("_ByolExperimentState", names, module=experiment.__name__)

    def mapping(content):
        made = flat.FlatMapping()
        made.content = dict(sorted(content.items()))
        return made

    small = {"classifier": {"b": np.zeros(2, "f")}}
    parts = (mapping(params), mapping(small), mapping(averages), mapping({}), [])
    whole = {"experiment_state": experiment._ByolExperimentState(*parts), "step": step, "rng": np.array([1, 2], "u4")}
    known = {flat.__name__: flat, experiment.__name__: experiment, "haiku": flat, "haiku._src": flat, "byol": experiment}
    with mock.patch.dict(sys.modules, known):
        path.write_bytes(pickle.dumps(whole, protocol=2))
    return path


def _haiku(layer):
    """haiku's name of a layer of torchvision's ResNet-50."""
    known = {"conv1": "initial_conv", "bn1": "initial_batchnorm"}
    if layer in known:
        return known[layer]
    stage, block, rest = layer.split(".", 2)
    kind = {"downsample.0": "shortcut_conv", "downsample.1": "shortcut_batchnorm"}.get(rest)
    kind = kind or f"{'conv' if rest.startswith('conv') else 'batchnorm'}_{int(rest[-1]) - 1}"
    return f"block_group_{int(stage[-1]) - 1}/~/block_{block}/~/{kind}"
