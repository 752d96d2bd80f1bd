"""One member of a grid: a copy of the backbone and a new linear layer, trained together under one setting."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from simclic.data import Dataset
from simclic.data.images import Images, seed_of
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions, Finetune
from simclic.methods.backbones import feature_width
from simclic.train.numerics import autocast, first_nonfinite, seed_device

Setting = tuple[float, float]  # learning rate, weight decay


@dataclass(frozen=True)
class FinetuneTask:
    """What all members of a grid share.

    f: the pre-trained backbone, which is copied, not changed. images: whole images, for evaluation. seed: for the new layer, the
    order of the images and their crops.
    """

    protocol: Finetune
    f: nn.Module
    dataset: Dataset
    images: Images
    seed: int
    options: ComputeOptions = DEFAULT_COMPUTE


class Member:
    """A copy of task.f with a new linear layer, trained with one (learning rate, decay). compiled: use torch.compile."""

    def __init__(self, task: FinetuneTask, setting: Setting, compiled: bool = False):
        self.protocol, self.seed, (self.lr, decay) = task.protocol, task.seed, setting
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            head = nn.Linear(feature_width(task.f), task.dataset.facts.classes)
        model = nn.Sequential(copy.deepcopy(task.f), head).to(task.images.device)
        self.model = model.to(memory_format=torch.channels_last).requires_grad_(True).eval()
        if compiled:
            self.model[0].compile()  # once for all members: they differ in their weights alone
        # [11, 47, 49] give SGD the grid's value divided by lr, so that lr x decay is the grid's value.
        weight_decay = decay / self.lr if task.protocol.decay_over_lr else decay
        momentum = task.protocol.momentum
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), self.lr, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay, fused=True
        )
        self.first_bad_step = torch.tensor(-1, device=task.images.device)  # whose loss was not finite; -1 for none

    def step(self, x: Tensor, y: Tensor, step: int) -> None:
        """Take one step of SGD, its learning rate on a cosine to 0. x: (B, 3, S, S). y: (B,) or (B, K), as in finetune_loss."""
        if not self.model.training:
            self.model.train()
            if self.protocol.batch_norm == "eval":
                for norm in (m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
                    norm.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * (1 + math.cos(math.pi * step / self.protocol.steps)) / 2
        seed_device(x.device, seed_of(self.seed, "finetune", step))  # for backbones that draw, as in stochastic depth
        with autocast(x.device, self.protocol.precision):
            features = self.model[0](x)
        loss_value = finetune_loss(self.model[1](features.float()), y)  # in bf16 logits would tie
        loss_value.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()  # now: the next member needs the memory
        self.first_bad_step = first_nonfinite(loss_value, step, self.first_bad_step)

    @property
    def diverged_at(self) -> int:
        """The first step whose loss was not finite, counted from 1; 0 for none. Waits for the device."""
        return int(self.first_bad_step) + 1

    @torch.no_grad()
    def predict_logits(self, x: Tensor) -> np.ndarray:
        """Return the logits of whole images, (B, K) float32, in the precision of training. x: (B, 3, S, S)."""
        self.model.eval()
        with autocast(x.device, self.protocol.precision):
            features = self.model[0].forward(x)  # bypasses torch.compile, which would compile each batch size
        return self.model[1](features.float()).cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs to resume."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "bad": self.first_bad_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what state_dict returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.first_bad_step = state["bad"].to(self.first_bad_step.device)


def finetune_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy, or the binary cross-entropy if images show several classes. Returns a scalar.

    logits: (B, K). labels: (B,) class indices, or (B, K) with 1 for shown, 0 for not shown, -1 for not counted.
    """
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    judged = (labels >= 0).float()
    return binary_cross_entropy_with_logits(logits, labels.clamp_min(0).float(), judged, reduction="sum") / judged.sum()
