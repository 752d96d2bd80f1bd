"""The converged probe: Newton's method with conjugate gradients along the path of l2, each value proven to be near its optimum.

Minimise F(W, b) = sum_i -log softmax(W^T x_i + b)[y_i] + l2/2 |W|^2, b not penalised: scikit-learn's problem. Where an image
shows several classes (VOC2007) there is one such problem with two outcomes per class; their two weight vectors are opposite,
so that one with half the l2 will do, as if scikit-learn had 2C.

The proof. The probabilities p that belong to (W, b) are a feasible point of the dual problem if b is best for W. There the
dual's value is F - |dF/dW|^2 / (2 l2), and it never exceeds the minimum F*. So F - F* <= |dF/dW|^2 / (2 l2): no curvature is
guessed, and a small gradient with a weak l2 does not pass for convergence. b is made best by Newton's method on the logits; what
that leaves is in the bound, by its decrement and by the most that it can add to the gradient.

Where the time goes. F, gradient and gap are float64. A step solves H v = -gradient by conjugate gradients with float32
products; what they get wrong the next gradient sees, and if they bring it no further, float64 takes over. Features are centred
and rotated into the eigenbasis of their covariance (at most n dimensions of it if there are fewer images than that), where the
Hessian is close to diagonal: dividing by the diagonal leaves few steps to be made, and where it does not, dividing by the
Hessian's block of each class does (see space.py). Each l2 begins where the two before it point to, as the solution is nearly
linear in log l2.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from simclic.evaluate.linear.fit import Fit, check
from simclic.evaluate.linear.losses import OneOf, Point, Shown, of_labels
from simclic.evaluate.linear.space import Preconditioner, Space, rotated
from simclic.experiment import Linear

REDUCE = 0.02  # by how much one step reduces the gradient, unless less will do
STALLED = 100  # products with float32 that halve nothing: rounding is all that is left
SURE = 0.5  # of the gap that is asked for, the part that a step aims at; and by how much each step has to reduce the gap


def path(
    x: Tensor, y: np.ndarray, classes: int, values: Iterable[float], protocol: Linear, start: Fit | None = None
) -> Iterator[Fit]:
    """Solve for each l2 in turn; the order matters to the time alone, and from strong to weak is fastest.

    x: (n, d) float32 on the device that computes. y: (n,) class indices, or (n, K) with 1, 0 or -1 for each class. start: a
    solution to begin at, of this problem or one like it. A value that takes more than protocol.iterations is given back as it
    is, not converged. Raises InputError for what no classifier can be learned from.
    """
    check(x, y, classes)
    space, losses = rotated(x), of_labels(torch.from_numpy(y).to(x.device))
    divided, columns = Preconditioner(space, classes), torch.arange(classes, device=x.device)
    found: list[tuple[float, Tensor, Tensor]] = []  # of the last two values: log l2, theta, logits
    if start is not None:
        theta = space.theta(start.weights.to(x.device), start.intercept.to(x.device))
        found.append((math.log(start.l2), theta, space.z[torch.float64] @ theta))
    for l2 in values:
        theta = _begin(space, losses, l2 * losses.scale, found, math.log(l2), classes)
        solved = _Solver(space, losses, l2 * losses.scale, protocol, divided, columns).solve(theta)
        found = [*found[-1:], (math.log(l2), solved.theta, solved.logits)]
        gap, value = float((solved.gap / solved.value).max()), float(solved.value.sum())
        known = gap if math.isfinite(gap) else None
        yield Fit(l2, *space.full(solved.theta), solved.count, value, gap <= protocol.tolerance, known)


def _begin(
    space: Space, losses: OneOf | Shown, l2: float, found: list[tuple[float, Tensor, Tensor]], at: float, classes: int
) -> Tensor:
    """Where to begin: at zero, at the last solution, or on the line through the last two, whichever has the lower objective."""
    zero = space.mean.new_zeros(len(space.energy), classes)
    if not found:
        return zero
    last = found[-1]
    starts = [(zero, zero.new_zeros(len(last[2]), classes)), last[1:]]
    if len(found) == 2 and last[0] != found[0][0]:
        share = (at - last[0]) / (last[0] - found[0][0])
        starts.append(tuple(new + share * (new - old) for new, old in zip(last[1:], found[0][1:], strict=True)))  # type: ignore[arg-type]
    values = torch.cat([losses.at(logits).loss + l2 / 2 * losses.total(t[:-1] ** 2) for t, logits in starts])
    best = values.nan_to_num(nan=math.inf).argmin(dim=0)  # per problem
    return torch.stack([t for t, _ in starts]).gather(0, best.expand(len(zero), classes)[None])[0]


@dataclass(frozen=True)
class _State:
    """Where a solver stands. theta: (r + 1, C), with its gradient. logits: (n, C). value, gap: objective and the most it can be
    above its minimum, per problem, (1, 1) or (1, C). count: evaluations of the gradient and products with the Hessian so far.
    """

    theta: Tensor
    gradient: Tensor
    logits: Tensor
    value: Tensor
    gap: Tensor
    point: Point
    count: int

    def of(self, columns: Tensor) -> "_State":
        """Some of several problems. columns: (C,) bool."""
        kept = {name: getattr(self, name)[:, columns] for name in ("theta", "gradient", "logits", "value", "gap")}
        point = Point(self.point.loss[:, columns], self.point.p[:, columns], self.point.residual[:, columns])
        return _State(**kept, point=point, count=self.count)


@dataclass(frozen=True)
class _Solver:
    """One l2 of one softmax, or of several logistic problems at once."""

    space: Space
    losses: OneOf | Shown
    l2: float
    protocol: Linear
    divided: Preconditioner
    columns: Tensor  # which of the classes these are, (C,)

    def solve(self, theta: Tensor) -> _State:
        """Newton's method from theta, until the gap of every problem is small enough or the iterations are used up."""
        return self.improved(self.evaluate(theta, 0), torch.float32)

    def improved(self, state: _State, precision: torch.dtype) -> _State:
        """`solve` from where it stands."""
        while state.count + 2 <= self.protocol.iterations:
            left = ~(state.gap <= self.protocol.tolerance * state.value)[0]  # what is not a number is not solved
            if not left.any():
                break
            if not left.all():  # of several problems those that are solved are put aside
                return self.joined(state, left, precision)
            before, state = state, self.step(state, precision)
            if precision == torch.float64 and not ((state.gap < before.gap) | (state.value < before.value)).any():
                break  # rounding is all that is left
            if not (state.gap <= SURE * before.gap).all():
                precision = torch.float64
        return state

    def evaluate(self, theta: Tensor, count: int) -> _State:
        """Objective, gradient and gap in float64, at the best intercept for these weights."""
        z, total = self.space.z[torch.float64], self.losses.total
        theta, logits = theta.clone(), z @ theta
        shrink, steepest = self.l2 / 2 * total(theta[:-1] ** 2), self.space.energy[:-1].max()
        for _ in range(50):
            point = self.losses.at(logits)
            value = point.loss + shrink
            step, short = self.losses.intercept(point)
            slack = steepest * short  # the square of what the best intercept would add to the gradient, at most
            if (slack <= 1e-4 * 2 * self.l2 * self.protocol.tolerance * value).all():
                break
            moved = self.search(logits, step.expand_as(logits), point.loss, -2 * short, torch.zeros_like) * step
            if not moved.any():
                break
            theta[-1:] += moved
            logits += moved
        gradient = z.T @ point.residual
        gradient[:-1] += self.l2 * theta[:-1]
        gap = (total(gradient[:-1] ** 2).sqrt() + slack.clamp_min(0).sqrt()) ** 2 / (2 * self.l2) + short
        return _State(theta, gradient, logits, value, gap, point, count + 1)

    def search(self, logits: Tensor, along: Tensor, loss: Tensor, slope: Tensor, penalty: Callable[[Tensor], Tensor]) -> Tensor:
        """How far to go, per problem: 1, halved until the objective falls as its slope promises; 0 if it nowhere does.

        along: what the logits change by, at 1. loss: at the start. penalty: what the penalty changes by, after t.
        """
        t = torch.ones_like(loss)
        for _ in range(40):
            reached = self.losses.at(logits + t * along).loss + penalty(t)
            enough = reached <= loss + 1e-4 * t * slope + 1e-13 * loss  # the last bits are rounding
            if enough.all():
                return t
            t = torch.where(enough, t, t / 2)
        return torch.where(enough, t, 0)

    def step(self, state: _State, precision: torch.dtype) -> _State:
        """One step of Newton's method."""
        v, along, count = self.direction(state, precision)
        if not (v.isfinite().all() and along.isfinite().all()):
            v, along = torch.zeros_like(v), torch.zeros_like(along)
        total, w, dw = self.losses.total, state.theta[:-1], v[:-1]
        inner, square = total(w * dw), total(dw * dw)

        def penalty(t: Tensor) -> Tensor:
            return self.l2 * (t * inner + t * t / 2 * square)

        t = self.search(state.logits, along, state.point.loss, total(state.gradient * v), penalty)
        return self.evaluate(state.theta + t * v, state.count + count)

    def direction(self, state: _State, precision: torch.dtype) -> tuple[Tensor, Tensor, int]:
        """H v = -gradient by conjugate gradients. Returns v (r + 1, C) and z v (n, C) in float64, and how many products it took.

        It ends when what is left of the gradient, in W, is small enough for the gap or has become REDUCE of what it was.
        """
        z, total = self.space.z[precision], self.losses.total
        p, r = state.point.p.to(precision), -state.gradient.to(precision)
        p = torch.where(p > torch.finfo(precision).tiny ** 0.4, p, 0)  # so that no product is a subnormal number, a slow one
        weights, curved = self.losses.curvature(p)
        divide = self.divided.at(weights, self.l2, self.columns)
        penalty = torch.full_like(r[:, :1], self.l2)
        penalty[-1] = 0
        wanted = SURE * 2 * self.l2 * self.protocol.tolerance * state.value
        target = torch.maximum(wanted, REDUCE**2 * total(state.gradient[:-1] ** 2))
        v, along, y = torch.zeros_like(r), torch.zeros_like(p), self.losses.centred(divide(r))
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
            if done or self.divided.due(count) or (idle > STALLED and precision == torch.float32):
                break
            y = self.losses.centred(divide(r))
            ry, before = total(r * y), ry
            q = y.addcmul(torch.where(before > 0, ry / before, 0), q)
        self.divided.took(count)
        return v.double(), along.double(), count

    def joined(self, state: _State, left: Tensor, precision: torch.dtype) -> _State:
        """The problems that are left, solved, beside those that are."""
        assert isinstance(self.losses, Shown)
        rest = replace(self, losses=self.losses.of(left), columns=self.columns[left]).improved(state.of(left), precision)
        for name in ("theta", "logits", "value", "gap"):
            getattr(state, name)[:, left] = getattr(rest, name)
        return replace(state, count=rest.count)
