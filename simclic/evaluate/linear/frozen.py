"""Frozen features: one pass over a data set's images, kept beside the encoder and read by every protocol."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from simclic import files
from simclic.data.images import Images
from simclic.evaluate.linear.fit import finite
from simclic.experiment import Linear, Run
from simclic.progress import Tell
from simclic.store.run_folder import RunFolder
from simclic.train.numerics import exact_float32

BATCH = 256  # part of what the last bits depend on


def features(
    protocol: Linear, run: Run, f: nn.Module, images: Images, runs: Path, tell: Tell = lambda share, note: None
) -> Tensor:
    """The frozen backbone's output for every image, as it is: (N, d) float32 on the device.

    f: in eval mode. Computed once for an encoder, its data and a precision, then read. Raises InputError if it is not finite,
    and Broken if what is kept was damaged.
    """
    folder = RunFolder(runs, run)
    encoder, record = folder.encoder_record() or {}, folder.run_record() or {}
    of = {"data": str(record.get("data")), "backbone_sha256": str(encoder.get("backbone_sha256"))}
    path = folder.features_path(protocol.features)
    found = read(path, of)
    if found is None:
        found = extract(protocol, f, images, tell).cpu()
        finite(found)
        files.write_bytes(path, save({"features": found}, {**of, "sha256": _digest(found)}))
    return found.to(images.device)


@torch.no_grad()
def extract(protocol: Linear, f: nn.Module, images: Images, tell: Tell = lambda share, note: None) -> Tensor:
    """The pass over all images, in the protocol's precision; float32 is exactly that, also where a GPU would round its factors.

    Returns (N, d) float32 on the device.
    """
    rows, half = [], protocol.features == "bf16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half), exact_float32():
        for x, _ in images.stream(torch.arange(len(images)).split(BATCH)):
            rows.append(f(x).float())
            tell(min(1.0, len(rows) * BATCH / len(images)), f"features of {len(rows) * BATCH:,} images")
    return torch.cat(rows)


def read(path: Path, of: dict[str, str]) -> Tensor | None:
    """The features in a file, (N, d) float32, or None if there are none of this encoder and data. Raises Broken if damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            told, found = file.metadata() or {}, file.get_tensor("features")
    except (SafetensorError, OSError) as e:
        raise files.Broken(f"{path}: is not a whole file of features; delete it to compute them again") from e
    if {key: told.get(key) for key in of} != of:
        return None
    if told.get("sha256") != _digest(found):
        raise files.Broken(f"{path}: was altered after it was written (SHA-256 differs); delete it to compute it again")
    return found


def _digest(x: Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().data).hexdigest()
