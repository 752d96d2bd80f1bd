"""The 13 methods of Table 2: the conversion of their authors' ResNet-50 files into backbones.

Every key of a file is used or named as dropped. MoCo and PCL of one version have the same keys; MoCo's files are recognised by
their MD5. What a file says about its training must not contradict what is published. The number of prototypes of SeLa v2 is
unpublished, so SwAV's and DeepCluster v2's files would pass as SeLa's, unless they say for how many epochs they were trained.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simclic.errors import InputError
from simclic.experiment.baselines import METHODS
from simclic.text import quote_text
from simclic.weights import haiku, tensorflow
from simclic.weights.card import Card
from simclic.weights.checkpoint_file import read_tensors
from simclic.weights.layouts import FACTS, LAYOUTS, Shapes, TensorFlowLayout, TorchLayout
from simclic.weights.state_dict import fitting_labels, format_first, list_misfits

Tensors = dict[str, Tensor]
Content = tuple[Tensors, list[str], str, list[str]]  # the backbone, the keys dropped, the SHA-256, what the file says

NORMS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}  # of TensorFlow's


def convert_checkpoint(name: str, path: Path, wanted: Tensors) -> tuple[Tensors, Card]:
    """Return the backbone in a method's file under torchvision's key names, and its card.

    wanted: the state dict of an untrained ResNet-50. Every key of the file must be used or known as dropped, every shape must
    match, every weight must differ from `wanted`, and what the file says about its training must be what is published. Raises
    InputError otherwise, naming the first few keys, and where the file holds another method's ResNet-50.
    """
    layout = LAYOUTS[name]
    try:
        if isinstance(layout, TorchLayout):
            backbone, dropped, sha256, stated = read_torch(name, layout, path)
        elif isinstance(layout, TensorFlowLayout):
            backbone, dropped, sha256, stated = read_tensorflow(name, layout, path)
        else:
            backbone, dropped, sha256, stated = read_haiku(path)
        check_trained_resnet50(name, path, backbone, wanted)
    except InputError as e:
        raise InputError(f"{e}{_locate_other_resnet50(name, path, wanted)}") from e
    (mean, std), (top_1, source, _) = layout.normal, FACTS[name]
    return backbone, Card(METHODS[name], source, sha256, mean, std, layout.padding, top_1, tuple(sorted(dropped)), tuple(stated))


def describe_training(name: str, path: Path, content: Mapping[Any, Any]) -> list[str]:
    """Return what a file says about how long it was trained. Raise InputError if that is not the published schedule."""
    stated, (_, source, trained) = [], FACTS[name]
    for key in ("epoch", "step", "global_step"):
        if key not in content:
            continue
        value = content[key]
        number = value.item() if isinstance(value, Tensor | np.ndarray) and value.shape == () else value
        if not isinstance(number, int | float) or not abs(number) < 1e12 or number != int(number):
            stated.append(f"its {key} is not a whole number")
            continue
        stated.append(f"{key} {int(number)}")
        if key == LAYOUTS[name].counter and number not in trained:
            published = f"{trained[-1]:,}" if len(trained) <= 2 else f"{trained[0]:,} to {trained[-1]:,}"
            raise InputError(
                f"{path}: says {key} {int(number):,}, where {METHODS[name]}'s published file has {published}; fetch {source}"
            )
    return stated


def _locate_other_resnet50(name: str, path: Path, wanted: Tensors) -> str:
    """Return under which prefixes a file holds a ResNet-50 of none of the 13 methods, as advice, or an empty text."""
    pairs = [(layout.outer, layout.prefix) for layout in LAYOUTS.values() if isinstance(layout, TorchLayout)]
    known = {f"{outer}.{prefix}".strip(".") for place, prefix in pairs for outer in (place, place or "state_dict")}
    try:
        labels = fitting_labels(read_tensors(path)[1], wanted) if path.is_file() else []
    except InputError:
        return ""
    if not labels or known & {*labels}:
        return ""
    places = " and ".join(f"'{quote_text(label)}'" if label else "no prefix" for label in labels)
    part = f"::{quote_text(labels[0])}" if labels[1:] else ""
    way_out = f"another method's needs no import: name it with --weights or init, as FILE{part}"
    if LAYOUTS[name].padding != "symmetric":
        way_out += f"; of one converted from {METHODS[name]}'s, import the original, for padding and normalisation are not in it"
    return f"; it holds a whole ResNet-50 under {places}; {way_out}"


def check_trained_resnet50(name: str, path: Path, backbone: Tensors, wanted: Tensors) -> None:
    """Raise InputError unless these are all weights of a trained ResNet-50. wanted: those of an untrained one."""
    problems = list_misfits(backbone, wanted)
    shared = sorted(backbone.keys() & wanted.keys())
    shared = [k for k in shared if backbone[k].shape == wanted[k].shape and backbone[k].ndim]
    problems += [f"{k} {why}" for k in shared if (why := _explain_untrained(k, backbone[k], wanted[k]))]
    scales = [k for k in shared if backbone[k].ndim == 1 and k.endswith((".weight", ".bias"))]
    if scales and all(bool((backbone[k] == float(k.endswith(".weight"))).all()) for k in scales):
        problems.append("no norm's weight or bias was ever trained")
    _raise_if_any(name, path, problems)


def _explain_untrained(key: str, tensor: Tensor, fresh: Tensor) -> str:
    """Return why a tensor is not that of a trained network, or an empty text. fresh: the tensor of an untrained one."""
    kind = key.rpartition(".")[2]
    if not tensor.is_floating_point():
        return f"is of {tensor.dtype}"
    if not bool(tensor.isfinite().all()):
        return "is not finite"
    if kind == "running_var" and bool((tensor < 0).any()):
        return "is negative"
    if tensor.ndim == 4 and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
        return "is one number throughout"
    initial = {"running_mean": 0.0, "running_var": 1.0}.get(kind)
    if (initial is not None and bool((tensor == initial).all())) or (tensor.ndim == 4 and torch.equal(tensor.to(fresh), fresh)):
        return "was never trained"
    return ""


def read_torch(name: str, layout: TorchLayout, path: Path) -> Content:
    """Return the content of a PyTorch file. No code in it is executed."""
    payload, whole = read_tensors(path)
    digest = hashlib.md5(payload, usedforsecurity=False).hexdigest()
    for other, other_layout in LAYOUTS.items():
        if not isinstance(other_layout, TorchLayout):
            continue
        for md5, description in other_layout.others:
            if digest.startswith(md5):
                raise InputError(f"{path}: is {METHODS[other]}'s file {description}; Table 2's is {FACTS[other][1]}")
        if other != name and other_layout.md5 and digest.startswith(other_layout.md5):
            raise InputError(
                f"{path}: is {METHODS[other]}'s file by its MD5, not {METHODS[name]}'s; run: simclic import {other} FILE"
            )
    state, outer_keys = whole, list[str]()
    outer = layout.outer or ("state_dict" if "state_dict" in whole else "")
    if outer:
        if not isinstance(whole.get(outer), dict):
            raise InputError(f"{path}: has no {outer!r}, which {METHODS[name]}'s file has; is it another method's?")
        state, outer_keys = whole[outer], [k for k in whole if k != outer]
    problems = [f"{quote_text(k)} is not a dense tensor of numbers" for k, v in state.items() if not _is_weight_tensor(k, v)]
    _raise_if_any(name, path, problems)
    heads, rest = _split_heads(name, path, state, layout.heads, layout.extra)
    unknown_keys = [k for k in rest if not k.startswith(layout.prefix)]
    _raise_if_any(name, path, [f"{quote_text(k)} is left over" for k in unknown_keys])
    backbone = {k.removeprefix(layout.prefix): v for k, v in rest.items()}
    stated = describe_training(name, path, whole if outer else {})
    if layout.md5:
        published = "of the published file" if digest.startswith(layout.md5) else f"not of the published file ({layout.md5}...)"
        stated.append(f"MD5 {digest}, {published}")
    return backbone, [*map(str, outer_keys), *heads], hashlib.sha256(payload).hexdigest(), stated


def _is_weight_tensor(key: Any, value: Any) -> bool:
    """Return whether this is a named dense tensor, with data, of floating point or int64 (a counter)."""
    if not isinstance(key, str) or not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        return False
    return value.dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)


def read_tensorflow(name: str, layout: TensorFlowLayout, path: Path) -> Content:
    """Return the content of a TensorFlow checkpoint, whose layers are numbered."""
    arrays = tensorflow.read_checkpoint(path)
    heads, rest = _split_heads(name, path, {k: torch.from_numpy(v) for k, v in arrays.items()}, layout.heads, layout.extra)
    names = dict[str, str]()
    for number, (conv, norm) in enumerate(list_layers()):
        end = f"_{number}" if number else ""
        names[f"base_model/conv2d{end}/kernel"] = f"{conv}.weight"
        names |= {f"base_model/batch_normalization{end}/{theirs}": f"{norm}.{ours}" for theirs, ours in NORMS.items()}
    return _rename_keys(name, path, rest, names), heads, _hash_arrays(arrays), describe_training(name, path, arrays)


def read_haiku(path: Path) -> Content:
    """Return the content of BYOL's pickle."""
    whole = haiku.read_checkpoint(path)
    state = whole.get("experiment_state")
    parts = [state.get(part) if isinstance(state, dict) else None for part in ("online_params", "online_state")]
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{path}: has no online_params and online_state, which BYOL's file has; is it another method's?")
    names, rest = haiku_names(), Tensors()
    dropped: list[str] = [k for k in whole if k in ("step", "rng")]
    dropped += [k for k in state if k not in ("online_params", "online_state")]  # type: ignore[union-attr]
    for full_name, values in [*parts[0].items(), *parts[1].items()]:  # type: ignore[union-attr]
        # A second network in the same scope makes haiku count the names of its stem.
        module = re.sub(r"(?<=^res_net50/~/)(initial_(conv|batchnorm))_1\b", r"\1", full_name)
        averages = any(key.startswith(f"{module}/") for key in names)
        if re.fullmatch(r"(projector|predictor)/.*|classifier", module):
            dropped.append(full_name)
            continue
        for key, value in values.items():
            if averages and key in ("counter", "hidden"):
                dropped.append(f"{full_name}/{key}")
            else:
                tensor, twice = torch.from_numpy(value), f"{module}/{key}" in rest
                _raise_if_any("byol", path, [f"{quote_text(f'{module}/{key}')} is there twice"] if twice else [])
                rest[f"{module}/{key}"] = tensor if key == "w" else tensor.reshape(-1)
    backbone, sha256 = _rename_keys("byol", path, rest, names), hashlib.sha256(path.read_bytes()).hexdigest()
    return backbone, dropped, sha256, describe_training("byol", path, whole)


