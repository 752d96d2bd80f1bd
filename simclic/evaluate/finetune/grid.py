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
from simclic.evaluate.finetune.grid_progress import GridProgress
from simclic.evaluate.finetune.member import FinetuneTask, Setting
from simclic.evaluate.finetune.train_batches import TrainBatches
from simclic.experiment.protocol import CHECKPOINT_BYTES
from simclic.progress import Tell
from simclic.train.numerics import available_memory, is_out_of_memory, try_compile

MEMORY_SHARE = 1 / 2  # of the memory that is free, for members; the rest is for what one of them computes
MAX_CHECKPOINT_BYTES = CHECKPOINT_BYTES
PROGRESS_INTERVAL = 0.25  # seconds between two words of how far it is


JudgedMember = tuple[int, np.ndarray | None]  # the step at which a member diverged or 0, and logits of the images judged, (n, K)


class Phase(NamedTuple):
    """What a bundle is trained on and judged by: its name, for checkpoints, and (n,) indices of images."""

    name: str
    train_index: np.ndarray
    eval_index: np.ndarray


class GridSearch:
    """What the bundles of a grid share."""

    def __init__(self, task: FinetuneTask, progress: GridProgress, on_progress: Tell = lambda share, note: None):
        self.task, self.progress, self.on_progress = task, progress, on_progress
        self.total = len(task.protocol.settings)
        self.train_batches = TrainBatches(
            task.protocol, task.dataset, task.images, task.seed, lambda share, note: on_progress(0.0, note)
        )
        self.compiled, self.last_report = self._try_compile(), 0.0

    def train_bundles(self, phase: Phase, settings: Sequence[Setting]) -> Iterator[list[JudgedMember]]:
        """Train these settings and judge each. They come a bundle at a time; one that a process before left unfinished goes on.

        One for which memory does not suffice is split, with a warning. Raises InputError if a single member is too much.
        """
        remaining, max_members = list(settings), count_fitting_members(self.task, len(settings))
        while remaining:
            count, judged, reason = self._train_bundle(phase, remaining, max_members)
            gc.collect()  # torch.compile ties members into knots that would stay for a while
            if judged is None:
                max_members = self._halve_bundle(count, reason)
                continue
            self.progress.members = max(self.progress.members, count)
            remaining = remaining[count:]
            yield judged

    def _train_bundle(
        self, phase: Phase, remaining: list[Setting], max_members: int
    ) -> tuple[int, list[JudgedMember] | None, str]:
        """How many members the next bundle has, what is found of them, or why there was not memory enough.

        The first `most` of those that a process before left unfinished go on; otherwise all bundles are about as large.
        """
        count = -(-len(remaining) // -(-len(remaining) // max_members))
        try:
            saved = self.progress.load_bundle()
            if saved is not None and _continues_bundle(saved, phase, remaining):
                count = min(len(saved["settings"]), max_members)
            else:
                saved = None
            bundle = Bundle(self.task, remaining[:count], phase.name, self.compiled == "yes")
            if saved is not None:
                bundle.load_state_dict(saved)
                self.progress.resume_from(saved)
            saved = None  # as large as the bundle
            bundle.train(self.train_batches, phase.train_index, self.progress, lambda step: self._report_step(phase, count, step))
            return (
                count,
                list(zip((m.diverged_at for m in bundle.members), bundle.predict_logits(phase.eval_index), strict=True)),
                "",
            )
        except (RuntimeError, MemoryError) as e:
            if not is_out_of_memory(e):
                raise
            return count, None, (str(e).splitlines() or [type(e).__name__])[0]

    def _report_step(self, phase: Phase, count: int, step: int) -> None:
        first, steps = len(self.progress.rows), self.task.protocol.steps
        if time.monotonic() - self.last_report < PROGRESS_INTERVAL and step < steps:
            return
        self.last_report = time.monotonic()
        which = f"settings {first + 1}-{first + count} of {self.total}" if phase.name == "grid" else "refit"
        self.on_progress((first + count * step / steps) / (self.total + 1), f"{which}, step {step:,} of {steps:,}")

    def _halve_bundle(self, count: int, reason: str) -> int:
        """How many members to try after so many did not fit. Raises InputError after a single one."""
        gc.collect()
        device, protocol = self.task.images.device, self.task.protocol
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if count == 1:
            what = f"one member of the grid, batches of {protocol.batch_size} at {self.task.images.size} pixels"
            raise InputError(f"{device} has not enough memory for {what}; use a larger one, or fewer processes on it ({reason})")
        max_members = (count + 1) // 2
        warning = f"{device} has not enough memory for {count} members of the grid at a time; going on with {max_members}"
        print(f"warning: {warning}", file=sys.stderr)
        return max_members

    def _try_compile(self) -> str:
        """ "yes" if members are to be compiled and can be, or why not."""
        if not self.task.options.compile:
            return "no"
        x = self.task.images(torch.arange(min(self.task.protocol.batch_size, len(self.task.images))))
        f = copy.deepcopy(self.task.f).to(memory_format=torch.channels_last).train()  # as members are
        return try_compile(f, x, self.task.protocol.precision)


def _continues_bundle(saved: dict[str, Any], phase: Phase, remaining: list[Setting]) -> bool:
    """Is a bundle that was saved the first of what is left to do?"""
    before = [(lr, decay) for lr, decay in saved["settings"]]
    return saved["part"] == phase.name and bool(before) and before == remaining[: len(before)]


def count_fitting_members(task: FinetuneTask, count: int) -> int:
    """How many of `count` members to train at a time: as many as task.how says, or as fit into the memory that is free and into
    a checkpoint of 4 GB."""
    if task.options.members:
        return min(count, task.options.members)
    if task.images.device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps for itself is free, too
    member_bytes = sum(2 * p.nbytes for p in task.f.parameters()) + sum(b.nbytes for b in task.f.buffers())  # momentum, too
    memory_budget = min(MEMORY_SHARE * available_memory(task.images.device) / task.options.per_gpu, MAX_CHECKPOINT_BYTES)
    return max(1, min(count, int(memory_budget // max(1, member_bytes))))
