"""What chance alone does to an error, and whether two differ by more: the one rule behind every verdict, claim and mark.

An error measured on n images is off by about sqrt(e (100 - e) / n), and by what another seed would have changed. Numbers that
were only printed are compared as proportions; where we hold predictions, differences are paired over images and seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtr, stdtrit

from simclic.data.metrics import METRICS
from simclic.text import format_signed

LEVEL = 0.05  # two-sided, of every test; no test is corrected for how many there are, unless it says so

Seeds = Mapping[int | None, np.ndarray]  # seed, None if it has none -> what each image contributes to the error

ONE_SEED = "with one seed, what another seed would have changed is not counted, so that differences pass for clear too easily"


@dataclass(frozen=True)
class Measured:
    """An error in percent, and what is known of how it came about.

    images: how many it was measured on. seeds: per seed (n,) contributions whose mean is the error, see
    `compute_contributions`; empty for a number that was only printed. data: digest of the images;
    errors with the same digest can be paired. classes: of the data set, 0 if not known.
    """

    value: float
    images: int
    seeds: Seeds = field(default_factory=dict)
    data: str = ""
    classes: int = 0

    @property
    def deviation(self) -> float:
        """The standard deviation over seeds in points; 0 if there are not several."""
        return float(np.std([c.mean() for c in self.seeds.values()], ddof=1)) if len(self.seeds) > 1 else 0.0

    @property
    def by_images(self) -> float:
        """The variance of the error that is due to the choice of test images, in squared points."""
        e = (self.value * self.images + 100) / (self.images + 2)  # an image more on either side, so that 0 % is never certain
        binomial = e * (100 - e) / self.images if self.images else math.nan
        parts = list(self.seeds.values())
        if not parts or len(parts[0]) != self.images or self.images < 2:  # mAP has a contribution per class: for pairs alone
            return binomial
        return max(binomial / len(parts), float(np.mean(parts, axis=0).var(ddof=1)) / self.images)


@dataclass(frozen=True)
class Difference:
    """Points between errors, the standard error of that, and its degrees of freedom. Below 0: the first is better."""

    points: float
    error: float
    freedom: float = math.inf

    @property
    def p(self) -> float:
        """The two-sided p-value of there being no difference; nan if the standard error is not known."""
        if self.error == 0:
            return 1.0 if self.points == 0 else 0.0
        return float(2 * stdtr(min(self.freedom, 1e9), -abs(self.points) / self.error))

    @property
    def clear(self) -> bool:
        """Whether the difference is significant (p < .05)."""
        return self.p < LEVEL

    @property
    def within(self) -> float:
        """The half width of the 95 % interval, in points: what chance alone explains."""
        return self.error * float(stdtrit(min(self.freedom, 1e9), 1 - LEVEL / 2))

    @property
    def verdict(self) -> str:
        """Better or worse if it is beyond noise, else no difference to speak of."""
        if not self.clear:
            return "not distinguishable from"
        return "clearly better than" if self.points < 0 else "clearly worse than"

    def format_points(self, digits: int = 2) -> str:
        """Return the difference and its standard error: "-0.06 ± 0.32"."""
        return f"{format_signed(self.points, digits)} ± {self.error:.{digits}f}"

    def __str__(self) -> str:
        return self.format_points(1)


def compute_contributions(truth: np.ndarray, scores: np.ndarray, metric: str) -> np.ndarray:
    """Return what each image contributes to an error: (n,) whose mean is the error in percent; under mAP each class, (K,).

    truth: (N,) int, or (N, K) with several classes per image. scores: (N, K), or (N,) predicted classes. metric: a key of
    simclic.data.metrics.METRICS.
    """
    if metric == "11-point mAP":
        shown_classes = np.flatnonzero((truth == 1).any(axis=0))
        return np.array([METRICS[metric](truth[:, [k]], scores[:, [k]]) for k in shown_classes])
    wrong = 100.0 * ((scores if scores.ndim == 1 else scores.argmax(axis=1)) != truth)
    if metric == "mean per class":
        counts = np.bincount(truth)
        wrong *= len(truth) / np.count_nonzero(counts) / counts[truth]
    return wrong


def compute_contrast(terms: Sequence[tuple[float, Measured]]) -> Difference | None:
    """Return the weighted sum of errors with its noise; weights 1 and -1 give a difference.

    Terms measured on the same images are paired over images and seeds, and seeds that one of them lacks are left out; what has
    no seed (raw pixels) goes with each. Others are independent. None if terms that are paired have no seed in common.
    """
    together: dict[tuple[str, int], list[tuple[float, Measured]]] = {}
    alone = []
    for weight, m in terms:
        length = len(next(iter(m.seeds.values()))) if m.seeds else 0
        if length and m.data:
            together.setdefault((m.data, length), []).append((weight, m))
        else:
            alone.append((weight, m))
    parts = []  # points, variances with their degrees of freedom
    for terms_of_data in together.values():
        if len(terms_of_data) == 1:
            alone += terms_of_data
        elif (part := _sum_paired(terms_of_data)) is None:
            return None
        else:
            parts.append(part)
    parts += [_weigh_single(weight, m) for weight, m in alone]
    variances = [v for _, terms_of_data in parts for v in terms_of_data if v[0] > 0 or math.isnan(v[0])]
    variance, spread = sum(v for v, _ in variances), sum(v * v / freedom for v, freedom in variances)
    freedom = variance**2 / spread if spread else math.inf
    freedom = min(
        [freedom, *(f for v, f in variances if f < 2 and v > variance / 2)]
    )  # Welch's are too many where two seeds rule
    return Difference(sum(p for p, _ in parts), math.sqrt(variance), freedom)


def compute_difference(first: Measured, second: Measured) -> Difference | None:
    """Return the error of the first minus that of the second; None if they share no seed."""
    return compute_contrast([(1, first), (-1, second)])


def subtract_printed(measured: Measured, printed: Measured) -> Difference:
    """Return our error minus a printed one, which has one seed: variation between seeds is taken from our seeds."""
    contrasted = compute_contrast([(1, measured), (-1, printed)])
    assert contrasted is not None  # nothing is paired
    seeds, k = measured.deviation**2, len(measured.seeds)
    if not seeds:
        return contrasted
    images = measured.by_images + printed.by_images
    variance = images + seeds * (1 + 1 / k)
    freedom = (k - 1) * variance**2 / (seeds * (1 + 1 / k)) ** 2
    return Difference(contrasted.points, math.sqrt(variance), 1.0 if k == 2 and images < variance / 2 else freedom)


Part = tuple[float, list[tuple[float, float]]]


def _sum_paired(terms: Sequence[tuple[float, Measured]]) -> Part | None:
    """Return points, and the variances from images and from seeds, of a weighted sum over the same images."""
    seeded = [set(m.seeds) for _, m in terms if set(m.seeds) != {None}]
    common = set.intersection(*seeded) if seeded else {None}
    if not common:
        return None
    sums = np.stack([
        np.sum([weight * (m.seeds[seed] if seed in m.seeds else m.seeds[None]) for weight, m in terms], axis=0)
        for seed in sorted(common, key=str)
    ])  # (seeds, n)  # fmt: skip
    n = sums.shape[1]
    variances = [(float(sums.mean(axis=0).var(ddof=1)) / n, n - 1.0)] if n > 1 else [(math.nan, 1.0)]
    if len(sums) > 1:
        variances.append((float(sums.mean(axis=1).var(ddof=1)) / len(sums), len(sums) - 1.0))
    return float(sums.mean()), variances


def _weigh_single(weight: float, m: Measured) -> Part:
    variances = [(weight**2 * m.by_images, math.inf)]
    if len(m.seeds) > 1:
        variances.append((weight**2 * m.deviation**2 / len(m.seeds), len(m.seeds) - 1.0))
    return weight * m.value, variances


def format_p(p: float) -> str:
    """Return a p-value in two digits: .04, 1.0, < .001."""
    return "< .001" if p < 0.001 else "1.0" if p >= 0.995 else f"{p:.2g}".lstrip("0")
