"""Random resized crops with horizontal flips, cut from whole images that are decoded once or each time."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from simclic.data import Dataset
from simclic.data.decoded import keep_in_flight, map_in_order
from simclic.data.image_file import count_pixels, decode_whole
from simclic.data.images import AHEAD, Images, map_images
from simclic.progress import Tell

TRIES = 10  # to find a crop that fits into the image
DRAWS = 4 * TRIES + 1  # numbers that decide a crop
CHUNK = 8  # images that a thread cuts at a time


class CropRule(NamedTuple):
    """How a crop is drawn. area: as a share of the image. aspect: width over height. p_flip: the probability of a flip."""

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    p_flip: float = 0.5


DEFAULT_RULE = CropRule()  # fine-tuning's


class Crops:
    """The images of `index`, whole, to cut from.

    index: (n,) of the data set's images. images: normalises what comes out and says how large it is and where it goes. room:
    bytes of memory that decoded images may fill; if they are more they are decoded from their files each time, to the same bits.
    Crops are cut on the CPU, some batches ahead: the same bits on every machine, and a device has better things to do.
    """

    def __init__(self, dataset: Dataset, images: Images, index: np.ndarray, room: float, tell: Tell = lambda share, note: None):
        self.images, self.files, self.kept = images, dataset.files, dict[int, Tensor]()
        self.decode = partial(decode_whole, upright=dataset.upright)
        self.stored = map_images(dataset.images) if isinstance(dataset.images, np.ndarray) else None
        if self.files:
            paths = [self.files[i] for i in index]
            if 3 * sum(map_in_order(count_pixels, paths)) <= room:
                for n, (i, pixels) in enumerate(zip(index.tolist(), map_in_order(self.decode, paths), strict=True), 1):
                    self.kept[i] = torch.from_numpy(pixels)
                    tell(n / len(index), f"decoding {n:,} of {len(index):,} whole images")

    @property
    def decodes_each_time(self) -> bool:
        """Whether files are decoded again for each crop."""
        return bool(self.files) and not self.kept

    def stream(self, batches: Iterable[Tensor], draws: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (crops, indices) of each batch on the device: (B, 3, size, size) normalised float32, (B,).

        batches: (B,) indices on the CPU. draws: (B, DRAWS) of [0, 1) for each of them, which decide everything.
        """
        cutter = Cutter(self._read_pixels, (DEFAULT_RULE,), self.images, self.images.interpolation)
        return (
            (self.images.normalise(pixels[:, 0].float()), index)
            for pixels, index in cutter.stream(batches, (u[:, None] for u in draws))
        )

    def _read_pixels(self, i: int) -> np.ndarray:
        """Return a whole image: (3, H, W) uint8."""
        if self.stored is not None and not self.files:
            return self.stored[i].numpy()
        pixels = self.kept[i].numpy() if self.kept else self.decode(self.files[i])
        return pixels.transpose(2, 0, 1)


@dataclass(frozen=True)
class Cutter:
    """Cuts crops from whole images in threads, a crop by each of `rules` from each image.

    read: returns a whole image, (3, H, W) uint8. images: says how large crops are and where they go. interpolation: "bicubic" or
    "bilinear", by which a crop is resized.
    """

    read: Callable[[int], np.ndarray]
    rules: Sequence[CropRule]
    images: Images
    interpolation: str

    def stream(self, batches: Iterable[Tensor], draws: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (crops, indices) of each batch on the device: (B, rules, 3, size, size) uint8, (B,).

        batches: (B,) indices on the CPU. draws: (B, rules, DRAWS) of [0, 1) for each of them, which decide everything.
        """
        device = self.images.device
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            begun = (self._start_batch(pool, index, u) for index, u in zip(batches, draws, strict=True))
            for work, out, index in keep_in_flight(begun, AHEAD):
                for part in work:
                    part.result()
                yield out.to(device, non_blocking=True), index.to(device, non_blocking=True)

    def _start_batch(self, pool: ThreadPoolExecutor, index: Tensor, u: Tensor) -> tuple[list[Future[None]], Tensor, Tensor]:
        size, indices, numbers = self.images.size, index.tolist(), u.tolist()
        shape = (len(indices), len(self.rules), 3, size, size)
        out = torch.empty(shape, dtype=torch.uint8, pin_memory=self.images.device.type == "cuda")
        rows = [slice(start, start + CHUNK) for start in range(0, len(indices), CHUNK)]
        return [pool.submit(self.cut_crops, out[part], indices[part], numbers[part]) for part in rows], out, index

    def cut_crops(self, out: Tensor, index: list[int], numbers: list[list[list[float]]]) -> None:
        """Fill `out` with the crops of some images; numpy copies in this thread, where torch would start more."""
        size = (self.images.size, self.images.size)
        for rows, i, draws in zip(out.numpy(), index, numbers, strict=True):
            pixels = self.read(i)
            for row, rule, u in zip(rows, self.rules, draws, strict=True):
                top, left, height, width = draw_window(pixels.shape[1], pixels.shape[2], u, rule)
                cut = pixels[None, :, top : top + height, left : left + width].copy(order="K")
                crop = F.interpolate(torch.from_numpy(cut), size, mode=self.interpolation, antialias=True)[0].numpy()
                row[:] = crop[:, :, ::-1] if u[-1] < rule.p_flip else crop


def draw_window(height: int, width: int, u: Sequence[float], rule: CropRule = DEFAULT_RULE) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random crop, with the distribution of torchvision's RandomResizedCrop.

    u: DRAWS numbers of [0, 1), four for each try. If no try fits, the largest crop of an allowed aspect in the centre.
    """
    low, high = rule.aspect
    log_low, log_high = math.log(low), math.log(high)
    for n in range(0, 4 * TRIES, 4):
        area = height * width * (rule.area[0] + (rule.area[1] - rule.area[0]) * u[n])
        aspect = math.exp(log_low + (log_high - log_low) * u[n + 1])
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(u[n + 2] * (height - h + 1)), int(u[n + 3] * (width - w + 1)), h, w
    w, h = min(width, round(height * high)), min(height, round(width / low))
    return (height - h) // 2, (width - w) // 2, h, w
