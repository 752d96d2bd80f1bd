"""The 13 methods of Table 2: how their authors' ResNet-50 files look inside, and what of them is the backbone.

Every key of a file is used or named as dropped. Methods whose files are laid out alike (MoCo and PCL of one version) cannot be
told apart by their keys, but MoCo's are known by their MD5. How many prototypes SeLa v2 has nobody published: SwAV's and
DeepCluster v2's files would pass as its own.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simclic.errors import InputError
from simclic.experiment.baselines import METHODS
from simclic.weights import haiku, tensorflow
from simclic.weights.card import Card
from simclic.weights.layouts import FACTS, LAYOUTS, Shapes, TensorFlow, Torch
from simclic.weights.load import first, misfits, tensors

Tensors = dict[str, Tensor]


def convert(name: str, path: Path, wanted: Tensors) -> tuple[Tensors, Card]:
    """A method's file as a backbone under torchvision's key names, and its card.

    wanted: the state dict of an untrained ResNet-50. Every key of the file is used or named as dropped, every shape is as it
    should be, and every weight is another than in `wanted`. Raises InputError otherwise, naming the first few keys.
    """
    layout = LAYOUTS[name]
    if isinstance(layout, Torch):
        found, dropped, sha256 = from_torch(name, layout, path)
    elif isinstance(layout, TensorFlow):
        found, dropped, sha256 = from_tensorflow(name, layout, path)
    else:
        found, dropped, sha256 = from_haiku(path)
    fits(name, path, found, wanted)
    (mean, std), (top_1, source) = layout.normal, FACTS[name]
    return found, Card(METHODS[name], source, sha256, mean, std, layout.padding, top_1, tuple(sorted(dropped)))


def fits(name: str, path: Path, found: Tensors, wanted: Tensors) -> None:
    """Raise InputError unless these are all weights of a trained ResNet-50."""
    odd = misfits(found, wanted)
    both = [k for k in sorted(found.keys() & wanted.keys()) if found[k].shape == wanted[k].shape and found[k].ndim]
    odd += [f"{k} {why}" for k in both if (why := _untrained(k, found[k], wanted[k]))]
    scales = [k for k in both if found[k].ndim == 1 and k.endswith((".weight", ".bias"))]
    if scales and all(bool((found[k] == float(k.endswith(".weight"))).all()) for k in scales):
        odd.append("no norm's weight or bias was ever trained")
    _refuse(name, path, odd)


def _untrained(key: str, found: Tensor, fresh: Tensor) -> str:
    """Why these are no weights or statistics of a trained network, or nothing. fresh: of one that was not trained."""
    kind = key.rpartition(".")[2]
    if not found.is_floating_point():
        return f"is of {found.dtype}"
    if not bool(found.isfinite().all()):
        return "is not finite"
    if kind == "running_var" and bool((found < 0).any()):
        return "is negative"
    if found.ndim == 4 and found.numel() > 1 and bool((found == found.flatten()[0]).all()):
        return "is one number throughout"
    unseen = {"running_mean": 0.0, "running_var": 1.0}.get(kind)  # what no image has passed
    as_it_was = bool((found == unseen).all()) if unseen is not None else found.ndim == 4 and torch.equal(found.to(fresh), fresh)
    return "was never trained" if as_it_was else ""


def from_torch(name: str, layout: Torch, path: Path) -> tuple[Tensors, list[str], str]:
    """Backbone, dropped keys and SHA-256 of a file of PyTorch's; nothing in it is executed."""
    payload, whole = tensors(path)
    digest = hashlib.md5(payload, usedforsecurity=False).hexdigest()
    for other, its in LAYOUTS.items():
        if not isinstance(its, Torch):
            continue
        for md5, which in its.others:
            if digest.startswith(md5):
                raise InputError(f"{path}: is {METHODS[other]}'s file {which}; Table 2's is {FACTS[other][1]}")
        if other != name and its.md5 and digest.startswith(its.md5):
            raise InputError(f"{path}: is {METHODS[other]}'s file by its MD5, not {METHODS[name]}'s; say: simclic import {other}")
    state, beside = whole, list[str]()
    outer = layout.outer or ("state_dict" if "state_dict" in whole else "")
    if outer:
        if not isinstance(whole.get(outer), dict):
            raise InputError(f"{path}: has no {outer!r}, which {METHODS[name]}'s file has; is it another method's?")
        state, beside = whole[outer], [k for k in whole if k != outer]
    odd = [f"{k} is no tensor of a kind that weights are of" for k, v in state.items() if not _usual(k, v)]
    _refuse(name, path, odd)
    heads, rest = _parted(name, path, state, layout.heads, layout.extra)
    strange = [k for k in rest if not k.startswith(layout.prefix)]
    _refuse(name, path, [f"{k} is left over" for k in strange])
    found = {k.removeprefix(layout.prefix): v for k, v in rest.items()}
    return found, [*map(str, beside), *heads], hashlib.sha256(payload).hexdigest()


