"""Algorithm 1: the training loop, checkpoint and resume; the controls that train nothing."""

import hashlib
import io
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simclic import files, store, weights
from simclic.data import Dataset
from simclic.data.images import Images, seed_of, seeded
from simclic.method import SimCLIC, backbone
from simclic.spec import Diverged, InputError, Run, Tell


def pretrain(run: Run, dataset: Dataset, runs: Path, device: torch.device, tell: Tell = lambda share, note: None) -> nn.Module:
    """The trained backbone of a Run, frozen, in eval mode: read if it is there, else trained, from its checkpoint if any.

    Images are those of splits.fit. Raises InputError for a backbone that timm does not know or a damaged one,
    Diverged if the loss stops being finite.
    """
    path = store.enter(runs, run, dataset.digest)
    done = store.read_json(path / "pretrain.json")
    if done is None:
        if run.init != "random":
            raise InputError(f"init={run.init!r}: this version starts from 'random' only")
        images, fit = Images(dataset, run.image_size, device), torch.from_numpy(dataset.splits.fit)
        f, record = calibrate(run, images, fit) if run.epochs == 0 else train(run, images, fit, path, tell)
        payload = weights.pack(f)
        files.write_bytes(path / "backbone.safetensors", payload)
        done = {**record, "backbone_sha256": hashlib.sha256(payload).hexdigest(), **described(device)}
        store.write_json(path / "pretrain.json", {"schema": store.SCHEMA, **done, **store.provenance()})
        for checkpoint in path.glob("checkpoint*"):
            checkpoint.unlink()
    # Read back even if it was just made: what follows must not depend on that.
    return _restored(run, path / "backbone.safetensors", done["backbone_sha256"]).to(device).eval().requires_grad_(False)


