"""Many members of a grid in one pass over the images: each batch is decoded, cut and moved once, then every member steps.

A member alone and a member in a bundle compute the same, so that nothing depends on how many fit into memory.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from simclic import stop
from simclic.evaluate.finetune.feed import Feed
from simclic.evaluate.finetune.kept import Kept
from simclic.evaluate.finetune.member import Member, Setting, Task
from simclic.train.numerics import should_check_loss

BATCH = 256  # whole images at a time
UNSAVED = 60.0  # seconds of training that scoring may put at risk


class Bundle:
    """Members that see each batch together. part: which images they are trained on ("grid", "refit"), for the checkpoint."""

    def __init__(self, task: Task, settings: Sequence[Setting], part: str, compiled: bool = False):
        self.task, self.settings, self.part = task, list(settings), part
        self.members = [Member(task, setting, compiled) for setting in settings]
        self.step = 0

    def train(self, feed: Feed, index: np.ndarray, kept: Kept, show: Callable[[int], None] = lambda step: None) -> None:
        """All steps that are left, on the images `index`; members that diverge are left behind.

        show: called with the number of steps done. Saves a checkpoint now and then. Raises Stopped once it is saved if that was
        asked for.
        """
        protocol, device, saved = self.task.protocol, self.task.images.device, time.monotonic()
        alive = [m for m in self.members if not m.diverged]
        batches = feed(index, self.step)
        with stop.boundaries() as asked:
            for step, (x, y) in enumerate(batches, self.step):
                for member in alive:
                    member.step(x, y, step)
                self.step, stopping = step + 1, asked()
                due = stopping or time.monotonic() - saved > 60 * self.task.how.minutes
                if due or should_check_loss(device, step):
                    alive = [m for m in alive if not m.diverged]
                show(self.step)
                if due and self.step < protocol.steps:
                    kept.save(self.content())
                    saved = time.monotonic()
                    if stopping:
                        raise stop.Stopped
                if not alive:
                    break
        if time.monotonic() - saved > UNSAVED:
            kept.save(self.content())  # what follows takes its time, and cannot be stopped and saved

    def scores(self, index: np.ndarray) -> list[np.ndarray | None]:
        """Of each member the logits of whole images, (n, K) float32, or None if it diverged. index: (n,)."""
        alive = [not m.diverged for m in self.members]
        found: list[list[np.ndarray]] = [[] for _ in self.members]
        for x, _ in self.task.images.stream(torch.from_numpy(index).split(BATCH)):
            for i, member in enumerate(self.members):
                if alive[i]:
                    found[i].append(member.scores(x))
        joined = [np.concatenate(part) if part else None for part in found]
        return [one if one is not None and bool(np.isfinite(one).all()) else None for one in joined]

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds: all that is needed to end bit-identically. Images and draws are functions of the step."""
        members = [m.content() for m in self.members]
        return {"part": self.part, "settings": self.settings, "step": self.step, "members": members}

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint's content."""
        for member, one in zip(self.members, content["members"], strict=False):  # it may hold more than go on together
            member.restore(one)
        self.step = content["step"]