def _usual(key: Any, value: Any) -> bool:
    """Is this a tensor by name, dense, in this machine's memory, of floating point or a counter?"""
    if not isinstance(key, str) or not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        return False
    return value.dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)


def from_tensorflow(name: str, layout: TensorFlow, path: Path) -> tuple[Tensors, list[str], str]:
    """Backbone, dropped variables and SHA-256 of a checkpoint of TensorFlow's: convolutions and norms by their number."""
    arrays = tensorflow.read(path)
    heads, rest = _parted(name, path, {k: torch.from_numpy(v) for k, v in arrays.items()}, layout.heads, layout.extra)
    names, found, odd = layers(), Tensors(), list[str]()
    for key, value in rest.items():
        match = re.fullmatch(r"base_model/(conv2d|batch_normalization)(?:_([1-9]\d*))?/(\w+)", key)
        number = int(match[2] or 0) if match else len(names)
        what = {
            "kernel": "weight",
            "gamma": "weight",
            "beta": "bias",
            "moving_mean": "running_mean",
            "moving_variance": "running_var",
        }
        if match is None or number >= len(names) or match[3] not in what or (match[1] == "conv2d") != (match[3] == "kernel"):
            odd.append(f"{key} is left over")
        elif match[1] == "conv2d":
            found[f"{names[number][0]}.weight"] = _oihw(value, key, odd)
        else:
            found[f"{names[number][1]}.{what[match[3]]}"] = value
    _refuse(name, path, odd)
    return found, heads, _digest(arrays)


def from_haiku(path: Path) -> tuple[Tensors, list[str], str]:
    """Backbone, dropped entries and SHA-256 of BYOL's pickle."""
    whole = haiku.read(path)
    state = whole.get("experiment_state")
    parts = [state.get(part) if isinstance(state, dict) else None for part in ("online_params", "online_state")]
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{path}: has no online_params and online_state, which BYOL's file has; is it another method's?")
    found, odd = Tensors(), list[str]()
    dropped: list[str] = [k for k in whole if k in ("step", "rng")]
    dropped += [k for k in state if k not in ("online_params", "online_state")]  # type: ignore[union-attr]
    for module, values in [*parts[0].items(), *parts[1].items()]:  # type: ignore[union-attr]
        key = _of_haiku(module)
        if key is None:
            heads = re.fullmatch(r"(projector|predictor)/.*|classifier", module)
            (dropped if heads else odd).append(module if heads else f"{module} is left over")
            continue
        for name, value in values.items():
            tensor = torch.from_numpy(value)
            if name == "w":
                _new(found, f"{key}.weight", _oihw(tensor, module, odd), odd)
            elif name in ("scale", "offset"):
                _new(found, f"{key}.{'weight' if name == 'scale' else 'bias'}", tensor.reshape(-1), odd)
            elif name == "average":
                _new(found, key, tensor.reshape(-1), odd)
            elif name in ("counter", "hidden"):
                dropped.append(f"{module}/{name}")
            else:
                odd.append(f"{module}/{name} is left over")
    _refuse("byol", path, odd)
    return found, dropped, hashlib.sha256(path.read_bytes()).hexdigest()


