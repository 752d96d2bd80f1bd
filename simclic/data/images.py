"""Decoded images on the device that computes, normalised and enlarged there: without augmentation a data set is a constant."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from simclic.data import Dataset
from simclic.data.decoded import keep_in_flight

AHEAD = 2  # batches that are fetched or cut while one is computed with


class Images:
    """A data set's images, batch by batch as a network wants them.

    size: pixels along each side of what comes out. side: pixels of the shorter side before that is cut out of the centre; size
    if None. They are held on the device if they fill no more than 60 % of what is free there, else they stay in the mapped file,
    or are decoded as they are needed, and a thread fetches ahead. resident: decides that instead.
    normal: mean and deviation per channel, of pixels in [0, 1]; the data set's own if None.
    Called with (B,) indices, returns (B, 3, size, size) float32.
    """

    def __init__(self, dataset: Dataset, size: int, device: torch.device, resident: bool | None = None, side: int | None = None,
        normal: Sequence[Sequence[float]] | None = None,
    ):  # fmt: skip
        if not isinstance(dataset.images, np.ndarray):
            resident = False
        elif resident is None:
            resident = device.type != "cuda" or dataset.images.nbytes <= 0.6 * torch.cuda.mem_get_info(device)[0]
        self.uint8 = map_images(dataset.images) if isinstance(dataset.images, np.ndarray) else dataset.images
        if resident and isinstance(self.uint8, Tensor):
            self.uint8 = self.uint8.to(device)
        self.size, self.side, self.device, self.resident = size, side or size, device, resident
        shape = (1, 3, 1, 1)
        mean, std = normal or (dataset.facts.mean, dataset.facts.std)
        self.interpolation = dataset.interpolation
        self.mean, self.std = (torch.tensor(values, device=device).reshape(shape) for values in (mean, std))

    def __len__(self) -> int:
        return len(self.uint8)

    def __call__(self, index: Tensor) -> Tensor:
        return self.prepare(self.fetch(index))

    def prepare(self, pixels: Tensor) -> Tensor:
        """Return stored pixels, (B, 3, H, W) uint8, as input of a network: (B, 3, size, size) float32."""
        return self.normalise(self.resize(pixels.float()))

    def fetch(self, index: Tensor) -> Tensor:
        """Return stored pixels on the device, (B, 3, H, W) uint8. index: (B,) on any device."""
        if self.resident and isinstance(self.uint8, Tensor):
            return self.uint8[index.to(self.device)]
        return self._staged(index.cpu()).to(self.device, non_blocking=True)

    def stream(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, indices) on the device of each batch of indices, (B,) on the CPU. Fetch two batches ahead if needed."""
        return ((self.prepare(pixels), index) for pixels, index in self.stream_pixels(batches))

    def stream_pixels(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield as `stream`, with stored pixels, (B, 3, H, W) uint8, in place of images."""
        if self.resident:
            for index in batches:
                there = index.to(self.device, non_blocking=True)
                yield self.fetch(there), there
            return
        with ThreadPoolExecutor(1) as pool:
            for staged, index in keep_in_flight(((pool.submit(self._staged, index), index) for index in batches), AHEAD):
                yield staged.result().to(self.device, non_blocking=True), index.to(self.device, non_blocking=True)

    def _staged(self, index: Tensor) -> Tensor:
        """Return pixels from the mapped file or from image files, in pinned memory for a GPU."""
        x = torch.as_tensor(self.uint8[index])
        return x.pin_memory() if self.device.type == "cuda" else x

    def resize(self, x: Tensor) -> Tensor:
        """Resize the shorter side to `side` with PIL's weights, then crop the centre.

        Near PIL, not equal: PIL rounds and clips after each of its two passes. Photographs enlarged from 32 to 224 pixels differ
        by a quarter of a grey level in the mean; by up to 9 at an edge beside black or white.

        x: (B, 3, H, W) in [0, 255]. Returns (B, 3, size, size) in [0, 255].
        """
        height, width = x.shape[-2:]
        shorter = min(height, width)
        if shorter != self.side:
            sides = (round(height * self.side / shorter), round(width * self.side / shorter))
            # Enlarging too: without antialias torch's cubic has another parameter than PIL's, -0.75 for -0.5.
            x = F.interpolate(x, sides, mode=self.interpolation, antialias=True).clamp_(0, 255)
        top, left = (x.shape[-2] - self.size) // 2, (x.shape[-1] - self.size) // 2
        return x[..., top : top + self.size, left : left + self.size]

    def normalise(self, x: Tensor) -> Tensor:
        """Normalise pixels in [0, 255] to zero mean and unit deviation per channel, laid out channels-last.

        x: (B, 3, H, W) float32; it is overwritten, which halves the time.
        """
        return x.div_(255).sub_(self.mean).div_(self.std).contiguous(memory_format=torch.channels_last)


def map_images(images: np.ndarray) -> Tensor:
    """Return a data set's images as a tensor over their memory-mapped file, which is read-only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(images)


def seeded_generator(device: str | torch.device, *key: int | str) -> torch.Generator:
    """Return a generator that depends only on `key`, so that a draw does not depend on earlier draws."""
    return torch.Generator(device).manual_seed(seed_of(*key))


def seed_of(*key: int | str) -> int:
    """Return a number in [0, 2^63) that depends only on `key`."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1
