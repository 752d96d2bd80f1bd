"""Backbones as bytes: what was trained here out, and what was trained elsewhere in, under torchvision's and timm's key names."""

import hashlib
import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from simclic.spec import InputError
from simclic.spec.run import is_file

HEADS = ("fc.", "head.", "classifier.")  # what classifies, and is left out


def pack(backbone: nn.Module) -> bytes:
    """The backbone's parameters and buffers, in safetensors' format."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()})


def unpack(payload: bytes, backbone: nn.Module) -> nn.Module:
    """Load what `pack` wrote into a backbone of the same kind; every key is used, every shape matches. Returns it."""
    backbone.load_state_dict(load(payload))
    return backbone


def start(init: str, name: str, backbone: nn.Module) -> dict[str, Any]:
    """Load a starting point into a backbone: a file, or trained weights of timm by their name with a tag.

    name: the backbone's own name in timm. Every key is used or recorded as left out, every shape matches, and weights change.
    Returns what is recorded: SHA-256 of what was loaded, and the keys left out. Raises InputError otherwise.
    """
    if is_file(init):
        sha256, found = _from_file(Path(init).expanduser())
    else:
        sha256, found = _from_timm(init, name)
    wanted = backbone.state_dict()
    dropped = sorted(k for k in found if k not in wanted and k.startswith(HEADS))
    odd = [f"{k} is left over" for k in sorted(found.keys() - wanted.keys() - set(dropped))]
    odd += [f"{k} is missing" for k in sorted(wanted.keys() - found.keys()) if not k.endswith("num_batches_tracked")]
    odd += [
        f"{k} is {tuple(found[k].shape)}, not {tuple(wanted[k].shape)}"
        for k in sorted(found.keys() & wanted.keys()) if found[k].shape != wanted[k].shape
    ]  # fmt: skip
    if odd:
        more = f" and {len(odd) - 3:,} more" if len(odd) > 3 else ""
        raise InputError(f"init={init!r} does not fit backbone={name!r}: {'; '.join(odd[:3])}{more}")
    used = {k: found[k].to(v) for k, v in wanted.items() if k in found}  # its type, and its device
    if all(torch.equal(wanted[k], v) for k, v in used.items()):
        raise InputError(f"init={init!r} holds exactly the random weights that are there already; it is no starting point")
    backbone.load_state_dict(wanted | used)
    return {"init_sha256": sha256, "init_dropped": dropped}


def sha256_of(init: str) -> str:
    """The SHA-256 of a file to start from, or nothing for weights by name or a file that is gone."""
    path = Path(init).expanduser()
    return hashlib.sha256(path.read_bytes()).hexdigest() if is_file(init) and path.is_file() else ""


def unchanged(init: str, record: Mapping[str, Any], path: Path) -> None:
    """Raise InputError if the file to start from is another one by now than what is recorded of it in `path`."""
    now = sha256_of(init)
    if now and now != record.get("init_sha256"):
        raise InputError(f"init={init!r}: is another file than the one that {path} started from; move that folder away")


def _from_file(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Nothing in the file is executed: safetensors cannot, and torch reads tensors alone."""
    try:
        payload = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how a file was written
            found: Any = (
                load(payload) if path.suffix == ".safetensors" else torch.load(io.BytesIO(payload), "cpu", weights_only=True)
            )
    except OSError as e:
        raise InputError(f"init={str(path)!r}: cannot be read ({e.strerror})") from e
    except pickle.UnpicklingError as e:
        raise InputError(
            f"init={str(path)!r}: is no file of weights (not a whole one of tensors alone, and nothing else is read)"
        ) from e
    except Exception as e:  # bytes that are something else make these readers raise almost anything
        why = (str(e).splitlines() or [type(e).__name__])[0][:160]
        raise InputError(f"init={str(path)!r}: is no file of weights ({why})") from e
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise InputError(f"init={str(path)!r}: holds no tensors by name, under torchvision's or timm's keys")
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex() or tensor.is_quantized:
            raise InputError(f"init={str(path)!r}: {name} is no ordinary tensor of real numbers")
    return hashlib.sha256(payload).hexdigest(), found


def _from_timm(init: str, name: str) -> tuple[str, dict[str, Tensor]]:
    import timm

    if init.split(".")[0] != name:
        raise InputError(f"init={init!r} with backbone={name!r}: weights by name are those of the same backbone")
    if init not in timm.list_pretrained(f"{name}*"):
        known = ", ".join(timm.list_pretrained(f"{name}.*")[:6]) or "none"
        raise InputError(f"init={init!r}: timm has no such weights; it has {known}; a file of your own is named by its path")
    try:
        found = timm.create_model(init, pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError, ValueError) as e:
        why = (str(e).strip().splitlines() or [type(e).__name__])[0][:160]
        raise InputError(f"init={init!r}: cannot be had ({why}); download it where there is a network, or name a file") from e
    return hashlib.sha256(b"".join(v.cpu().numpy().tobytes() for v in found.values())).hexdigest(), found
