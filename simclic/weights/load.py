"""Backbones to and from bytes, and weights to start from, under torchvision's and timm's key names."""

import hashlib
import io
import pickle
import warnings
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from simclic import files
from simclic.errors import InputError
from simclic.experiment.baselines import imported, not_imported
from simclic.weights import card
from simclic.weights.card import Card
from simclic.weights.init_weights import locate_init

HEADS = ("fc.", "head.", "classifier.")  # classifiers, which are left out


def serialise_backbone(backbone: nn.Module) -> bytes:
    """Return the backbone's parameters and buffers in safetensors format."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()})


def deserialise_backbone(payload: bytes, backbone: nn.Module) -> nn.Module:
    """Load such bytes into a backbone with the same keys and shapes; return it."""
    backbone.load_state_dict(load(payload))
    return backbone


def load_init(init: str, name: str, backbone: nn.Module, runs: Path = files.RUNS) -> dict[str, Any]:
    """Load init into a backbone: a file, weights imported by `simclic import`, or trained weights of timm by name and tag.

    name: the backbone's name in timm. runs: the folder of imported weights. Every key is used or recorded as left out, every
    shape must match, at least one weight must change, and the card's padding is applied. Returns the record: SHA-256 of what was
    loaded, the keys left out, padding, and the card's normalisation. Raises InputError if init does not fit.
    """
    path = locate_init(init, runs)
    init_card = card.read_card(path) if path and path.is_file() else None
    sha256, loaded = _from_file(init, path) if path else _from_timm(init, name)
    wanted = backbone.state_dict()
    dropped = sorted(k for k in loaded if k not in wanted and k.startswith(HEADS))
    if problems := list_misfits({k: v for k, v in loaded.items() if k not in dropped}, wanted):
        advice = _suggest_prefix(loaded, wanted)
        raise InputError(f"init={init!r} does not fit backbone={name!r}: {format_first(problems)}{advice}")
    if nonfinite := [k for k in wanted if k in loaded and not bool(loaded[k].isfinite().all())]:
        others = f", nor are {len(nonfinite) - 1} others" if nonfinite[1:] else ""
        raise InputError(f"init={init!r}: {nonfinite[0]} is not finite{others}")
    used = {k: loaded[k].to(v) for k, v in wanted.items() if k in loaded}  # same dtype and device
    if all(torch.equal(wanted[k], v) for k, v in used.items()):
        raise InputError(f"init={init!r} holds exactly the random weights that are there already; it is no starting point")
    backbone.load_state_dict(wanted | used)
    record: dict[str, Any] = {"init_sha256": sha256, "init_dropped": dropped, "padding": "symmetric"}
    if init_card:
        record |= {"padding": init_card.padding, "normal": [list(init_card.mean), list(init_card.std)]}
    card.pad(backbone, record["padding"])
    return record


def list_misfits(loaded: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return how keys and shapes differ from those wanted. A norm's num_batches_tracked may be missing."""
    problems = [f"{k} is left over" for k in sorted(loaded.keys() - wanted.keys())]
    problems += [f"{k} is missing" for k in sorted(wanted.keys() - loaded.keys()) if not k.endswith("num_batches_tracked")]
    misshapen = [k for k in sorted(loaded.keys() & wanted.keys()) if loaded[k].shape != wanted[k].shape]
    return problems + [f"{k} is {tuple(loaded[k].shape)}, not {tuple(wanted[k].shape)}" for k in misshapen]


