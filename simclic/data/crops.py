"""Random resized crops with horizontal flips, cut from whole images that are decoded once or each time."""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from simclic.data import Dataset
from simclic.data.decoded import FileImages, keep_in_flight, map_in_order
from simclic.data.image_file import count_pixels, decode_whole
from simclic.data.images import AHEAD, Images, map_images
from simclic.progress import Tell

AREA = (0.08, 1.0)  # of a crop, as a share of the image
ASPECT = (3 / 4, 4 / 3)  # its width over its height
TRIES = 10  # to find one that fits into the image
DRAWS = 4 * TRIES + 1  # numbers that decide a crop
CHUNK = 8  # crops that a thread cuts at a time


class Crops:
    """The images of `index`, whole, to cut from.

    index: (n,) of the data set's images. images: normalises what comes out and says how large it is and where it goes. room:
    bytes of memory that decoded images may fill; if they are more they are decoded from their files each time, to the same bits.
    Crops are cut on the CPU, some batches ahead: the same bits on every machine, and a device has better things to do.
    """

    def __init__(self, dataset: Dataset, images: Images, index: np.ndarray, room: float, tell: Tell = lambda share, note: None):
        self.images, self.files, self.kept = images, dataset.files, dict[int, Tensor]()
        self.decode = partial(decode_whole, upright=dataset.upright)
        self.stored = None if isinstance(dataset.images, FileImages) else map_images(dataset.images)
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
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            begun = (self._start_batch(pool, index, u) for index, u in zip(batches, draws, strict=True))
            for work, out, index in keep_in_flight(begun, AHEAD):
                yield self._finish_batch(work, out, index)

    def _start_batch(self, pool: ThreadPoolExecutor, index: Tensor, u: Tensor) -> tuple[list[Future[None]], Tensor, Tensor]:
        size, indices, numbers = self.images.size, index.tolist(), u.tolist()
        shape = (len(indices), 3, size, size)
        out = torch.empty(shape, dtype=torch.uint8, pin_memory=self.images.device.type == "cuda")
        rows = [slice(start, start + CHUNK) for start in range(0, len(indices), CHUNK)]
        return [pool.submit(self._cut_crops, out[part], indices[part], numbers[part]) for part in rows], out, index

    def _finish_batch(self, work: list[Future[None]], out: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        for part in work:
            part.result()
        device = self.images.device
        x = out.to(device, non_blocking=True).float()
        return self.images.normalise(x), index.to(device, non_blocking=True)

    def _cut_crops(self, out: Tensor, index: list[int], numbers: list[list[float]]) -> None:
        """Fill `out` with the crops of some images; numpy copies in this thread, where torch would start more."""
        for row, i, u in zip(out.numpy(), index, numbers, strict=True):
            pixels = self._read_pixels(i)
            top, left, height, width = draw_window(pixels.shape[1], pixels.shape[2], u)
            cut = pixels[None, :, top : top + height, left : left + width].numpy().copy(order="K")
            size = (self.images.size, self.images.size)
            crop = F.interpolate(torch.from_numpy(cut), size, mode=self.images.interpolation, antialias=True)[0].numpy()
            row[:] = crop[:, :, ::-1] if u[-1] < 0.5 else crop

    def _read_pixels(self, i: int) -> Tensor:
        """Return a whole image: (3, H, W) uint8."""
        if self.stored is not None and not self.files:
            return self.stored[i]
        pixels = self.kept[i] if self.kept else torch.from_numpy(self.decode(self.files[i]))
        return pixels.permute(2, 0, 1)


def draw_window(height: int, width: int, u: Sequence[float]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random crop, with the distribution of torchvision's RandomResizedCrop.

    u: DRAWS numbers of [0, 1), four for each try. If no try fits, the largest crop of an allowed aspect in the centre.
    """
    log_low, log_high = math.log(ASPECT[0]), math.log(ASPECT[1])
    for n in range(0, 4 * TRIES, 4):
        area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * u[n])
        aspect = math.exp(log_low + (log_high - log_low) * u[n + 1])
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(u[n + 2] * (height - h + 1)), int(u[n + 3] * (width - w + 1)), h, w
    w, h = min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0]))
    return (height - h) // 2, (width - w) // 2, h, w
