"""A grid at work: bundle after bundle, as large as memory allows, from wherever it was stopped."""

import copy
import gc
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from simclic.finetune.bundle import Bundle
from simclic.finetune.feed import Feed
from simclic.finetune.kept import Kept
from simclic.finetune.member import Setting, Task
from simclic.loops import full, fused, memory
from simclic.spec import InputError, Tell

SHARE = 1 / 2  # of the memory that is free, for members; the rest is for what one of them computes
SAVED = 4e9  # bytes at most in a checkpoint, so that it takes seconds


class Part(NamedTuple):
    """What a bundle is trained on and judged by: its name, for checkpoints, and (n,) indices of images."""

    name: str
    train: np.ndarray
    judged: np.ndarray


class Grid:
    """What the bundles of a grid share. members: of the largest bundle so far."""

    def __init__(self, task: Task, kept: Kept, tell: Tell = lambda share, note: None):
        self.task, self.kept, self.tell = task, kept, tell
        self.total = len(task.protocol.settings)
        self.feed = Feed(task.protocol, task.dataset, task.images, task.seed, lambda share, note: tell(0.0, note))
        self.compiled, self.members = self._compiled(), 0

    def bundles(self, part: Part, settings: Sequence[Setting]) -> Iterator[list[tuple[int, np.ndarray | None]]]:
        """Train these settings; for each in turn the step at which it diverged or 0, and the logits of part.judged, (n, K), or
        None. They come a bundle at a time; one that a process before left unfinished goes on.

        One for which memory does not suffice is split, with a warning. Raises InputError if a single member is too much.
        """
        left, most = list(settings), fitting(self.task, len(settings))
        while left:
            count = -(-len(left) // -(-len(left) // most))  # all of about the same size
            found = self._bundle(part, left[:count], left)
            if isinstance(found, str):
                most = self._split(count, found)
                continue
            self.members = max(self.members, len(found))
            left = left[len(found) :]
            yield found

    def _bundle(self, part: Part, settings: list[Setting], left: list[Setting]) -> list[tuple[int, np.ndarray | None]] | str:
        """One bundle, or why there was not memory enough. left: among which a saved one may be."""
        saved = self.kept.load()
        if saved is not None:
            before = [(lr, decay) for lr, decay in saved["settings"]]
            if saved["part"] == part.name and before == left[: len(before)]:
                settings = before
            else:
                saved = None
        try:
            bundle = Bundle(self.task, settings, part.name, self.compiled == "yes")
            if saved is not None:
                bundle.restore(saved)
                self.kept.went_on(saved)
                saved = None  # as large as the bundle
            bundle.train(self.feed, part.train, self.kept, lambda step: self._show(part, len(settings), step))
            return list(zip((m.diverged for m in bundle.members), bundle.scores(part.judged), strict=True))
        except (RuntimeError, MemoryError) as e:
            if not full(e):
                raise
            return (str(e).splitlines() or [type(e).__name__])[0]

    def _show(self, part: Part, count: int, step: int) -> None:
        first, steps = len(self.kept.rows), self.task.protocol.steps
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
        saved = self.kept.load()
        if saved is not None:  # half of it can go on
            self.kept.save({**saved, "settings": saved["settings"][:most], "members": saved["members"][:most]})
        told = f"{device} has not enough memory for {count} members of the grid at a time; going on with {most}"
        print(f"warning: {told}", file=sys.stderr)
        return most

    def _compiled(self) -> str:
        """ "yes" if members are to be compiled and can be, or why not."""
        if not self.task.how.compile:
            return "no"
        x = self.task.images(torch.arange(min(self.task.protocol.batch_size, len(self.task.images))))
        return fused(copy.deepcopy(self.task.f).train(), x, self.task.protocol.precision)


def fitting(task: Task, count: int) -> int:
    """How many of `count` members to train at a time: as many as task.how says, or as fit into the memory that is free."""
    if task.how.members:
        return min(count, task.how.members)
    each = sum(2 * p.nbytes for p in task.f.parameters()) + sum(b.nbytes for b in task.f.buffers())  # momentum, too
    room = min(SHARE * memory(task.images.device), SAVED)
    return max(1, min(count, int(room // max(1, each))))