def layers() -> list[tuple[str, str]]:
    """torchvision's names of ResNet-50's 53 convolutions and their norms, in the order in which TensorFlow's code makes them: in
    each block that has one the shortcut first."""
    found = [("conv1", "bn1")]
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            here = f"layer{stage}.{block}"
            if block == 0:
                found.append((f"{here}.downsample.0", f"{here}.downsample.1"))
            found += [(f"{here}.conv{i}", f"{here}.bn{i}") for i in (1, 2, 3)]
    return found


def _new(found: Tensors, key: str, value: Tensor, odd: list[str]) -> None:
    """Keep what stands for a key, which nothing else may."""
    if key in found:
        odd.append(f"{key} is there twice")
    found[key] = value


def _of_haiku(module: str) -> str | None:
    """torchvision's name of a module of haiku's ResNet, or of a moving average in it; None for what is no backbone's."""
    match = re.fullmatch(r"res_net50/~/(.*?)(?:/~/(mean_ema|var_ema))?", module)
    if not match:
        return None
    where, average = match[1], match[2]
    block = re.fullmatch(r"block_group_(\d)/~/block_(\d)/~/(conv|batchnorm|shortcut_conv|shortcut_batchnorm)(?:_(\d))?", where)
    if block:
        kind, number = block[3], block[4]
        last = {"shortcut_conv": "downsample.0", "shortcut_batchnorm": "downsample.1"}.get(kind)
        if (last is None) == (number is None):  # a shortcut has no number, the others have one
            return None
        if last is None:
            last = f"{'conv' if kind == 'conv' else 'bn'}{int(number or 0) + 1}"
        name = f"layer{int(block[1]) + 1}.{block[2]}.{last}"
    else:
        name = {"initial_conv": "conv1", "initial_batchnorm": "bn1"}.get(where, "")
    return (f"{name}.running_{'mean' if average == 'mean_ema' else 'var'}" if average else name) if name else None


def _parted(name: str, path: Path, state: Tensors, heads: Shapes, extra: str) -> tuple[list[str], Tensors]:
    """The keys that are no backbone's, and the rest. Raises InputError if a head is missing or of another shape."""
    odd = []
    for key, shape in heads.items():
        if key not in state:
            odd.append(f"{key} is missing")
        elif len(state[key].shape) != len(shape) or any(n not in (m, None) for n, m in zip(shape, state[key].shape, strict=True)):
            odd.append(f"{key} is {tuple(state[key].shape)}, not {shape}")
    _refuse(name, path, odd)
    dropped = [k for k in state if k in heads or re.fullmatch(extra, k)]
    return dropped, {k: v for k, v in state.items() if k not in set(dropped)}


def _oihw(kernel: Tensor, key: str, odd: list[str]) -> Tensor:
    """A convolution's weights from (height, width, in, out) to (out, in, height, width)."""
    if kernel.ndim != 4:
        odd.append(f"{key} is {tuple(kernel.shape)}, no kernel of a convolution")
        return kernel
    return kernel.permute(3, 2, 0, 1).contiguous()


def _digest(arrays: Mapping[str, Any]) -> str:
    h = hashlib.sha256()
    for key in sorted(arrays):
        h.update(f"{key}\t{arrays[key].dtype}\t{arrays[key].shape}\n".encode() + arrays[key].tobytes())
    return h.hexdigest()


def _refuse(name: str, path: Path, odd: list[str]) -> None:
    if odd:
        raise InputError(f"{path}: is no ResNet-50 as {METHODS[name]} publishes it: {first(odd)}")
