"""The converged probe: Newton's method with conjugate gradients along the path of l2, each value proven to be near its optimum.

Minimise F(W, b) = sum_i -log softmax(W^T x_i + b)[y_i] + l2/2 |W|^2, b not penalised: scikit-learn's problem. Where an image
shows several classes (VOC2007) there is one such problem with two outcomes per class; their two weight vectors are opposite,
so that one with half the l2 will do, as if scikit-learn had 2C.

The proof. The probabilities p that belong to (W, b) are a feasible point of the dual problem if b is optimal for W. There the
dual's value is F - |dF/dW|^2 / (2 l2), and it never exceeds the minimum F*. So F - F* <= |dF/dW|^2 / (2 l2): no curvature is
guessed, and a small gradient with a weak l2 does not count as converged. b is made optimal by Newton's method on the logits; the
rest is in the bound, as its decrement and the most that it can add to the gradient.

The speed. F, gradient and gap are float64. A step solves H v = -gradient by conjugate gradients with float32 products; the next
gradient corrects their rounding, and if they make no progress, float64 takes over. Features are centred and rotated into the
eigenbasis of their covariance (at most n dimensions if there are n images), where the Hessian is close to diagonal: dividing by
the diagonal leaves few steps, and where it does not, dividing by the Hessian's block of each class does (see space.py). Each l2
starts on the line through the last two solutions, as the solution is nearly linear in log l2.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from simclic.evaluate.linear.fit import Fit, check_learnable
from simclic.evaluate.linear.losses import LogisticLoss, SoftmaxLoss, loss_for_labels
from simclic.evaluate.linear.space import FeatureSpace, Preconditioner, rotate_features, split_rows, sum_tensors
from simclic.experiment import Linear

GRADIENT_REDUCTION = 0.02  # factor by which a step reduces the gradient, unless less suffices
MAX_IDLE_PRODUCTS = 100  # float32 products without progress: what remains is rounding
GAP_SHARE = 0.5  # share of the tolerance that a step aims at; and the factor by which each step must reduce the gap


def solve_path(
    x: Tensor, y: np.ndarray, classes: int, values: Iterable[float], protocol: Linear, start: Fit | None = None
) -> Iterator[Fit]:
    """Yield the fit for each l2 in turn. Their order changes only the time; from strong to weak is fastest.

    x: (n, d) float32 on the device that computes. y: (n,) class indices, or (n, K) with 1, 0 or -1 for each class. start: a
    solution of this or a similar problem. A fit that needs more than protocol.iterations is returned with converged=False.
    Raises InputError for unusable labels or features.
    """
    check_learnable(x, y, classes)
    space, losses = rotate_features(x), loss_for_labels(torch.from_numpy(y).to(x.device))
    preconditioner, columns = Preconditioner(space, classes), torch.arange(classes, device=x.device)
    logits = space.mean.new_empty(len(x), classes)
    theta = space.mean.new_zeros(len(space.energy), classes)
    zero, last_two = _Solution(math.inf, theta, _sum_losses(space, losses, theta)), deque[_Solution](maxlen=2)
    if start is not None:
        theta = space.from_original(start.weights.to(x.device), start.intercept.to(x.device))
        last_two.append(_Solution(math.log(start.l2), theta, _sum_losses(space, losses, theta)))
    del x  # ImageNet's take 10 GB
    for l2 in values:
        theta = _choose_start(space, losses, l2 * losses.scale, [zero, *last_two], math.log(l2))
        solved = _NewtonSolver(space, losses, l2 * losses.scale, protocol, preconditioner, columns, logits).solve(theta)
        last_two.append(_Solution(math.log(l2), solved.theta, solved.loss))
        gap, value = float((solved.gap / solved.value).max()), float(solved.value.sum())
        known_gap = gap if math.isfinite(gap) else None
        yield Fit(l2, *space.to_original(solved.theta), solved.count, value, gap <= protocol.tolerance, known_gap)


class _Solution(NamedTuple):
    """A solution to start from. theta: (r + 1, C). loss: per problem, summed over images."""

    log_l2: float
    theta: Tensor
    loss: Tensor


def _choose_start(
    space: FeatureSpace, losses: SoftmaxLoss | LogisticLoss, l2: float, solutions: list[_Solution], log_l2: float
) -> Tensor:
    """Return the theta to start from: one of the solutions or the line through the last two, by the lowest objective."""
    if len(solutions) == 3 and solutions[1].log_l2 != solutions[2].log_l2:
        before, last = solutions[1:]
        theta = last.theta + (log_l2 - last.log_l2) / (last.log_l2 - before.log_l2) * (last.theta - before.theta)
        solutions = [*solutions, _Solution(log_l2, theta, _sum_losses(space, losses, theta))]
    values = torch.cat([loss + l2 / 2 * losses.sum_per_problem(theta[:-1] ** 2) for _, theta, loss in solutions])
    best = values.nan_to_num(nan=math.inf).argmin(dim=0)  # per problem
    thetas = torch.stack([theta for _, theta, _ in solutions])
    return thetas.gather(0, best.expand_as(thetas[0])[None])[0]


def _sum_losses(space: FeatureSpace, losses: SoftmaxLoss | LogisticLoss, theta: Tensor) -> Tensor:
    """Return the losses at theta (r + 1, C) summed over images, one per problem."""
    z, parts = space.z[torch.float64], split_rows(len(losses.y), theta.shape[1])
    return sum_tensors(losses.select_images(rows).evaluate_at(z[rows] @ theta).loss for rows in parts)


@dataclass(frozen=True)
class _NewtonState:
    """The state of a solver. theta: (r + 1, C), with its gradient. loss: per problem, summed over images.

    value, gap: (1, 1) or (1, C) per problem, the objective and a bound on how far it is above its minimum. count: gradients and
    Hessian products so far.
    """

    theta: Tensor
    gradient: Tensor
    value: Tensor
    gap: Tensor
    loss: Tensor
    count: int

    def select_problems(self, columns: Tensor) -> "_NewtonState":
        """Return the state of some of several problems. columns: (C,) bool."""
        fields = {name: getattr(self, name)[:, columns] for name in ("theta", "gradient", "value", "gap", "loss")}
        return _NewtonState(**fields, count=self.count)


@dataclass(frozen=True)
class _NewtonSolver:
    """Solves one softmax problem, or several logistic problems at once, at one l2.

    logits: (n, C) float64, those of the last state. A number per image and class takes 10 GB for ImageNet, so few such matrices
    are kept, and the rest is computed in parts.
    """

    space: FeatureSpace
    losses: SoftmaxLoss | LogisticLoss
    l2: float
    protocol: Linear
    preconditioner: Preconditioner
    columns: Tensor  # which of the classes these are, (C,)
    logits: Tensor
    parts: list[tuple[slice, SoftmaxLoss | LogisticLoss]] = field(init=False)  # images and their losses

    def __post_init__(self) -> None:
        slices = split_rows(len(self.losses.y), len(self.columns))
        object.__setattr__(self, "parts", [(rows, self.losses.select_images(rows)) for rows in slices])

    def solve(self, theta: Tensor) -> _NewtonState:
        """Run Newton's method from theta until every problem's gap is small enough or the iterations are used up."""
        return self.iterate_from(self.evaluate_at(theta, 0), torch.float32)

    def iterate_from(self, state: _NewtonState, precision: torch.dtype) -> _NewtonState:
        """Continue `solve` from a state."""
        while state.count + 2 <= self.protocol.iterations:
            unsolved = ~(state.gap <= self.protocol.tolerance * state.value)[0]  # NaN counts as unsolved
            if not unsolved.any():
                break
            if not unsolved.all():  # solved problems are set aside
                return self.solve_remaining(state, unsolved, precision)
            before, state = state, self.newton_step(state, precision)
            if precision == torch.float64 and not ((state.gap < before.gap) | (state.value < before.value)).any():
                break  # what remains is rounding
            if not (state.gap <= GAP_SHARE * before.gap).all():
                precision = torch.float64
        return state

    def evaluate_at(self, theta: Tensor, count: int) -> _NewtonState:
        """Return objective, gradient and gap in float64, at the optimal intercept for these weights. Set the logits."""
        z, total = self.space.z[torch.float64], self.losses.sum_per_problem
        theta, logits = theta.clone(), torch.mm(z, theta, out=self.logits)
        shrink, steepest = self.l2 / 2 * total(theta[:-1] ** 2), self.space.energy[:-1].max()
        for _ in range(50):
            residuals, sums = [], []
            for rows, losses in self.parts:
                point = losses.evaluate_at(logits[rows])
                residuals.append(point.residual)
                sums.append((point.loss, *losses.intercept_derivatives(point)))
            loss, *derivatives = map(sum_tensors, zip(*sums, strict=True))
            value = loss + shrink
            step, short = self.losses.intercept_step(*derivatives)
            slack = steepest * short  # bound on the squared gradient that the optimal b would add
            if (slack <= 1e-4 * 2 * self.l2 * self.protocol.tolerance * value).all():
                break
            moved = self.line_search(step.expand_as(logits), loss, -2 * short, torch.zeros_like) * step
            if not moved.any():
                break
            theta[-1:] += moved
            logits += moved
        gradient = sum_tensors(z[rows].T @ residual for (rows, _), residual in zip(self.parts, residuals, strict=True))
        gradient[:-1] += self.l2 * theta[:-1]
        gap = (total(gradient[:-1] ** 2).sqrt() + slack.clamp_min(0).sqrt()) ** 2 / (2 * self.l2) + short
        return _NewtonState(theta, gradient, value, gap, loss, count + 1)

    def line_search(self, along: Tensor, loss: Tensor, slope: Tensor, penalty: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the step size per problem: 1, halved until the objective falls enough for its slope; 0 if it never does.

        along: (n, C), the change of the logits at step size 1. loss: at the start. penalty: its change at step size t.
        """
        t = torch.ones_like(loss)
        for _ in range(40):
            points = (losses.evaluate_at(self.logits[rows] + t * along[rows].double()) for rows, losses in self.parts)
            objective = sum_tensors(point.loss for point in points) + penalty(t)
            enough = objective <= loss + 1e-4 * t * slope + 1e-13 * loss  # the last bits are rounding
            if enough.all():
                return t
            t = torch.where(enough, t, t / 2)
        return torch.where(enough, t, 0)

    def newton_step(self, state: _NewtonState, precision: torch.dtype) -> _NewtonState:
        """Take one step of Newton's method."""
        v, along, count = self.newton_direction(state, precision)
        if not (v.isfinite().all() and along.isfinite().all()):
            v, along = torch.zeros_like(v), torch.zeros_like(along)
        total, w, dw = self.losses.sum_per_problem, state.theta[:-1], v[:-1]
        inner, square = total(w * dw), total(dw * dw)

        def penalty(t: Tensor) -> Tensor:
            return self.l2 * (t * inner + t * t / 2 * square)

        t = self.line_search(along, state.loss, total(state.gradient * v), penalty)
        del along
        return self.evaluate_at(state.theta + t * v, state.count + count)

    def newton_direction(self, state: _NewtonState, precision: torch.dtype) -> tuple[Tensor, Tensor, int]:
        """Solve H v = -gradient by conjugate gradients. Return v (r + 1, C) in float64, z v (n, C) and the count of products.

        It ends when the residual in W is small enough for the gap, or GRADIENT_REDUCTION times the gradient.
        """
        z, total = self.space.z[precision], self.losses.sum_per_problem
        r, weights, curved = -state.gradient.to(precision), [], []
        for rows, losses in self.parts:
            p = losses.evaluate_at(self.logits[rows]).p.to(precision)
            p = torch.where(p > torch.finfo(precision).tiny ** 0.4, p, 0)  # subnormal products are slow
            diagonal, multiply_hessian = losses.curvature(p)
            weights.append(diagonal)
            curved.append((rows, multiply_hessian))
        divide = self.preconditioner.inverse_at(torch.cat(weights), self.l2, self.columns)
        del weights, diagonal
        penalty = torch.full_like(r[:, :1], self.l2)
        penalty[-1] = 0
        wanted = GAP_SHARE * 2 * self.l2 * self.protocol.tolerance * state.value
        target = torch.maximum(wanted, GRADIENT_REDUCTION**2 * total(state.gradient[:-1] ** 2))
        v, y = torch.zeros_like(r), self.losses.centre_classes(divide(r))
        along, zq = (torch.zeros_like(self.logits, dtype=precision) for _ in range(2))
        q, ry = y, total(r * y)
        count, idle, least = 0, 0, torch.full_like(ry, torch.inf)
        while count < self.protocol.iterations - state.count - 1:
            count += 1
            torch.mm(z, q, out=zq)
            hq = sum_tensors(z[rows].T @ multiply(zq[rows]) for rows, multiply in curved).addcmul_(penalty, q)
            bent = total(q * hq)
            a = torch.where(bent > 0, ry / bent, 0)
            v, along, r = v.addcmul_(a, q), along.addcmul_(a, zq), r.addcmul_(a, hq, value=-1)
            rest = total(r[:-1] ** 2)
            done, better = torch.stack([((rest <= target) | (bent <= 0)).all(), (rest < least / 2).any()]).tolist()
            least, idle = torch.minimum(least, rest), 0 if better else idle + 1
            if (
                done
                or self.preconditioner.should_build_blocks(count)
                or (idle > MAX_IDLE_PRODUCTS and precision == torch.float32)
            ):
                break
            y = self.losses.centre_classes(divide(r))
            ry, before = total(r * y), ry
            q = y.addcmul(torch.where(before > 0, ry / before, 0), q)
        self.preconditioner.count_products(count)
        return v.double(), along, count

    def solve_remaining(self, state: _NewtonState, unsolved: Tensor, precision: torch.dtype) -> _NewtonState:
        """Solve the unsolved problems by themselves and put them back beside the solved ones."""
        assert isinstance(self.losses, LogisticLoss)
        solver = replace(
            self, losses=self.losses.select_problems(unsolved), columns=self.columns[unsolved], logits=self.logits[:, unsolved]
        )
        rest = solver.iterate_from(state.select_problems(unsolved), precision)
        for name in ("theta", "value", "gap", "loss"):
            getattr(state, name)[:, unsolved] = getattr(rest, name)
        return replace(state, count=rest.count)