def _rename_keys(name: str, path: Path, values: Tensors, names: Mapping[str, str]) -> Tensors:
    """Return tensors under torchvision's names, kernels permuted from (height, width, in, out). names: of each key."""
    problems = [f"{quote_text(key)} is left over" for key in values if key not in names]
    kernels = {key for key in values if key.endswith(("/kernel", "/w"))}
    flat = [k for k in kernels if values[k].ndim != 4]
    problems += [f"{quote_text(k)} is {tuple(values[k].shape)}, no kernel of a convolution" for k in flat]
    _raise_if_any(name, path, problems)
    return {names[k]: v.permute(3, 2, 0, 1).contiguous() if k in kernels else v for k, v in values.items()}


def list_layers() -> list[tuple[str, str]]:
    """Return torchvision's names of ResNet-50's 53 convolutions and their norms, in the order of TensorFlow's code.

    In a block with a shortcut, the shortcut comes first.
    """
    pairs = [("conv1", "bn1")]
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            block_name = f"layer{stage}.{block}"
            if block == 0:
                pairs.append((f"{block_name}.downsample.0", f"{block_name}.downsample.1"))
            pairs += [(f"{block_name}.conv{i}", f"{block_name}.bn{i}") for i in (1, 2, 3)]
    return pairs


def haiku_names() -> dict[str, str]:
    """Return torchvision's name for every parameter and moving average of haiku's ResNet-50."""
    names = {}
    for conv, norm in list_layers():
        place, theirs, normed = "", "initial_conv", "initial_batchnorm"
        if conv != "conv1":
            layer, block, last = conv.split(".", 2)
            place = f"block_group_{int(layer[-1]) - 1}/~/block_{block}/~/"
            end = int(last[-1]) - 1
            theirs, normed = ("shortcut_conv", "shortcut_batchnorm") if end < 0 else (f"conv_{end}", f"batchnorm_{end}")
        names[f"res_net50/~/{place}{theirs}/w"] = f"{conv}.weight"
        for key, ours in (("scale", "weight"), ("offset", "bias")):
            names[f"res_net50/~/{place}{normed}/{key}"] = f"{norm}.{ours}"
        for key in ("mean", "var"):
            names[f"res_net50/~/{place}{normed}/~/{key}_ema/average"] = f"{norm}.running_{key}"
    return names


