"""Algorithm 1: the encoder of a Run, trained or read; the controls that train nothing."""

import hashlib
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simclic import files, slurm
from simclic.data import Dataset
from simclic.data.images import Images, seeded
from simclic.errors import InputError
from simclic.experiment import USUAL, How, Run
from simclic.methods.backbones import backbone
from simclic.progress import Tell
from simclic.provenance import provenance
from simclic.store import results as store
from simclic.store.claim import claimed
from simclic.train.loop import train
from simclic.weights import card
from simclic.weights import init_weights as start
from simclic.weights import load as weights

__all__ = ["calibrate", "described", "prepared", "pretrain", "restored", "train"]


def pretrain(
    run: Run, dataset: Dataset, runs: Path, device: torch.device, tell: Tell = lambda share, note: None, how: How = USUAL
) -> nn.Module:
    """The trained backbone of a Run, frozen, in eval mode: read if it is there, else trained, from its checkpoint if any.

    Images are those of splits.fit. Raises InputError for a backbone that timm does not know or a damaged one,
    Diverged if the loss stops being finite.
    """
    path = store.enter(runs, run, dataset.digest)
    done = store.read_json(path / "pretrain.json")
    if done is None:
        with claimed(path) as still_ours:
            done = store.read_json(path / "pretrain.json")  # somebody may have finished in between
            if done is None:
                for left in (*path.glob(".checkpoint.*"), *path.glob(".backbone.*")):  # by a process killed while it wrote
                    left.unlink(missing_ok=True)
                done = _made(run, dataset, path, device, tell, still_ours, how)
    start.unchanged(run.init, done, path)
    # Read back even if it was just made: what follows must not depend on that.
    return restored(run, path, done).to(device).eval().requires_grad_(False)


def _made(
    run: Run, dataset: Dataset, path: Path, device: torch.device, tell: Tell, still_ours: Callable[[], None], how: How
) -> dict[str, Any]:
    """Train or calibrate, write the weights and what is recorded of them, and clear the checkpoints away."""
    images, fit = prepared(run, dataset, path.parent, device), torch.from_numpy(dataset.splits.fit)
    if run.epochs == 0:
        f, record = calibrate(run, images, fit, path.parent)
    else:
        f, record = train(run, dataset, images, path, tell, still_ours, how)
    payload = weights.pack(f)
    still_ours()
    files.write_bytes(path / "backbone.safetensors", payload)
    done = {
        **record,
        "backbone_sha256": hashlib.sha256(payload).hexdigest(),
        **described(device),
        "deterministic": how.deterministic,
    }
    store.write_json(path / "pretrain.json", {"schema": store.SCHEMA, **done, **provenance()})
    for checkpoint in path.glob("checkpoint*"):
        checkpoint.unlink()
    return done


def prepared(run: Run, dataset: Dataset, runs: Path, device: torch.device, side: int | None = None) -> Images:
    """The images of a data set as a Run's backbone expects them. side: before the centre is cut out; image_size if None."""
    made = store.read_json(store.folder(runs, run) / "pretrain.json")
    normal = made.get("normal") if made else weights.normal(run.init, runs)  # the file that it came from may be gone by now
    return Images(dataset, run.image_size, device, side=side, normal=normal)


def calibrate(run: Run, images: Images, fit: Tensor, runs: Path = store.RUNS) -> tuple[nn.Module, dict[str, Any]]:
    """A backbone that is not trained here. One with random weights gets batch norms that know the training images: without
    that the control is unfairly weak. One that was trained elsewhere stays as it came.

    fit: (n,) indices into images. runs: beside which imported weights lie. Returns the backbone and what is recorded of it.
    """
    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        f = backbone(run)
    init = weights.start(run.init, run.backbone, f, runs) if run.init != "random" else {}
    f = f.to(images.device).train()
    norms = [] if init else [m for m in f.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average over all batches, not the last few
    order = torch.randperm(len(fit), generator=seeded("cpu", run.seed, "calibrate"))
    with torch.no_grad():
        for index in fit[order].split(128) if norms else ():
            f(images(index.to(images.device)))
    return f, {"epochs": 0, "last": {}, "collapsed": "", "resumed": [], **init, "seconds": time.monotonic() - started}


def described(device: torch.device) -> dict[str, Any]:
    """What computes: the device's name and the number of CPU threads, on which the last bits depend; the node and Slurm's job."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    where = {"node": platform.node(), "job": slurm.job(), "restarts": slurm.restarts()}
    return {"device": name, "threads": torch.get_num_threads(), **where}


def restored(run: Run, folder: Path, done: dict[str, Any]) -> nn.Module:
    """The backbone in a Run's folder. done: what pretrain.json holds. Raises InputError if it is not what was written."""
    path = folder / "backbone.safetensors"
    payload = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(payload).hexdigest() != done["backbone_sha256"]:
        raise InputError(f"{path}: not the weights that were written (SHA-256 differs); delete {folder} to train again")
    with torch.random.fork_rng(devices=[]):
        f = weights.unpack(payload, backbone(run))
    card.pad(f, done.get("padding", "symmetric"))
    return f
