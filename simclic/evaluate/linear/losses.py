"""The losses of a linear probe as functions of its logits: a softmax over classes, or a logistic loss per class."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

HessianProduct = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LossPoint:
    """The losses at some logits (n, C). loss: summed over images, one per problem. p: (n, C) probabilities.

    residual: (n, C), the derivative of the loss, as exact as p even where it is tiny.
    """

    loss: Tensor
    p: Tensor
    residual: Tensor


@dataclass(frozen=True)
class SoftmaxLoss:
    """Each image has one of C classes: one problem, a softmax. y: (n,)."""

    y: Tensor
    scale: float = 1.0  # of l2

    def select_images(self, rows: slice) -> "SoftmaxLoss":
        """Return the losses of some of the images."""
        return SoftmaxLoss(self.y[rows])

    def sum_per_problem(self, t: Tensor) -> Tensor:
        """Return sums over each problem's entries: (1, 1). t: (m, C)."""
        return t.sum().reshape(1, 1)

    def centre_classes(self, t: Tensor) -> Tensor:
        """Subtract the mean over classes, which changes no loss and is 0 in a solution. t: (m, C). Returns (m, C)."""
        return t - t.mean(dim=1, keepdim=True)

    def evaluate_at(self, logits: Tensor) -> LossPoint:
        """Return loss, probabilities and residual at logits (n, C).

        Where the true class has a probability near 1, loss and residual are computed from the other classes.
        """
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
        """Return the second derivative by the logits: its diagonal (n, C), and its product with any a (n, C). p: (n, C).

        If a class has p near 1, 1 - p and p a - p <p, a> lose all digits to cancellation. Adding a constant to a changes nothing,
        so a is taken relative to that class, which leaves sums of small numbers.
        """
        top = p.argmax(dim=1, keepdim=True)
        others = p.scatter(1, top, 0.0).sum(dim=1, keepdim=True)

        def multiply_hessian(a: Tensor) -> Tensor:
            pa = (a - a.gather(1, top)).mul_(p)
            return pa.sub_(p * pa.sum(dim=1, keepdim=True))

        return (p * (1 - p)).scatter_(1, top, p.gather(1, top) * others), multiply_hessian

    def intercept_derivatives(self, point: LossPoint) -> tuple[Tensor, Tensor]:
        """Return sums over images for `intercept_step`: of the gradient in b, (1, C), and of p p^T, (C, C)."""
        return point.residual.sum(dim=0, keepdim=True), point.p.T @ point.p

    def intercept_step(self, gradient: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
        """Return Newton's step in b alone, (1, C), and half its squared decrement, (1, 1), from `intercept_derivatives`."""
        apart = curvature.fill_diagonal_(0)
        hessian = torch.diag(apart.sum(dim=1)) - apart  # rows sum to 0; 1 - p would cancel
        step, gradient = torch.zeros_like(gradient), gradient[0, :-1]
        scale = hessian.diagonal()[:-1].clamp_min(1e-300).rsqrt()
        scaled = hessian[:-1, :-1] * scale * scale[:, None]  # a constant in b changes nothing, so the last stays
        scaled.diagonal().add_(1e-15)
        factor, failed = torch.linalg.cholesky_ex(scaled)
        if failed:
            return step, step.new_full((1, 1), torch.inf)  # nothing is proven
        step[0, :-1] = -scale * torch.cholesky_solve((scale * gradient)[:, None], factor)[:, 0]
        return step, -(gradient @ step[0, :-1]).reshape(1, 1) / 2


@dataclass(frozen=True)
class LogisticLoss:
    """Each image shows any of C classes: C problems, a logistic loss each.

    y: (n, C) with 1 for shown, 0 for not shown, -1 where an image is left out of a class's problem.
    """

    y: Tensor
    scale: float = 0.5  # of l2: one weight vector stands for two opposite ones of half its length
    sign: Tensor = field(init=False, repr=False)  # -1 shown, 1 not shown, 0 left out

    def __post_init__(self) -> None:
        object.__setattr__(self, "sign", (1.0 - 2.0 * self.y) * (self.y >= 0))

    def select_problems(self, columns: Tensor) -> "LogisticLoss":
        """Return the losses of some of the problems."""
        return LogisticLoss(self.y[:, columns])

    def select_images(self, rows: slice) -> "LogisticLoss":
        """As in SoftmaxLoss."""
        return LogisticLoss(self.y[rows])

    def sum_per_problem(self, t: Tensor) -> Tensor:
        """As in SoftmaxLoss: (1, C)."""
        return t.sum(dim=0, keepdim=True)

    def centre_classes(self, t: Tensor) -> Tensor:
        """As in SoftmaxLoss; here each class is a problem of its own, so nothing is subtracted."""
        return t

    def evaluate_at(self, logits: Tensor) -> LossPoint:
        """As in SoftmaxLoss."""
        wrong = torch.sigmoid(self.sign * logits)  # probability given to the wrong label
        loss = torch.logaddexp(self.sign * logits, torch.zeros_like(logits)) * self.sign.abs()
        return LossPoint(self.sum_per_problem(loss), wrong, wrong * self.sign)

    def curvature(self, p: Tensor) -> tuple[Tensor, HessianProduct]:
        """As in SoftmaxLoss; p is that of the wrong label, so nothing cancels."""
        diagonal = p * (1 - p) * self.sign.abs().to(p)
        return diagonal, lambda a: diagonal * a

    def intercept_derivatives(self, point: LossPoint) -> tuple[Tensor, Tensor]:
        """Return sums over images for `intercept_step`: first and second derivative in b, (1, C) both."""
        return self.sum_per_problem(point.residual), self.sum_per_problem(self.curvature(point.p)[0])

    def intercept_step(self, gradient: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
        """As in SoftmaxLoss: (1, C) both."""
        step = -gradient / curvature.clamp_min(1e-300)
        return step, -gradient * step / 2


def loss_for_labels(y: Tensor) -> SoftmaxLoss | LogisticLoss:
    """Return the loss for labels y: (n,) class indices, or (n, C) with 1, 0 or -1 for each class."""
    return SoftmaxLoss(y) if y.ndim == 1 else LogisticLoss(y)
