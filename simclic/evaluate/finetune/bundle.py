"""A bundle of grid members, trained in one pass over the images: each batch is decoded, cropped and moved once for all.

A member computes the same alone and in a bundle, so no result depends on how many fit into memory.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from simclic import stop
from simclic.evaluate.finetune.grid_progress import GridProgress
from simclic.evaluate.finetune.member import FinetuneTask, Member, Setting
from simclic.evaluate.finetune.train_batches import TrainBatches
from simclic.train.numerics import should_check_loss

EVAL_BATCH = 256  # whole images at a time
MAX_UNSAVED_SECONDS = 60.0  # of training that may be lost while the bundle is evaluated


class Bundle:
    """Members that see each batch together. phase: "grid" or "refit", recorded in the checkpoint."""

    def __init__(self, task: FinetuneTask, settings: Sequence[Setting], phase: str, compiled: bool = False):
        self.task, self.settings, self.phase = task, list(settings), phase
        self.members = [Member(task, setting, compiled) for setting in settings]
        self.step = 0

    def train(
        self, train_batches: TrainBatches, index: np.ndarray, progress: GridProgress,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> None:  # fmt: skip
        """Train for the remaining steps on the images `index`; members that diverge are not trained further.

        on_step: called with the number of steps done. Saves a checkpoint every `options.minutes`. Raises Stopped, after saving,
        if a stop was requested.
        """
        protocol, device, saved = self.task.protocol, self.task.images.device, time.monotonic()
        alive = [m for m in self.members if not m.diverged_at]
        with stop.delay_stop() as stop_requested:
            for step, (x, y) in enumerate(train_batches(index, self.step), self.step):
                for member in alive:
                    member.step(x, y, step)
                self.step, stopping = step + 1, stop_requested()
                save_due = stopping or time.monotonic() - saved > 60 * self.task.options.minutes
                if save_due or should_check_loss(device, step):
                    alive = [m for m in alive if not m.diverged_at]
                on_step(self.step)
                if save_due and self.step < protocol.steps:
                    progress.save_bundle(self.state_dict())
                    saved = time.monotonic()
                    if stopping:
                        raise stop.Stopped
                if not alive:
                    break
        if time.monotonic() - saved > MAX_UNSAVED_SECONDS:
            progress.save_bundle(self.state_dict())  # evaluation takes a while and saves nothing

    def predict_logits(self, index: np.ndarray) -> list[np.ndarray | None]:
        """Return each member's logits of whole images, (n, K) float32, or None if it diverged. index: (n,)."""
        logits: list[list[np.ndarray]] = [[] for _ in self.members]
        alive = [(member, parts) for member, parts in zip(self.members, logits, strict=True) if not member.diverged_at]
        for x, _ in self.task.images.stream(torch.from_numpy(index).split(EVAL_BATCH)):
            for member, parts in alive:
                parts.append(member.predict_logits(x))
        joined = [np.concatenate(parts) if parts else np.array(np.nan) for parts in logits]
        return [whole if np.isfinite(whole).all() else None for whole in joined]

    def state_dict(self) -> dict[str, Any]:
        """Return the content of a checkpoint. Images and random draws are not in it: they depend on the seed and the step."""
        members = [m.state_dict() for m in self.members]
        return {"part": self.phase, "settings": self.settings, "step": self.step, "members": members}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from the content of a checkpoint, which may hold more members than this bundle."""
        for member, member_state in zip(self.members, state["members"], strict=False):
            member.load_state_dict(member_state)
        self.step = state["step"]
