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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from simclic.evaluate.linear.fit import Fit, check_learnable
from simclic.evaluate.linear.losses import LogisticLoss, LossPoint, SoftmaxLoss, loss_for_labels
from simclic.evaluate.linear.space import FeatureSpace, Preconditioner, rotate_features
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
    solutions: list[tuple[float, Tensor, Tensor]] = []  # the last two: log l2, theta, logits
    if start is not None:
        theta = space.from_original(start.weights.to(x.device), start.intercept.to(x.device))
        solutions.append((math.log(start.l2), theta, space.z[torch.float64] @ theta))
    for l2 in values:
        theta = _choose_start(space, losses, l2 * losses.scale, solutions, math.log(l2), classes)
        solved = _NewtonSolver(space, losses, l2 * losses.scale, protocol, preconditioner, columns).solve(theta)
        solutions = [*solutions[-1:], (math.log(l2), solved.theta, solved.logits)]
        gap, value = float((solved.gap / solved.value).max()), float(solved.value.sum())
        known_gap = gap if math.isfinite(gap) else None
        yield Fit(l2, *space.to_original(solved.theta), solved.count, value, gap <= protocol.tolerance, known_gap)


def _choose_start(
    space: FeatureSpace,
    losses: SoftmaxLoss | LogisticLoss,
    l2: float,
    solutions: list[tuple[float, Tensor, Tensor]],
    log_l2: float,
    classes: int,
) -> Tensor:
    """Return the theta to start from: zero, the last solution or the line through the last two, by the lowest objective."""
    zero = space.mean.new_zeros(len(space.energy), classes)
    if not solutions:
        return zero
    last = solutions[-1]
    starts = [(zero, zero.new_zeros(len(last[2]), classes)), last[1:]]
    if len(solutions) == 2 and last[0] != solutions[0][0]:
        share = (log_l2 - last[0]) / (last[0] - solutions[0][0])
        starts.append(tuple(new + share * (new - old) for new, old in zip(last[1:], solutions[0][1:], strict=True)))  # type: ignore[arg-type]
    values = torch.cat([losses.evaluate_at(logits).loss + l2 / 2 * losses.sum_per_problem(t[:-1] ** 2) for t, logits in starts])
    best = values.nan_to_num(nan=math.inf).argmin(dim=0)  # per problem
    return torch.stack([t for t, _ in starts]).gather(0, best.expand(len(zero), classes)[None])[0]


@dataclass(frozen=True)
class _NewtonState:
    """The state of a solver. theta: (r + 1, C), with its gradient. logits: (n, C).

    value, gap: (1, 1) or (1, C) per problem, the objective and a bound on how far it is above its minimum. count: gradients and
    Hessian products so far.
    """

    theta: Tensor
    gradient: Tensor
    logits: Tensor
    value: Tensor
    gap: Tensor
    point: LossPoint
    count: int

    def select_problems(self, columns: Tensor) -> "_NewtonState":
        """Return the state of some of several problems. columns: (C,) bool."""
        fields = {name: getattr(self, name)[:, columns] for name in ("theta", "gradient", "logits", "value", "gap")}
        point = LossPoint(self.point.loss[:, columns], self.point.p[:, columns], self.point.residual[:, columns])
        return _NewtonState(**fields, point=point, count=self.count)


@dataclass(frozen=True)
class _NewtonSolver:
    """Solves one softmax problem, or several logistic problems at once, at one l2."""

    space: FeatureSpace
    losses: SoftmaxLoss | LogisticLoss
    l2: float
    protocol: Linear
    preconditioner: Preconditioner
    columns: Tensor  # which of the classes these are, (C,)

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
        """Return objective, gradient and gap in float64, at the optimal intercept for these weights."""
        z, total = self.space.z[torch.float64], self.losses.sum_per_problem
        theta, logits = theta.clone(), z @ theta
        shrink, steepest = self.l2 / 2 * total(theta[:-1] ** 2), self.space.energy[:-1].max()
        for _ in range(50):
            point = self.losses.evaluate_at(logits)
            value = point.loss + shrink
            step, short = self.losses.intercept_step(point)
            slack = steepest * short  # bound on the squared gradient that the optimal b would add
            if (slack <= 1e-4 * 2 * self.l2 * self.protocol.tolerance * value).all():
                break
            moved = self.line_search(logits, step.expand_as(logits), point.loss, -2 * short, torch.zeros_like) * step
            if not moved.any():
                break
            theta[-1:] += moved
            logits += moved
        gradient = z.T @ point.residual
        gradient[:-1] += self.l2 * theta[:-1]
        gap = (total(gradient[:-1] ** 2).sqrt() + slack.clamp_min(0).sqrt()) ** 2 / (2 * self.l2) + short
        return _NewtonState(theta, gradient, logits, value, gap, point, count + 1)

    def line_search(
        self, logits: Tensor, along: Tensor, loss: Tensor, slope: Tensor, penalty: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the step size per problem: 1, halved until the objective falls enough for its slope; 0 if it never does.

        along: the change of the logits at step size 1. loss: at the start. penalty: the change of the penalty at step size t.
        """
        t = torch.ones_like(loss)
        for _ in range(40):
            reached = self.losses.evaluate_at(logits + t * along).loss + penalty(t)
            enough = reached <= loss + 1e-4 * t * slope + 1e-13 * loss  # the last bits are rounding
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

        t = self.line_search(state.logits, along, state.point.loss, total(state.gradient * v), penalty)
        return self.evaluate_at(state.theta + t * v, state.count + count)

    def newton_direction(self, state: _NewtonState, precision: torch.dtype) -> tuple[Tensor, Tensor, int]:
        """Solve H v = -gradient by conjugate gradients. Return v (r + 1, C) and z v (n, C) in float64, and the count of products.

        It ends when the residual in W is small enough for the gap, or GRADIENT_REDUCTION times the gradient.
        """
        z, total = self.space.z[precision], self.losses.sum_per_problem
        p, r = state.point.p.to(precision), -state.gradient.to(precision)
        p = torch.where(p > torch.finfo(precision).tiny ** 0.4, p, 0)  # subnormal products are slow
        weights, curved = self.losses.curvature(p)
        divide = self.preconditioner.inverse_at(weights, self.l2, self.columns)
        penalty = torch.full_like(r[:, :1], self.l2)
        penalty[-1] = 0
        wanted = GAP_SHARE * 2 * self.l2 * self.protocol.tolerance * state.value
        target = torch.maximum(wanted, GRADIENT_REDUCTION**2 * total(state.gradient[:-1] ** 2))
        v, along, y = torch.zeros_like(r), torch.zeros_like(p), self.losses.centre_classes(divide(r))
        q, ry = y, total(r * y)
        count, idle, least = 0, 0, torch.full_like(ry, torch.inf)
        while count < self.protocol.iterations - state.count - 1:
            count += 1
            zq = z @ q
            hq = (z.T @ curved(zq)).addcmul_(penalty, q)
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
        return v.double(), along.double(), count

    def solve_remaining(self, state: _NewtonState, unsolved: Tensor, precision: torch.dtype) -> _NewtonState:
        """Solve the unsolved problems by themselves and put them back beside the solved ones."""
        assert isinstance(self.losses, LogisticLoss)
        rest = replace(self, losses=self.losses.select_problems(unsolved), columns=self.columns[unsolved]).iterate_from(
            state.select_problems(unsolved), precision
        )
        for name in ("theta", "logits", "value", "gap"):
            getattr(state, name)[:, unsolved] = getattr(rest, name)
        return replace(state, count=rest.count)
