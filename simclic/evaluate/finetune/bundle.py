"""Many members of a grid in one pass over the images: each batch is decoded, cut and moved once, then every member steps.

A member alone and a member in a bundle compute the same, so that nothing depends on how many fit into memory.
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
MAX_UNSAVED_SECONDS = 60.0  # seconds of training that scoring may put at risk


class Bundle:
    """Members that see each batch together. phase: which images they are trained on ("grid", "refit"), for the checkpoint."""

    def __init__(self, task: FinetuneTask, settings: Sequence[Setting], phase: str, compiled: bool = False):
        self.task, self.settings, self.phase = task, list(settings), phase
        self.members = [Member(task, setting, compiled) for setting in settings]
        self.step = 0

    def train(
        self,
        train_batches: TrainBatches,
        index: np.ndarray,
        progress: GridProgress,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        """Train for the remaining steps on the images `index`; members that diverge are not trained further.

        on_step: called with the number of steps done. Saves a checkpoint every `options.minutes`. Raises Stopped, after saving,
        if a stop was requested.
        """
        protocol, device, saved = self.task.protocol, self.task.images.device, time.monotonic()
        alive = [m for m in self.members if not m.diverged_at]
        batches = train_batches(index, self.step)
        with stop.boundaries() as stop_requested:
            for step, (x, y) in enumerate(batches, self.step):
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
            progress.save_bundle(self.state_dict())  # what follows takes its time, and cannot be stopped and saved

    def predict_logits(self, index: np.ndarray) -> list[np.ndarray | None]:
        """Of each member the logits of whole images, (n, K) float32, or None if it diverged. index: (n,)."""
        alive = [not m.diverged_at for m in self.members]
        logits: list[list[np.ndarray]] = [[] for _ in self.members]
        for x, _ in self.task.images.stream(torch.from_numpy(index).split(EVAL_BATCH)):
            for i, member in enumerate(self.members):
                if alive[i]:
                    logits[i].append(member.predict_logits(x))
        joined = [np.concatenate(part) if part else None for part in logits]
        return [
            member_logits if member_logits is not None and bool(np.isfinite(member_logits).all()) else None
            for member_logits in joined
        ]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: all that is needed to end bit-identically. Images and draws are functions of the step."""
        members = [m.state_dict() for m in self.members]
        return {"part": self.phase, "settings": self.settings, "step": self.step, "members": members}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's content."""
        for member, member_state in zip(self.members, state["members"], strict=False):  # it may hold more than go on together
            member.load_state_dict(member_state)
        self.step = state["step"]
