"""The losses of a linear probe as functions of its logits: one class an image, or several."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

HessianProduct = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LossPoint:
    """The losses at some logits, (n, C). loss: summed over images, one per problem. p: probabilities, (n, C).
    residual: (n, C), the loss's derivative, as exact as p even where it is tiny."""

    loss: Tensor
    p: Tensor
    residual: Tensor


@dataclass(frozen=True)
class SoftmaxLoss:
    """Each image is of one of C classes: one problem, a softmax. y: (n,)."""

    y: Tensor
    scale: float = 1.0  # of l2

    def sum_per_problem(self, t: Tensor) -> Tensor:
        """Sums over what belongs to one problem. t: (m, C). Returns (1, 1)."""
        return t.sum().reshape(1, 1)

    def centre_classes(self, t: Tensor) -> Tensor:
        """Without what is the same for all classes, which changes no loss and is 0 in a solution. t: (m, C). Returns (m, C)."""
        return t - t.mean(dim=1, keepdim=True)

    def evaluate_at(self, logits: Tensor) -> LossPoint:
        """logits: (n, C). Where the true class is nearly sure, loss and residual are summed up from the others."""
        highest = logits.amax(dim=1, keepdim=True)
        e = (logits - highest).exp_()
        sums = e.sum(dim=1, keepdim=True)
        p, true = e.div_(sums), self.y[:, None]
        residual = p.scatter(1, true, 0.0)
        others = residual.sum(dim=1, keepdim=True)
        residual.scatter_(1, true, -others)
        loss = torch.where(others < 0.5, -torch.log1p(-others), sums.log() + highest - logits.gather(1, true))
        return LossPoint(self.sum_per_problem(loss), p, residual)

    def curvature(self, p: Tensor) -> tuple[Tensor, HessianProduct]:
        """The loss's second derivative by the logits: its diagonal, (n, C), and its product with any a, (n, C). p: (n, C).

        Of an image whose class is nearly sure 1 - p and p a - p <p, a> have no digits left. The same to all of a changes nothing,
        so a is taken relative to that class, and what is left are sums of small numbers.
        """
        top = p.argmax(dim=1, keepdim=True)
        others = p.scatter(1, top, 0.0).sum(dim=1, keepdim=True)

        def multiply_hessian(a: Tensor) -> Tensor:
            pa = (a - a.gather(1, top)).mul_(p)
            return pa.sub_(p * pa.sum(dim=1, keepdim=True))

        return (p * (1 - p)).scatter_(1, top, p.gather(1, top) * others), multiply_hessian

    def intercept_step(self, point: LossPoint) -> tuple[Tensor, Tensor]:
        """Newton's step in b alone, (1, C), and half its squared decrement, (1, 1)."""
        apart = (point.p.T @ point.p).fill_diagonal_(0)
        hessian = torch.diag(apart.sum(dim=1)) - apart  # rows sum to 0: exact where 1 - p would not be
        gradient, step = point.residual.sum(dim=0)[:-1], torch.zeros_like(point.p[:1])
        scale = hessian.diagonal()[:-1].clamp_min(1e-300).rsqrt()
        scaled = hessian[:-1, :-1] * scale * scale[:, None]  # all b alike changes nothing, so the last may stay
        scaled.diagonal().add_(1e-15)
        factor, failed = torch.linalg.cholesky_ex(scaled)
        if failed:
            return step, torch.full_like(point.loss, torch.inf)  # nothing is proven
        step[0, :-1] = -scale * torch.cholesky_solve((scale * gradient)[:, None], factor)[:, 0]
        return step, -(gradient @ step[0, :-1]).reshape(1, 1) / 2


@dataclass(frozen=True)
class LogisticLoss:
    """Each of C classes is shown by an image or not: C problems, a logistic loss each. y: (n, C) with 1, 0, or -1 where an image
    is left out of a class's problem."""

    y: Tensor
    scale: float = 0.5  # of l2: one weight vector stands for two opposite ones of half its length
    sign: Tensor = field(init=False, repr=False)  # -1 shown, 1 not shown, 0 left out

    def __post_init__(self) -> None:
        object.__setattr__(self, "sign", (1.0 - 2.0 * self.y) * (self.y >= 0))

    def select_problems(self, columns: Tensor) -> "LogisticLoss":
        """Some of the problems."""
        return LogisticLoss(self.y[:, columns])

    def sum_per_problem(self, t: Tensor) -> Tensor:
        """As OneOf's: (1, C)."""
        return t.sum(dim=0, keepdim=True)

    def centre_classes(self, t: Tensor) -> Tensor:
        """As OneOf's: nothing is the same for all, each class is a problem of its own."""
        return t

    def evaluate_at(self, logits: Tensor) -> LossPoint:
        """As OneOf's."""
        wrong = torch.sigmoid(self.sign * logits)  # how likely what is not so is held to be
        loss = torch.logaddexp(self.sign * logits, torch.zeros_like(logits)) * self.sign.abs()
        return LossPoint(self.sum_per_problem(loss), wrong, wrong * self.sign)

    def curvature(self, p: Tensor) -> tuple[Tensor, HessianProduct]:
        """As OneOf's; p is small where a class is nearly sure, and exact."""
        diagonal = p * (1 - p) * self.sign.abs().to(p)
        return diagonal, lambda a: diagonal * a

    def intercept_step(self, point: LossPoint) -> tuple[Tensor, Tensor]:
        """As OneOf's: (1, C) both."""
        gradient, hessian = self.sum_per_problem(point.residual), self.sum_per_problem(self.curvature(point.p)[0])
        step = -gradient / hessian.clamp_min(1e-300)
        return step, -gradient * step / 2


def loss_for_labels(y: Tensor) -> SoftmaxLoss | LogisticLoss:
    """The losses that labels ask for. y: (n,) class indices, or (n, C) with 1, 0 or -1 for each class."""
    return SoftmaxLoss(y) if y.ndim == 1 else LogisticLoss(y)
