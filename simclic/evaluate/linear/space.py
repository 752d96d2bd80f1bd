"""The feature space of the linear probe's solver, and the preconditioner of its conjugate gradients."""

import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

FREE_PRODUCTS = 20  # Hessian products that a step may take before they count as excess
MAX_PART_SIZE = 2**28  # numbers of a matrix that are computed at a time; only ImageNet's have more, so other sums have one part
BLOCK_SHARE = 1 / 8  # of a machine's or GPU's memory, for blocks; a share of free memory would make the last bits vary


@dataclass(frozen=True)
class FeatureSpace:
    """Features centred and rotated, with a column of ones for the intercept.

    mean: (d,). basis: (d, r) with orthonormal columns, which keep |W|; r = min(n, d). z: (n, r + 1), in two precisions.
    energy: (r + 1, 1), sum of squares of each column.
    """

    mean: Tensor
    basis: Tensor
    z: dict[torch.dtype, Tensor]
    energy: Tensor

    def to_original(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (d, C) and intercept (C,) for the original features. theta: (r + 1, C)."""
        weights = self.basis @ theta[:-1]
        return weights, theta[-1] - self.mean @ weights

    def from_original(self, weights: Tensor, intercept: Tensor) -> Tensor:
        """Return theta (r + 1, C), the inverse of `to_original` within this space."""
        return torch.cat([self.basis.T @ weights, (intercept + self.mean @ weights)[None]])


def split_rows(n: int, width: int) -> list[slice]:
    """Return the rows of each part in which a matrix (n, width) is computed."""
    rows = max(1, MAX_PART_SIZE // width)
    return [slice(start, start + rows) for start in range(0, n, rows)]


def sum_tensors(parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of what was computed for each part; of one part, that itself."""
    return functools.reduce(torch.add, parts)


def rotate_features(x: Tensor) -> FeatureSpace:
    """Return the space of features x, (n, d) float32 and finite."""
    n, d = x.shape
    mean, parts = x.mean(dim=0, dtype=torch.float64), split_rows(n, d)
    if n > d:
        # Any orthonormal basis is exact; the closer to the eigenvectors, the fewer the iterations.
        largest = torch.stack([(x[rows].double() - mean).abs().max() for rows in parts]).max().clamp_min(1e-300)
        halves = (((x[rows].double() - mean) / largest).float() for rows in parts)
        basis = torch.linalg.eigh(sum_tensors(half.T @ half for half in halves).double()).eigenvectors
    else:
        q, r = torch.linalg.qr((x.double() - mean).T)
        basis = q @ torch.linalg.eigh(r @ r.T).eigenvectors
    z = mean.new_ones(n, basis.shape[1] + 1)
    for rows in parts:
        z[rows, :-1] = (x[rows].double() - mean) @ basis
    energy = sum_tensors((z[rows] * z[rows]).sum(dim=0) for rows in parts)
    return FeatureSpace(mean, basis, {torch.float64: z, torch.float32: z.float()}, energy[:, None])


@dataclass
class Preconditioner:
    """An approximate inverse of the Hessian: of its diagonal, or, if that takes too many products, of its block of each class.

    Building blocks costs about as much as (r + 1) / 4 products. They are built, and rebuilt, once that many excess products were
    spent, so the total is at most twice the best. Where a nonlinear map spreads few dimensions over many, as in an untrained
    network, a step needs a dozen products with blocks and thousands with the diagonal.
    """

    space: FeatureSpace
    classes: int
    blocks: Tensor | None = None  # (C, r + 1, r + 1) float64, inverse
    excess_products: int = 0  # products in excess since the last blocks
    affordable: bool = field(init=False)  # whether blocks fit into memory

    def __post_init__(self) -> None:
        block_bytes = 8 * self.classes * len(self.space.energy) ** 2
        self.affordable = block_bytes < BLOCK_SHARE * total_memory(self.space.mean.device)

    def inverse_at(self, weights: Tensor, l2: float, columns: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function that applies the approximate inverse to an (r + 1, C) gradient.

        weights: (n, C), the curvature of the loss. columns: (C,) which of the classes these are.
        """
        if self.should_build_blocks(0):
            self.blocks, self.excess_products = self.invert_blocks(weights, l2, columns), 0
        if self.blocks is not None:
            blocks = self.blocks if len(columns) == self.classes else self.blocks[columns]
            return lambda r: torch.bmm(blocks, r.T.double()[:, :, None])[:, :, 0].T.to(r)
        diagonal = self.space.energy.to(weights) * weights.mean(dim=0)
        diagonal[:-1] += l2
        diagonal.clamp_min_(torch.finfo(weights.dtype).tiny)
        return lambda r: r / diagonal

    def should_build_blocks(self, count: int) -> bool:
        """Return whether blocks would have paid off by now, in a step of `count` products. False if they do not fit."""
        return self.affordable and self.excess_products + max(0, count - FREE_PRODUCTS) > len(self.space.energy) / 4

    def count_products(self, count: int) -> None:
        """Add the excess products of a step."""
        self.excess_products += max(0, count - FREE_PRODUCTS)

    def invert_blocks(self, weights: Tensor, l2: float, columns: Tensor) -> Tensor:
        """Return the inverse of each class's block; other classes keep theirs, at first an inverse diagonal."""
        z, blocks = self.space.z[torch.float64], self.blocks
        if blocks is None:
            blocks = torch.diag(1 / (0.1 * self.space.energy[:, 0] + l2)).repeat(self.classes, 1, 1)
        for k, weight in zip(columns.tolist(), weights.double().T, strict=True):
            half = z * weight.sqrt()[:, None]
            block = half.T @ half
            block.diagonal()[:-1].add_(l2)
            scale = block.diagonal().clamp_min(1e-30).rsqrt()
            block.mul_(scale).mul_(scale[:, None])
            for ridge in (1e-13, 1e-10, 1e-7, 1e-4, 1.0):  # rounding may make it singular
                block.diagonal().add_(ridge)
                factor, failed = torch.linalg.cholesky_ex(block)
                if not failed:
                    break
            blocks[k] = torch.cholesky_inverse(factor).mul_(scale).mul_(scale[:, None])
        return blocks


def total_memory(device: torch.device) -> int:
    """Return the bytes of memory of a GPU, or of this machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
