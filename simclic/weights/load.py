"""Backbones to and from bytes, and weights to start from, under torchvision's and timm's key names."""

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from simclic import files
from simclic.data.dataset import BICUBIC
from simclic.errors import InputError
from simclic.experiment.baselines import imported_path, not_imported
from simclic.experiment.names import split_part
from simclic.weights import card
from simclic.weights.card import Card
from simclic.weights.checkpoint_file import check_ordinary, read_tensors
from simclic.weights.init_weights import locate_init
from simclic.weights.state_dict import Reading, format_first, read_backbone

NO_CARD = (
    "the data set's normalisation and torchvision's padding are assumed. SimCLR's and BYOL's weights need others: "
    "import the file that their authors publish (simclic import)"
)


def serialise_backbone(backbone: nn.Module) -> bytes:
    """Return the backbone's parameters and buffers in safetensors format."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()})


def deserialise_backbone(payload: bytes, backbone: nn.Module) -> nn.Module:
    """Load such bytes into a backbone with the same keys and shapes; return it."""
    backbone.load_state_dict(load(payload))
    return backbone


def load_init(init: str, name: str, backbone: nn.Module, runs: Path = files.RUNS) -> dict[str, Any]:
    """Load init into a backbone: a file, weights imported by `simclic import`, or trained weights of timm by name and tag.

    name: the backbone's own name in timm. runs: beside which imported weights lie. Every wanted tensor is loaded, in its shape,
    and some differ from the random ones; the backbone pads as the weights' card says. Return what is recorded: SHA-256 of what
    was loaded, from which part of the file, the keys left out, padding, and the input's normalisation where it is known. Raise
    InputError if the weights do not fit.
    """
    path = locate_init(init, runs)
    init_card = card.read_card(path) if path and path.is_file() else None
    wanted = backbone.state_dict()
    try:
        sha256, reading = _from_file(init, name, path, wanted) if path else _from_timm(init, name, wanted)
    except InputError as e:
        problem = str(e).removeprefix(f"{path}: ")
        raise InputError(f"init={init!r}: {problem}") from e
    if nonfinite := [k for k, v in reading.tensors.items() if not bool(v.isfinite().all())]:
        others = f", nor are {len(nonfinite) - 1} others" if nonfinite[1:] else ""
        raise InputError(f"init={init!r}: {nonfinite[0]} is not finite{others}")
    used = {k: reading.tensors[k].to(v) for k, v in wanted.items() if k in reading.tensors}  # its type, and its device
    if all(torch.equal(wanted[k], v) for k, v in used.items()):
        raise InputError(f"init={init!r} equals the random initialisation, so it would change nothing; choose trained weights")
    backbone.load_state_dict(wanted | used)
    if path and not init_card and name == "resnet50":
        print(f"note: init={init!r} has no card; {NO_CARD}", file=sys.stderr)
    record: dict[str, Any] = {"init_sha256": sha256, "init_dropped": list(reading.dropped), "padding": "symmetric"}
    if reading.label:
        record["init_part"] = reading.label
    if init_card:
        record["padding"] = init_card.padding
    if expected := describe_input(init_card or (None if path else timm_config(init))):
        record["normal"] = [list(expected.mean), list(expected.std)]
        record |= {} if expected.interpolation == BICUBIC else {"interpolation": expected.interpolation}
    card.pad(backbone, record["padding"])
    return record


class ExpectedInput(NamedTuple):
    """The input that weights expect: mean and deviation of its channels, and the interpolation by which it was resized."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


def read_expected_input(init: str, runs: Path) -> ExpectedInput | None:
    """Return the input that a starting point expects, as its card or timm says; None where neither does.

    Raise InputError if the file is gone.
    """
    path = locate_init(init, runs)
    if path and not path.is_file():
        raise InputError(not_imported(runs, init) or f"init={init!r}: cannot be read (No such file or directory)")
    return describe_input(card.read_card(path) if path else timm_config(init))


def describe_input(source: Any) -> ExpectedInput | None:
    """Return what a card or a configuration of timm says of the input; None for neither."""
    return ExpectedInput(tuple(source.mean), tuple(source.std), source.interpolation) if source else None


def timm_config(init: str) -> Any:
    """Return timm's configuration of trained weights of its own; None for other starting points."""
    if "." not in init:
        return None
    import timm

    return timm.get_pretrained_cfg(init)


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
    path = imported_path(runs, name)
    # safetensors refuses tensors that share their storage.
    separate = {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    payload = save(separate, weights_card.metadata)
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


def _from_file(init: str, name: str, path: Path, wanted: Mapping[str, Tensor]) -> tuple[str, Reading]:
    if missing := not_imported(path.parent.parent, init):
        raise InputError(missing)
    payload, content = read_tensors(path)
    reading = read_backbone(content, name, wanted, split_part(init)[1])
    for key, tensor in reading.tensors.items():
        check_ordinary(path, key, tensor)
    return hashlib.sha256(payload).hexdigest(), reading


def _from_timm(init: str, name: str, wanted: Mapping[str, Tensor]) -> tuple[str, Reading]:
    import timm

    if init.split(".")[0] != name:
        raise InputError(f"backbone={name!r} has other weights; use its own name and tag, or a file")
    if init not in timm.list_pretrained(f"{name}*"):
        known = ", ".join(timm.list_pretrained(f"{name}.*")[:6]) or "none"
        raise InputError(f"timm has no such weights; it has {known}; name a file of your own by its path")
    try:
        state = timm.create_model(init, pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError, ValueError) as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:160]
        raise InputError(f"cannot be downloaded ({reason}); download it where there is a network, or name a file") from e
    sha256 = hashlib.sha256(b"".join(v.cpu().numpy().tobytes() for v in state.values())).hexdigest()
    return sha256, read_backbone(state, name, wanted)
