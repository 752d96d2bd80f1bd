"""Fine-tuning (Section 4.2): SGD over a grid of learning rates and weight decays, chosen on val, trained again, scored once."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from simclic.data import Dataset
from simclic.data.images import Images, seed_of, seeded
from simclic.method import width
from simclic.metrics import METRICS
from simclic.spec import Diverged, Finetune, Tell
from simclic.store import Scored


def finetune(
    protocol: Finetune, f: nn.Module, dataset: Dataset, images: Images, seed: int, tell: Tell,
    before: Sequence[dict[str, Any]] = (), keep: Callable[[list[dict[str, Any]]], None] = lambda curve: None,
) -> Scored:  # fmt: skip
    """Train every setting on train, choose on val, train the best again on train + val from the same start, score test once.

    f: the pre-trained backbone; it stays as it is. before: rows of the curve that are finished already. keep: called with the
    rows after each setting. A setting that diverges loses; Diverged is raised if all do.
    """
    started, splits = time.monotonic(), dataset.splits
    labels = torch.from_numpy(dataset.labels).to(images.device)
    task = Task(f, images, labels, dataset.facts.classes, seed)
    metric, total = METRICS[dataset.facts.metric], len(protocol.settings) + 1

    curve = [dict(row) for row in before]
    for lr, decay in protocol.settings[len(curve) :]:
        tell(len(curve) / total, f"lr {lr:.1e}, decay {decay:.1e}")
        model = train(protocol, lr, decay, task, splits.train)
        scored = scores(model, images, splits.val)
        finite = bool(np.isfinite(scored).all())
        error = metric(dataset.labels[splits.val], scored) if finite else None
        curve.append({"lr": lr, "decay": decay, "error": error})
        keep(curve)
    kept = [row for row in curve if row["error"] is not None]
    if not kept:
        raise Diverged(f"all {len(curve)} settings of the fine-tuning grid diverged")
    best = min(kept, key=lambda row: row["error"])

    tell(len(curve) / total, "refit")
    model = train(protocol, best["lr"], best["decay"], task, splits.fit)
    truth, test = dataset.labels[splits.test], scores(model, images, splits.test)
    if not np.isfinite(test).all():
        raise Diverged(f"the refit at lr {best['lr']:.1e}, decay {best['decay']:.1e} diverged")
    record = {
        "error": metric(truth, test), "metric": dataset.facts.metric, "curve": curve, "sizes": splits.sizes,
        "chosen": {"lr": best["lr"], "decay": best["decay"], "val_error": best["error"]},
        "seconds": time.monotonic() - started,
    }  # fmt: skip
    return record, truth, test


@dataclass(frozen=True)
class Task:
    """What all members of a grid share: the start, the images with their labels (N,) or (N, classes), the number of classes,
    the seed."""

    f: nn.Module
    images: Images
    labels: Tensor
    classes: int
    seed: int


def train(protocol: Finetune, lr: float, decay: float, task: Task, index: np.ndarray) -> nn.Module:
    """One member of the grid: a copy of task.f and a new linear layer, trained together on the images `index`.

    Every member sees the same images in the same order with the same crops: they depend on seed and step alone.
    """
    images, seed, device = task.images, task.seed, task.images.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(width(task.f), task.classes)
    model = (
        nn.Sequential(copy.deepcopy(task.f), head).to(device).to(memory_format=torch.channels_last).requires_grad_(True).train()
    )
    # [11, 47, 49] hand SGD the grid's value divided by lr, so that lr x decay is what the grid says.
    handed = decay / lr if protocol.decay_over_lr else decay
    optimizer = torch.optim.SGD(
        model.parameters(), lr, momentum=protocol.momentum, nesterov=protocol.momentum > 0, weight_decay=handed, fused=True
    )
    pool = torch.from_numpy(index)
    per_epoch = max(1, len(pool) // protocol.batch_size)
    for step in range(protocol.steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0:
            order = pool[torch.randperm(len(pool), generator=seeded("cpu", seed, "finetune", epoch))]
        batch = order[position * protocol.batch_size : (position + 1) * protocol.batch_size].to(device)
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 + math.cos(math.pi * step / protocol.steps)) / 2
        x = images(batch) if protocol.augment == "none" else images.random_crops(batch, seeded(device, seed, "crops", step))
        torch.manual_seed(seed_of(seed, "finetune", step))  # for backbones that draw, such as those with stochastic depth
        optimizer.zero_grad()
        loss(model(x), task.labels[batch]).backward()
        optimizer.step()
    return model.eval()


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy; binary cross-entropy where an image shows several classes, without those that are not to be judged.

    logits: (B, K). labels: (B,) class indices, or (B, K) with 1, 0 or -1. Returns a scalar.
    """
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    judged = labels >= 0
    return binary_cross_entropy_with_logits(logits[judged], labels[judged].float())


@torch.no_grad()
def scores(model: nn.Module, images: Images, index: np.ndarray) -> np.ndarray:
    """Logits of the whole images, no crops. index: (n,). Returns (n, classes) float32."""
    batches = torch.from_numpy(index).to(images.device).split(256)
    return torch.cat([model(images(batch)).float() for batch in batches]).cpu().numpy()
