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
from simclic.experiment import USUAL, Finetune, How
from simclic.methods.backbones import feature_width
from simclic.train.numerics import autocast, first_nonfinite, seed_device

Setting = tuple[float, float]  # learning rate, weight decay


@dataclass(frozen=True)
class FinetuneTask:
    """What all members of a grid share.

    f: the pre-trained backbone; it stays as it is. images: whole images, for evaluation. seed: of the new layer, the order of
    the images and their crops.
    """

    protocol: Finetune
    f: nn.Module
    dataset: Dataset
    images: Images
    seed: int
    options: How = USUAL


class Member:
    """A copy of task.f and a new linear layer; lr and decay are the grid's values. compiled: let torch.compile fuse the copy."""

    def __init__(self, task: FinetuneTask, setting: Setting, compiled: bool = False):
        self.protocol, self.seed, (self.lr, decay) = task.protocol, task.seed, setting
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            head = nn.Linear(feature_width(task.f), task.dataset.facts.classes)
        model = nn.Sequential(copy.deepcopy(task.f), head).to(task.images.device)
        self.model = model.to(memory_format=torch.channels_last).requires_grad_(True).eval()
        if compiled:
            self.model[0].compile()  # once for all members: they differ in their weights alone
        # [11, 47, 49] hand SGD the grid's value divided by lr, so that lr x decay is what the grid says.
        weight_decay = decay / self.lr if task.protocol.decay_over_lr else decay
        momentum = task.protocol.momentum
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), self.lr, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay, fused=True
        )
        self.first_bad_step = torch.tensor(-1, device=task.images.device)  # the first step whose loss was not finite

    def step(self, x: Tensor, y: Tensor, step: int) -> None:
        """One step of SGD, its learning rate on a cosine to 0. x: (B, 3, S, S). y: as for `loss`."""
        if not self.model.training:
            self._into_training()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * (1 + math.cos(math.pi * step / self.protocol.steps)) / 2
        seed_device(
            x.device, seed_of(self.seed, "finetune", step)
        )  # for backbones that draw, such as those with stochastic depth
        with autocast(x.device, self.protocol.precision):
            features = self.model[0](x)
        loss_value = finetune_loss(self.model[1](features.float()), y)  # logits in bf16 would have ties
        loss_value.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()  # now, so that the next member finds room for its own
        self.first_bad_step = first_nonfinite(loss_value, step, self.first_bad_step)

    def _into_training(self) -> None:
        """Train mode, but for batch norms whose statistics stay."""
        self.model.train()
        if self.protocol.batch_norm == "eval":
            for norm in (m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
                norm.eval()

    @property
    def diverged_at(self) -> int:
        """The first step whose loss was not finite, counted from 1; 0 if there was none. Waits for the device."""
        return int(self.first_bad_step) + 1

    @torch.no_grad()
    def predict_logits(self, x: Tensor) -> np.ndarray:
        """Logits of whole images in the precision it was trained in. x: (B, 3, S, S). Returns (B, K) float32."""
        self.model.eval()
        with autocast(x.device, self.protocol.precision):
            features = self.model[0].forward(x)  # past torch.compile: every other batch size would be compiled, too
        return self.model[1](features.float()).cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "bad": self.first_bad_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.first_bad_step = state["bad"].to(self.first_bad_step.device)


def finetune_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy; binary cross-entropy where an image shows several classes, without those that are not to be judged.

    logits: (B, K). labels: (B,) class indices, or (B, K) with 1, 0 or -1. Returns a scalar.
    """
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    judged = (labels >= 0).float()
    return binary_cross_entropy_with_logits(logits, labels.clamp_min(0).float(), judged, reduction="sum") / judged.sum()
