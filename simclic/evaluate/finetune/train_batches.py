"""What a grid is trained on: its members all see the same images in the same order, cut and mirrored in the same way."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from simclic.data import Dataset
from simclic.data.crops import DRAWS, Crops
from simclic.data.images import Images, seeded
from simclic.experiment import Finetune
from simclic.progress import Tell
from simclic.train.numerics import available_memory

MEMORY_SHARE = 1 / 2  # of the memory that is free, for decoded whole images


class TrainBatches:
    """Batches of training images: functions of the seed and the step alone.

    images: whole images as in evaluation, which also say where batches go. on_progress: for decoding, which may take a minute.
    """

    def __init__(
        self, protocol: Finetune, dataset: Dataset, images: Images, seed: int, on_progress: Tell = lambda share, note: None
    ):
        self.protocol, self.dataset, self.images, self.seed, self.on_progress = protocol, dataset, images, seed, on_progress
        self.memory_budget = MEMORY_SHARE * available_memory(torch.device("cpu"))
        self.labels = torch.from_numpy(dataset.labels).to(images.device)

    def __call__(self, index: np.ndarray, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) of each step from `start` on, on the device: (B, 3, S, S), and (B,) or (B, K).

        index: (n,) the images to train on. B is batch_size, or n if there are fewer.
        """
        order = self._shuffled_batches(torch.from_numpy(index), start)
        if self.protocol.augment == "none":
            batches = self.images.stream(order)
        else:
            batches = self.crops.stream(order, self._crop_draws(min(self.protocol.batch_size, len(index)), start))
        for x, which in batches:
            yield x, self.labels[which]

    @cached_property
    def crops(self) -> Crops:
        """Whole images to cut from, of train and val."""
        return Crops(self.dataset, self.images, self.dataset.splits.fit, self.memory_budget, self.on_progress)

    def _shuffled_batches(self, pool: Tensor, start: int) -> Iterator[Tensor]:
        """The images of each step, (B,): another permutation in every epoch, whose last incomplete batch is left out."""
        size = self.protocol.batch_size
        per_epoch = max(1, len(pool) // size)
        for step in range(start, self.protocol.steps):
            epoch, position = divmod(step, per_epoch)
            if position == 0 or step == start:
                order = pool[torch.randperm(len(pool), generator=seeded("cpu", self.seed, "finetune", epoch))]
            yield order[position * size : (position + 1) * size]

    def _crop_draws(self, count: int, start: int) -> Iterator[Tensor]:
        for step in range(start, self.protocol.steps):
            yield torch.rand(count, DRAWS, generator=seeded("cpu", self.seed, "crops", step))
