"""A grid at work: bundle after bundle, as large as memory allows, from wherever it was stopped."""

import copy
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from simclic.errors import InputError
from simclic.evaluate.finetune.bundle import Bundle
from simclic.evaluate.finetune.feed import Feed
from simclic.evaluate.finetune.kept import Kept
from simclic.evaluate.finetune.member import Setting, Task
from simclic.experiment.protocol import CHECKPOINT_BYTES
from simclic.progress import Tell
from simclic.train.numerics import available_memory, is_out_of_memory, try_compile

SHARE = 1 / 2  # of the memory that is free, for members; the rest is for what one of them computes
SAVED = CHECKPOINT_BYTES
EVERY = 0.25  # seconds between two words of how far it is


Judged = tuple[int, np.ndarray | None]  # the step at which a member diverged or 0, and logits of the images judged, (n, K)


class Part(NamedTuple):
    """What a bundle is trained on and judged by: its name, for checkpoints, and (n,) indices of images."""

    name: str
    train: np.ndarray
    judged: np.ndarray


class Grid:
    """What the bundles of a grid share."""

    def __init__(self, task: Task, kept: Kept, tell: Tell = lambda share, note: None):
        self.task, self.kept, self.tell = task, kept, tell
        self.total = len(task.protocol.settings)
        self.feed = Feed(task.protocol, task.dataset, task.images, task.seed, lambda share, note: tell(0.0, note))
        self.compiled, self.told = self._compiled(), 0.0

    def bundles(self, part: Part, settings: Sequence[Setting]) -> Iterator[list[Judged]]:
        """Train these settings and judge each. They come a bundle at a time; one that a process before left unfinished goes on.

        One for which memory does not suffice is split, with a warning. Raises InputError if a single member is too much.
        """
        left, most = list(settings), fitting(self.task, len(settings))
        while left:
            count, found, why = self._bundle(part, left, most)
            gc.collect()  # torch.compile ties members into knots that would stay for a while
            if found is None:
                most = self._split(count, why)
                continue
            self.kept.members = max(self.kept.members, count)
            left = left[count:]
            yield found

    def _bundle(self, part: Part, left: list[Setting], most: int) -> tuple[int, list[Judged] | None, str]:
        """How many members the next bundle has, what is found of them, or why there was not memory enough.

        The first `most` of those that a process before left unfinished go on; otherwise all bundles are about as large.
        """
        count = -(-len(left) // -(-len(left) // most))
        try:
            saved = self.kept.load()
            if saved is not None and _first(saved, part, left):
                count = min(len(saved["settings"]), most)
            else:
                saved = None
            bundle = Bundle(self.task, left[:count], part.name, self.compiled == "yes")
            if saved is not None:
                bundle.restore(saved)
                self.kept.went_on(saved)
            saved = None  # as large as the bundle
            bundle.train(self.feed, part.train, self.kept, lambda step: self._show(part, count, step))
            return count, list(zip((m.diverged for m in bundle.members), bundle.scores(part.judged), strict=True)), ""
        except (RuntimeError, MemoryError) as e:
            if not is_out_of_memory(e):
                raise
            return count, None, (str(e).splitlines() or [type(e).__name__])[0]

    def _show(self, part: Part, count: int, step: int) -> None:
        first, steps = len(self.kept.rows), self.task.protocol.steps
        if time.monotonic() - self.told < EVERY and step < steps:
            return
        self.told = time.monotonic()
        which = f"settings {first + 1}-{first + count} of {self.total}" if part.name == "grid" else "refit"
        self.tell((first + count * step / steps) / (self.total + 1), f"{which}, step {step:,} of {steps:,}")

    def _split(self, count: int, why: str) -> int:
        """How many members to try after so many did not fit. Raises InputError after a single one."""
        gc.collect()
        device, protocol = self.task.images.device, self.task.protocol
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if count == 1:
            what = f"one member of the grid, batches of {protocol.batch_size} at {self.task.images.size} pixels"
            raise InputError(f"{device} has not enough memory for {what}; use a larger one, or fewer processes on it ({why})")
        most = (count + 1) // 2
        told = f"{device} has not enough memory for {count} members of the grid at a time; going on with {most}"
        print(f"warning: {told}", file=sys.stderr)
        return most

    def _compiled(self) -> str:
        """ "yes" if members are to be compiled and can be, or why not."""
        if not self.task.how.compile:
            return "no"
        x = self.task.images(torch.arange(min(self.task.protocol.batch_size, len(self.task.images))))
        f = copy.deepcopy(self.task.f).to(memory_format=torch.channels_last).train()  # as members are
        return try_compile(f, x, self.task.protocol.precision)


def _first(saved: dict[str, Any], part: Part, left: list[Setting]) -> bool:
    """Is a bundle that was saved the first of what is left to do?"""
    before = [(lr, decay) for lr, decay in saved["settings"]]
    return saved["part"] == part.name and bool(before) and before == left[: len(before)]


def fitting(task: Task, count: int) -> int:
    """How many of `count` members to train at a time: as many as task.how says, or as fit into the memory that is free and into
    a checkpoint of 4 GB."""
    if task.how.members:
        return min(count, task.how.members)
    if task.images.device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps for itself is free, too
    each = sum(2 * p.nbytes for p in task.f.parameters()) + sum(b.nbytes for b in task.f.buffers())  # momentum, too
    room = min(SHARE * available_memory(task.images.device) / task.how.per_gpu, SAVED)
    return max(1, min(count, int(room // max(1, each))))
