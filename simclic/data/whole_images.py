"""Whole images of different shapes in one memory-mapped file, from which crops are cut."""

from typing import Any

import numpy as np

from simclic.data.image_file import crop_centre


class WholeImages:
    """Whole images of one size but of different shapes, from a file that holds first their shapes, then their pixels.

    content: of the file, one-dimensional uint8. shape: (n, 3, size, size), of the centre squares, which come out if it is indexed
    with (B,) integers.
    """

    def __init__(self, content: np.ndarray, count: int, size: int):
        self.shape = (count, 3, size, size)
        self.sides = content[: 8 * count].view("<i4").reshape(-1, 2).astype(np.int64)
        self.starts = np.append(8 * count, 3 * self.sides.prod(axis=1)).cumsum()
        self.content = content

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.stack([crop_centre(self.read_image(i)) for i in index.tolist()])

    def read_image(self, i: int) -> np.ndarray:
        """Return a whole image: (3, H, W) uint8."""
        return self.content[self.starts[i] : self.starts[i + 1]].reshape(*self.sides[i], 3).transpose(2, 0, 1)