def _suggest_prefix(loaded: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return the advice to remove a prefix if all keys would then fit, or an empty text."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*(k.split(".") for k in loaded), strict=False))
    prefix = "".join(f"{column[0]}." for column in columns)
    stripped = {k.removeprefix(prefix): v for k, v in loaded.items() if not k.removeprefix(prefix).startswith(HEADS)}
    fits = prefix and not list_misfits(stripped, wanted)
    return f"; save it without {prefix!r}, with which all its keys begin" if fits else ""


def format_first(problems: list[str], separator: str = "; ") -> str:
    """Return the first three problems and how many more there are."""
    return separator.join(problems[:3]) + (f" and {len(problems) - 3:,} more" if len(problems) > 3 else "")


def read_normalisation(init: str, runs: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and deviation of the input from the card of init, or None. Raises InputError if the file is missing."""
    path = locate_init(init, runs)
    if path and not path.is_file():
        raise InputError(not_imported(runs, init) or f"init={init!r}: cannot be read (No such file or directory)")
    init_card = card.read_card(path) if path else None
    return (init_card.mean, init_card.std) if init_card else None


def write_imported(
    name: str,
    tensors: dict[str, Tensor],
    weights_card: Card,
    runs: Path,
    find_users: Callable[[str], list[str]] = lambda sha256: [],
) -> Path:
    """Write an imported backbone with its card, for Runs that start from `name`. Returns the path.

    find_users: returns the Runs that started from a file of this name with another SHA-256. Raises InputError if there are any,
    or if the file cannot be written.
    """
    path, payload = imported(runs, name), save({k: v.contiguous() for k, v in tensors.items()}, weights_card.metadata)
    if others := find_users(hashlib.sha256(payload).hexdigest()):
        runs_text = f"{len(others)} {'run' if len(others) == 1 else 'runs'} under {runs}"
        way_out = "move their folders away, or choose another place with --runs DIR"
        raise InputError(f"{path}: {runs_text} started from another file of this name ({format_first(others, ', ')}); {way_out}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, payload)
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror}); choose another place with --runs DIR") from e
    return path


def read_tensors(path: Path) -> tuple[bytes, Any]:
    """Return the bytes of a safetensors or PyTorch file, and its content. Raises InputError for any other file.

    No code in it is executed: safetensors holds none, and torch reads only tensors, numbers and INERT.
    """
    try:
        payload = path.read_bytes()
        if not payload:
            raise InputError(f"{path}: is empty")
        if path.suffix == ".safetensors":
            return payload, load(payload)
        with warnings.catch_warnings(), torch.serialization.safe_globals(INERT):
            warnings.simplefilter("ignore")  # about how a file was written
            content = torch.load(io.BytesIO(payload), "cpu", weights_only=True)
    except InputError:
        raise
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    except pickle.UnpicklingError as e:
        raise InputError(f"{path}: is not a file of weights (it is damaged, or holds more than tensors)") from e
    except Exception as e:  # on other bytes these readers raise almost anything
        raise InputError(f"{path}: is not a file of weights ({(str(e).splitlines() or [type(e).__name__])[0][:160]})") from e
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a dict of named tensors")
    for name, tensor in content.items():
        if isinstance(tensor, Tensor):
            check_ordinary(path, str(name), tensor)
    return payload, content


def check_ordinary(path: Path, name: str, tensor: Tensor) -> None:
    """Raise InputError for a tensor that is not a dense array of real numbers."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex() or tensor.is_quantized:
        raise InputError(f"{path}: {name} is not a dense tensor of real numbers")


class _Inert:
    """Stands for command-line options and numpy numbers in a PyTorch file, whose content is ignored."""

    def __init__(self, *given: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


INERT: list[Any] = [(_Inert, "argparse.Namespace"), (_Inert, "numpy.dtype")]
INERT += [(_Inert, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
INERT += [(_Inert, f"numpy.dtypes.{kind}DType") for kind in ("Float64", "Float32", "Int64")]


def _from_file(init: str, path: Path) -> tuple[str, dict[str, Tensor]]:
    if missing := not_imported(path.parent.parent, init):
        raise InputError(missing)
    try:
        payload, content = read_tensors(path)
    except InputError as e:
        raise InputError(f"init={init!r}: {str(e).removeprefix(f'{path}: ')}") from e
    if isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        nested = [str(k) for k, v in content.items() if isinstance(v, dict)]
        way_out = f"; save one of {', '.join(nested)} alone" if nested else ""
        raise InputError(f"init={init!r}: is not a dict of tensors under torchvision's or timm's keys{way_out}")
    for name, tensor in content.items():
        check_ordinary(Path(init), name, tensor)
    return hashlib.sha256(payload).hexdigest(), content


def _from_timm(init: str, name: str) -> tuple[str, dict[str, Tensor]]:
    import timm

    if init.split(".")[0] != name:
        raise InputError(f"init={init!r} with backbone={name!r}: a timm name must be of the same backbone")
    if init not in timm.list_pretrained(f"{name}*"):
        known = ", ".join(timm.list_pretrained(f"{name}.*")[:6]) or "none"
        raise InputError(f"init={init!r}: timm has no such weights; it has {known}; name a file of your own by its path")
    try:
        state = timm.create_model(init, pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError, ValueError) as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:160]
        raise InputError(
            f"init={init!r}: cannot be downloaded ({reason}); download it where there is a network, or name a file"
        ) from e
    return hashlib.sha256(b"".join(v.cpu().numpy().tobytes() for v in state.values())).hexdigest(), state
