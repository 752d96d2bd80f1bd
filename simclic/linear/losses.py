"""The losses of a linear probe as functions of its logits: one class an image, or several."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Point:
    """The losses at some logits, (n, C). loss: summed over images, one per problem. p: probabilities, (n, C).
    residual: (n, C), the loss's derivative, as exact as p even where it is tiny."""

    loss: Tensor
    p: Tensor
    residual: Tensor


@dataclass(frozen=True)
class OneOf:
    """Each image is of one of C classes: one problem, a softmax. y: (n,)."""

    y: Tensor
    scale: float = 1.0  # of l2

    def total(self, t: Tensor) -> Tensor:
        """Sums over what belongs to one problem. t: (m, C). Returns (1, 1)."""
        return t.sum().reshape(1, 1)

    def at(self, logits: Tensor) -> Point:
        """logits: (n, C). Where the true class is nearly sure, loss and residual are summed up from the others."""
        highest = logits.amax(dim=1, keepdim=True)
        e = (logits - highest).exp_()
        sums = e.sum(dim=1, keepdim=True)
        p, true = e.div_(sums), self.y[:, None]
        residual = p.scatter(1, true, 0.0)
        others = residual.sum(dim=1, keepdim=True)
        residual.scatter_(1, true, -others)
        loss = torch.where(others < 0.5, -torch.log1p(-others), sums.log() + highest - logits.gather(1, true))
        return Point(self.total(loss), p, residual)

    def weight(self, p: Tensor) -> Tensor:
        """The diagonal of the loss's second derivative by the logits. p: (n, C). Returns (n, C)."""
        return p * (1 - p)

    def curved(self, p: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        """The loss's second derivative by the logits, times a. p, weight, a: (n, C). Returns (n, C)."""
        pa = p * a
        return pa.sub_(p * pa.sum(dim=1, keepdim=True))

    def intercept(self, point: Point) -> tuple[Tensor, Tensor]:
        """Newton's step in b alone, (1, C), and half its squared decrement, (1, 1)."""
        apart = (point.p.T @ point.p).fill_diagonal_(0)
        hessian = torch.diag(apart.sum(dim=1)) - apart  # rows sum to 0: exact where 1 - p would not be
        hessian.diagonal().add_(1e-15 * apart.mean())
        gradient, step = point.residual.sum(dim=0)[:-1, None], torch.zeros_like(point.p[:1])
        # All b alike changes nothing, so the last may stay.
        step[0, :-1] = -torch.cholesky_solve(gradient, torch.linalg.cholesky(hessian[:-1, :-1]))[:, 0]
        return step, -(gradient[:, 0] @ step[0, :-1]).reshape(1, 1) / 2


@dataclass(frozen=True)
class Shown:
    """Each of C classes is shown by an image or not: C problems, a logistic loss each. y: (n, C) with 1, 0, or -1 where an image
    is left out of a class's problem."""

    y: Tensor
    scale: float = 0.5  # of l2: one weight vector stands for two opposite ones of half its length
    sign: Tensor = field(init=False, repr=False)  # -1 shown, 1 not shown, 0 left out

    def __post_init__(self) -> None:
        object.__setattr__(self, "sign", (1.0 - 2.0 * self.y) * (self.y >= 0))

    def of(self, columns: Tensor) -> "Shown":
        """Some of the problems."""
        return Shown(self.y[:, columns])

    def total(self, t: Tensor) -> Tensor:
        """As OneOf's: (1, C)."""
        return t.sum(dim=0, keepdim=True)

    def at(self, logits: Tensor) -> Point:
        """As OneOf's."""
        wrong = torch.sigmoid(self.sign * logits)  # how likely what is not so is held to be
        loss = torch.nn.functional.softplus(self.sign * logits) * self.sign.abs()
        return Point(self.total(loss), wrong, wrong * self.sign)

    def weight(self, p: Tensor) -> Tensor:
        """As OneOf's."""
        return p * (1 - p) * self.sign.abs().to(p)

    def curved(self, p: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        """As OneOf's."""
        return weight * a

    def intercept(self, point: Point) -> tuple[Tensor, Tensor]:
        """As OneOf's: (1, C) both."""
        gradient, hessian = self.total(point.residual), self.total(self.weight(point.p))
        step = -gradient / hessian.clamp_min(1e-300)
        return step, -gradient * step / 2
