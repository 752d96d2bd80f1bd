"""Frozen features: computed in one pass over a data set's images, stored beside the encoder, and read by every protocol."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from simclic import files
from simclic.data.images import Images
from simclic.evaluate.linear.fit import check_finite
from simclic.experiment import OnFeatures, Run
from simclic.progress import Tell
from simclic.store.run_folder import RunFolder
from simclic.train.numerics import exact_float32

BATCH = 256  # the last bits of features depend on it


def frozen_features(
    protocol: OnFeatures, run: Run, f: nn.Module, images: Images, runs: Path, on_progress: Tell = lambda share, note: None,
    data: str = "",
) -> Tensor:  # fmt: skip
    """Return the frozen backbone's output for every image: (N, d) float32 on the device.

    f: in eval mode. data: digest of the images, by default of the Run's own. Features are computed once for an encoder, data
    and a precision, and then read from a file. Raises InputError if they are not finite, Broken if the file is damaged.
    """
    folder = RunFolder(runs, run)
    encoder, record = folder.encoder_record() or {}, folder.run_record() or {}
    source = {"data": data or str(record.get("data")), "backbone_sha256": str(encoder.get("backbone_sha256"))}
    path = folder.features_path(protocol)
    x = read_features(path, source)
    if x is None:
        x = extract_features(protocol, f, images, on_progress).cpu()
        check_finite(x)
        files.write_bytes(path, save({"features": x}, {**source, "sha256": _hash_tensor(x)}))
    return x.to(images.device)


@torch.no_grad()
def extract_features(protocol: OnFeatures, f: nn.Module, images: Images, on_progress: Tell = lambda share, note: None) -> Tensor:
    """Compute the features of all images in the protocol's precision: (N, d) float32 on the device. float32 excludes TF32."""
    rows, half = [], protocol.features == "bf16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half), exact_float32():
        for x, _ in images.stream(torch.arange(len(images)).split(BATCH)):
            rows.append(f(x).float())
            on_progress(min(1.0, len(rows) * BATCH / len(images)), f"features of {len(rows) * BATCH:,} images")
    return torch.cat(rows)


def read_features(path: Path, source: dict[str, str]) -> Tensor | None:
    """Return the features in a file, (N, d) float32, or None if it is missing or of another source. Raises Broken if damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata, x = file.metadata() or {}, file.get_tensor("features")
    except (SafetensorError, OSError) as e:
        raise files.Broken(f"{path}: is not a complete file of features; delete it to compute them again") from e
    if {key: metadata.get(key) for key in source} != source:
        return None
    if metadata.get("sha256") != _hash_tensor(x):
        raise files.Broken(f"{path}: was changed after it was written (SHA-256 differs); delete it to compute it again")
    return x


def _hash_tensor(x: Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().data).hexdigest()
