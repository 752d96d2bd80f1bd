"""What a grid search is trained on: all members see the same images in the same order, cropped and flipped in the same way."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from simclic.data.crops import DRAWS, Crops
from simclic.data.images import seeded_generator
from simclic.evaluate.finetune.member import FinetuneTask
from simclic.progress import Tell
from simclic.train.loop import shuffled_batches
from simclic.train.numerics import available_memory

MEMORY_SHARE = 1 / 2  # of the free memory, for decoded whole images


class TrainBatches:
    """Batches of training images, which depend on the seed and the step alone. on_progress: called while images are decoded."""

    def __init__(self, task: FinetuneTask, on_progress: Tell = lambda share, note: None):
        self.task, self.on_progress = task, on_progress
        self.memory_budget = MEMORY_SHARE * available_memory(torch.device("cpu"))
        self.labels = torch.from_numpy(task.dataset.labels).to(task.images.device)

    def __call__(self, index: np.ndarray, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, 3, S, S) and labels (B,) or (B, K) of each step from `start` on, on the device.

        index: (n,) the images to train on. B is batch_size, or n if there are fewer.
        """
        protocol, seed, steps = self.task.protocol, self.task.seed, range(start, self.task.protocol.steps)
        order = shuffled_batches(torch.from_numpy(index), protocol.batch_size, steps, seed, "finetune")
        if protocol.augment == "none":
            batches = self.task.images.stream(order)
        else:
            count = min(protocol.batch_size, len(index))
            draws = (torch.rand(count, DRAWS, generator=seeded_generator("cpu", seed, "crops", step)) for step in steps)
            batches = self.crops.stream(order, draws)
        for x, batch_index in batches:
            yield x, self.labels[batch_index]

    @cached_property
    def crops(self) -> Crops:
        """The whole images of train and val, to crop from."""
        dataset = self.task.dataset
        return Crops(dataset, self.task.images, dataset.splits.fit, self.memory_budget, self.on_progress)