def _split_heads(name: str, path: Path, state: Tensors, heads: Shapes, extra: str) -> tuple[list[str], Tensors]:
    """Return the keys outside the backbone, and the rest. Raises InputError if a head is missing or of another shape."""
    problems = []
    for key, shape in heads.items():
        if key not in state:
            problems += [] if key.endswith("num_batches_tracked") else [f"{key} is missing"]  # PyTorch before 0.4.1 had none
        elif len(state[key].shape) != len(shape) or any(n not in (m, None) for n, m in zip(shape, state[key].shape, strict=True)):
            problems.append(f"{key} is {tuple(state[key].shape)}, not {shape}")
    _raise_if_any(name, path, problems)
    dropped = [k for k in state if k in heads or re.fullmatch(extra, k)]
    return dropped, {k: v for k, v in state.items() if k not in set(dropped)}


def _hash_arrays(arrays: Mapping[str, Any]) -> str:
    h = hashlib.sha256()
    for key in sorted(arrays):
        h.update(f"{key}\t{arrays[key].dtype}\t{arrays[key].shape}\n".encode() + arrays[key].tobytes())
    return h.hexdigest()


def _raise_if_any(name: str, path: Path, problems: list[str]) -> None:
    if problems:
        raise InputError(f"{path}: is not {METHODS[name]}'s ResNet-50: {format_first(problems)}")
