"""The grid search of fine-tuning: settings trained in bundles as large as memory allows, resumed where they were stopped."""

import copy
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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

MEMORY_SHARE = 1 / 2  # of the free memory, for members; the rest is for the activations of one of them
MAX_CHECKPOINT_BYTES = CHECKPOINT_BYTES
PROGRESS_INTERVAL = 0.25  # seconds between two progress reports

JudgedMember = tuple[int, np.ndarray | None]  # the step at which it diverged or 0; logits of the evaluated images, (n, K)


class Phase(NamedTuple):
    """A phase of fine-tuning ("grid" or "refit"), and the (n,) indices of the images to train on and to evaluate."""

    name: str
    train_index: np.ndarray
    eval_index: np.ndarray


class GridSearch:
    """Trains settings bundle by bundle. compiled: "yes" if members are compiled, otherwise why not."""

    def __init__(self, task: FinetuneTask, progress: GridProgress, on_progress: Tell = lambda share, note: None):
        self.task, self.progress, self.on_progress, self.last_report = task, progress, on_progress, 0.0
        self.train_batches = TrainBatches(task, lambda share, note: on_progress(0.0, note))
        self.compiled = "no"
        if task.options.compile:
            x = task.images(torch.arange(min(task.protocol.batch_size, len(task.images))))
            f = copy.deepcopy(task.f).to(memory_format=torch.channels_last).train()  # as members are
            self.compiled = try_compile(f, x, task.protocol.precision)

    def train_bundles(self, phase: Phase, settings: Sequence[Setting]) -> Iterator[list[JudgedMember]]:
        """Train and evaluate these settings; yield the members of one bundle at a time. An unfinished bundle is resumed.

        A bundle that runs out of memory is halved, with a warning. Raises InputError if a single member does not fit.
        """
        remaining, max_members = list(settings), count_fitting_members(self.task, len(settings))
        while remaining:
            count, judged, reason = self._train_bundle(phase, remaining, max_members)
            gc.collect()  # torch.compile leaves reference cycles, which would keep the members' memory
            if judged is None:
                max_members = self._halve_bundle(count, reason)
                continue
            self.progress.members = max(self.progress.members, count)
            remaining = remaining[count:]
            yield judged

    def _train_bundle(
        self, phase: Phase, remaining: list[Setting], max_members: int
    ) -> tuple[int, list[JudgedMember] | None, str]:
        """Return the size of the next bundle and its members, or None and the reason if it ran out of memory.

        A saved bundle is resumed, with its first `max_members` members; otherwise all bundles are about equally large.
        """
        count = -(-len(remaining) // -(-len(remaining) // max_members))
        try:
            saved = self.progress.load_bundle()
            settings = [(lr, decay) for lr, decay in saved["settings"]] if saved and saved["part"] == phase.name else []
            if settings and settings == remaining[: len(settings)]:
                count = min(len(settings), max_members)
            else:
                saved = None
            bundle = Bundle(self.task, remaining[:count], phase.name, self.compiled == "yes")
            if saved is not None:
                bundle.load_state_dict(saved)
                self.progress.resume_from(saved)
            saved = None  # as large as the bundle
            bundle.train(self.train_batches, phase.train_index, self.progress, lambda step: self._report_step(phase, count, step))
            logits = bundle.predict_logits(phase.eval_index)
            return count, list(zip((m.diverged_at for m in bundle.members), logits, strict=True)), ""
        except (RuntimeError, MemoryError) as e:
            if not is_out_of_memory(e):
                raise
            return count, None, (str(e).splitlines() or [type(e).__name__])[0]

    def _report_step(self, phase: Phase, count: int, step: int) -> None:
        first, steps, total = len(self.progress.rows), self.task.protocol.steps, len(self.task.protocol.settings)
        if time.monotonic() - self.last_report < PROGRESS_INTERVAL and step < steps:
            return
        self.last_report = time.monotonic()
        members = f"settings {first + 1}-{first + count} of {total}" if phase.name == "grid" else "refit"
        self.on_progress((first + count * step / steps) / (total + 1), f"{members}, step {step:,} of {steps:,}")

    def _halve_bundle(self, count: int, reason: str) -> int:
        """Return the size to try after a bundle of `count` members did not fit. Raises InputError if it was a single member."""
        device, protocol = self.task.images.device, self.task.protocol
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if count == 1:
            member = f"one member of the grid, batches of {protocol.batch_size} at {self.task.images.size} pixels"
            raise InputError(
                f"{device} has not enough memory for {member}; use a larger one, or fewer processes on it ({reason})"
            )
        smaller = (count + 1) // 2
        shortage = f"{device} has not enough memory for {count} members of the grid at a time"
        print(f"warning: {shortage}; going on with {smaller}", file=sys.stderr)
        return smaller


def count_fitting_members(task: FinetuneTask, count: int) -> int:
    """Return how many of `count` members to train at a time: options.members, or what fits into memory and a checkpoint."""
    if task.options.members:
        return min(count, task.options.members)
    if task.images.device.type == "cuda":
        torch.cuda.empty_cache()  # memory that torch caches is free, too
    member_bytes = sum(2 * p.nbytes for p in task.f.parameters()) + sum(b.nbytes for b in task.f.buffers())  # momentum, too
    free_bytes = MEMORY_SHARE * available_memory(task.images.device) / task.options.per_gpu
    return max(1, min(count, int(min(free_bytes, MAX_CHECKPOINT_BYTES) // max(1, member_bytes))))