def calibrate(run: Run, images: Images, fit: Tensor) -> tuple[nn.Module, dict[str, Any]]:
    """An untrained backbone whose batch norms know the training images: without that the control is unfairly weak.

    fit: (n,) indices into images. Returns the backbone and what is recorded of it.
    """
    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        f = backbone(run).to(images.uint8.device).train()
    norms = [m for m in f.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average over all batches, not the last few
    order = torch.randperm(len(fit), generator=seeded("cpu", run.seed, "calibrate"))
    with torch.no_grad():
        for index in fit[order].split(128) if norms else ():
            f(images(index.to(images.uint8.device)))
    return f, {"epochs": 0, "last": {}, "seconds": time.monotonic() - started}


def train(run: Run, images: Images, fit: Tensor, path: Path, tell: Tell, minutes: float = 10) -> tuple[nn.Module, dict[str, Any]]:
    """Algorithm 1. Learning rate, order and draws are functions of the seed and the step, so little else is saved.

    fit: (n,) indices of the images to train on. path: where log.jsonl and the checkpoint go, the latter every `minutes`.
    Returns the backbone and what is recorded of it: the last epoch's figures and the seconds it took.
    """
    device, size = images.uint8.device, run.batch_size
    per_epoch = len(fit) // size  # the last incomplete batch of an epoch is left out, as SimSiam does
    if per_epoch == 0:
        raise InputError(
            f"batch_size={size} with {len(fit)} training images: not one whole batch; say batch_size={len(fit)} or less"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        model = SimCLIC(run, len(images)).to(device).to(memory_format=torch.channels_last).train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, run.lr, momentum=run.momentum, weight_decay=run.weight_decay, fused=True)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "sums": torch.zeros(4, device=device)}
    resume(path / "checkpoint", run, state, model, optimizer)
    log = Log(path / "log.jsonl", before=state["step"] // per_epoch)

    steps, started, saved = run.epochs * per_epoch, time.monotonic() - state["seconds"], time.monotonic()
    for step in range(state["step"], steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == state["step"]:
            order = fit[torch.randperm(len(fit), generator=seeded("cpu", run.seed, "order", epoch))].to(device)
        index = order[position * size : (position + 1) * size]
        torch.manual_seed(seed_of(run.seed, "model", step))  # for backbones that draw, such as those with stochastic depth
        for group in optimizer.param_groups:
            group["lr"] = run.lr * (1 + math.cos(math.pi * step / steps)) / 2
        with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
            out = model(images(index), index, seeded(device, run.seed, "g", step))
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        state["sums"] += watched(out.loss, out.z, out.z_tilde, out.p if run.perturbs == "p" else out.z)
        if position == per_epoch - 1:
            state["seconds"] = time.monotonic() - started
            log.write(figures(state, epoch, optimizer.param_groups[0]["lr"], per_epoch, size))
            tell((step + 1) / steps, f"epoch {epoch + 1}/{run.epochs}")
        if time.monotonic() - saved > 60 * minutes:
            state |= {"step": step + 1, "seconds": time.monotonic() - started}
            checkpoint(path / "checkpoint", run, state, model, optimizer)
            saved = time.monotonic()
    return model.backbone, {"epochs": run.epochs, "last": log.last, "seconds": time.monotonic() - started}


def watched(loss: Tensor, z: Tensor, z_tilde: Tensor, source: Tensor) -> Tensor:
    """What is averaged over an epoch, left on the device: loss, cos(z, g(z)), spread of z, one. Returns (4,) float32.

    The spread is the deviation over the batch of each coordinate of z / |z|, averaged, times sqrt(d): near 1 for z that
    fill the sphere, 0 when all images have one representation (collapse).
    """
    with torch.no_grad():
        unit = nn.functional.normalize(z.float(), dim=1)
        spread = unit.std(dim=0).mean() * z.shape[1] ** 0.5
        turned = nn.functional.cosine_similarity(source.float(), z_tilde.float(), dim=1).mean()
        return torch.stack([loss.detach().float(), turned, spread, torch.ones_like(spread)])


def figures(state: dict[str, Any], epoch: int, lr: float, steps: int, batch: int) -> dict[str, Any]:
    """One row of the log from the sums over an epoch, which start again at 0. Raises Diverged if the loss is not finite."""
    loss, turned, spread, count = state["sums"].tolist()
    state["sums"].zero_()
    if not math.isfinite(loss):
        raise Diverged(f"the loss is {loss} in epoch {epoch + 1}, learning rate {lr:.3g}")
    speed = (epoch + 1) * steps * batch / state["seconds"]
    row = {"epoch": epoch + 1, "loss": loss / count, "cos(z, g(z))": turned / count, "spread": spread / count}
    return {**row, "lr": lr, "images/s": speed}


class Log:
    """log.jsonl: one row per epoch, cut back to where training resumes."""

    def __init__(self, path: Path, before: int):
        self.path, self.last = path, {}  # type: Path, dict[str, Any]
        lines = path.read_text().splitlines()[:before] if path.is_file() else []
        files.write_bytes(path, "".join(line + "\n" for line in lines).encode())
        if lines:
            self.last = json.loads(lines[-1])

    def write(self, row: dict[str, Any]) -> None:
        """Append one epoch."""
        self.last = row
        with open(self.path, "a") as f:
            f.write(json.dumps(row) + "\n")


def checkpoint(path: Path, run: Run, state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write all that a resumed run needs, atomically, its SHA-256 in front; the one before stays as `.previous`."""
    buffer = io.BytesIO()
    content = {"run": run.name, "state": state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, buffer)
    payload = buffer.getvalue()
    if path.exists():
        os.replace(path, path.with_suffix(".previous"))
    files.write_bytes(path, hashlib.sha256(payload).digest() + payload)


def resume(path: Path, run: Run, state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    """Continue from the newest checkpoint that is whole; torch.load alone would not notice a flipped byte."""
    for file in (path, path.with_suffix(".previous")):
        raw = file.read_bytes() if file.is_file() else b""
        if raw and hashlib.sha256(raw[32:]).digest() == raw[:32]:
            content = torch.load(io.BytesIO(raw[32:]), map_location=state["sums"].device, weights_only=True)
            if content["run"] != run.name:
                raise InputError(f"{file}: is the checkpoint of {content['run']}, not of {run.name}; delete it")
            model.load_state_dict(content["model"])
            optimizer.load_state_dict(content["optimizer"])
            state |= content["state"]
            return True
    return False


def described(device: torch.device) -> dict[str, Any]:
    """What computes: the device's name and the number of CPU threads, on which the last bits depend."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "threads": torch.get_num_threads()}


def _restored(run: Run, path: Path, sha256: str) -> nn.Module:
    payload = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(payload).hexdigest() != sha256:
        raise InputError(f"{path}: not the weights that were written (SHA-256 differs); delete {path.parent} to train again")
    with torch.random.fork_rng(devices=[]):
        return weights.unpack(payload, backbone(run))
