"""What Section 4.3 finds in Figures 4 to 6: how much the strength of a perturbation matters. None of their numbers is printed."""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import partial
from itertools import combinations

from simclic.report.cell_keys import Cells, Key
from simclic.report.claims.needs import CLASSES, STAGES, need_both, need_one, need_smaller, points
from simclic.report.claims.verdicts import (
    Claim,
    Judgement,
    Missing,
    Row,
    Verdict,
    attempt,
    best,
    each,
    less,
    of,
    row,
    rows,
    sign,
    title,
    together,
    told,
    worst,
)
from simclic.report.noise import Difference

PEAK, NEAR = 0.25, (0.2, 0.3)  # the p that is said to be best, and what counts as near it: a step of the paper's grid
CLOSE = 1e-9  # two values of x that differ by less are one
TENTH = 0.1  # slopes are in points per 0.1 of x


def finetuned_below_linear(cells: Cells, printed: Cells) -> Judgement:
    """At every tau that has both, fine-tuning makes fewer errors than linear evaluation. Fails if it is clearly more at one."""
    return both("figure4", cells, _below)


def _below(linear: Row, tuned: Row) -> Judgement:
    taus = sorted(tau for tau in linear if tau in tuned)
    if not taus:
        raise Missing("needs one tau of Figure 4 both linear and fine-tuned")
    apart = {tau: less(tuned[tau], linear[tau]) for tau in taus}
    lines = ", ".join(f"{tau:g}: {apart[tau].points:+.2f} ± {apart[tau].error:.2f}" for tau in taus)
    return Judgement(worst(map(sign, apart.values())), (f"fine-tuned less linear at tau {lines}",))


def more_classes(cells: Cells, printed: Cells) -> Judgement:
    """With more classes the best tau is never smaller, and with the most classes it is larger than with the fewest.

    The best tau of a data set is any that is not clearly worse than the lowest, see `best`. Holds if it is so whichever of
    them are taken; fails if for some two data sets it is the other way round whichever are taken.
    """
    found = {stage: rows(cells, "figure4", stage) for stage in STAGES}
    if not any(found.values()):
        raise Missing("needs Figure 4, of which nothing is there")
    return together([attempt(STAGES[stage], partial(_ordered, those)) for stage, those in found.items() if those])


def _ordered(those: Mapping[str, Row]) -> Judgement:
    known = sorted(those.values(), key=lambda row: row.classes)
    if known[0].classes == known[-1].classes:
        raise Missing(f"needs data sets with different numbers of classes in Figure 4; there is {', '.join(those)}")
    among = {row.dataset: best(row) for row in known}
    pairs = [(a, b, among[a.dataset][1], among[b.dataset][1]) for a, b in combinations(known, 2) if a.classes < b.classes]
    ends = [(few, many) for a, b, few, many in pairs if (a.classes, b.classes) == (known[0].classes, known[-1].classes)]
    verdict: Verdict = "undecided"
    if any(min(few) > max(many) for _, _, few, many in pairs):
        verdict = "fails"
    elif all(max(few) <= min(many) for _, _, few, many in pairs) and all(max(few) < min(many) for few, many in ends):
        verdict = "holds"
    lines = [f"{r.dataset} ({r.classes} classes) {_lowest(among[r.dataset])}" for r in known]
    return Judgement(verdict, ("lowest error at tau, " + "; ".join(lines),))


def _lowest(found: tuple[float, Sequence[float]]) -> str:
    """The x of the lowest error and those that may as well be it: "0.3 (within noise 0.2, 0.3)"."""
    return f"{found[0]:g} (within noise {', '.join(f'{x:g}' for x in found[1])})"


def end_is_worse(name: str, end: int) -> Callable[[Row], Judgement]:
    """That one end of a grid, 0 or -1, is clearly worse than its best; it fails if that is clearly better than all others.

    See `best`.
    """

    def judge(row: Row) -> Judgement:
        lowest, among = best(row)
        x = row.grid[end]
        verdict: Verdict = "holds" if x not in among else "fails" if among == [x] else "undecided"
        line = f"lowest error at {name} {_lowest((lowest, among))}"
        if lowest != x:
            line += f"; {x:g} less {lowest:g}: {told(less(row[x], row[lowest]), len(row) - 1)}"
        return Judgement(verdict, (line,))

    return judge


def best_near_a_quarter(row: Row) -> Judgement:
    """The lowest error is at a p within NEAR, and both ends of the grid are clearly worse.

    Fails if every p within NEAR is clearly worse than the lowest, see `best`.
    """
    low, high = row.grid[0], row.grid[-1]
    near = [p for p in row.grid if _near(p)]
    if not near or low in near or high in near:
        raise Missing(f"needs p within {NEAR[0]} to {NEAR[1]} and on either side of it; there is {low:g} to {high:g}")
    lowest, among = best(row)
    verdict: Verdict = "undecided"
    if not set(near) & set(among):
        verdict = "fails"
    elif lowest in near and low not in among and high not in among:
        verdict = "holds"
    peak = min(near, key=lambda p: row[p].value)
    ends = "; ".join(f"{p:g} less {peak:g}: {told(less(row[p], row[peak]), len(row) - 1)}" for p in (low, high))
    return Judgement(verdict, (f"lowest error at p {_lowest((lowest, among))}; {ends}",))


def faster_and_faster(row: Row) -> Judgement:
    """From PEAK to the largest p the error rises, and it rises more steeply in the last interval than in the first.

    If there is but one interval beyond PEAK, the one that ends there takes the place of the first.
    """
    after = [p for p in row.grid if p >= _peak(row)]
    steps = list(zip(row.grid, row.grid[1:], strict=False))
    if len(after) < 2 or len(steps) < 2:
        raise Missing(f"needs p beyond {PEAK} and two intervals; there is {', '.join(f'{p:g}' for p in row.grid)}")
    first, last = steps[-max(len(after) - 1, 2)], steps[-1]
    rise, bend = less(row[after[0]], row[after[-1]]), _bend(row, last, first)
    line = f"{after[-1]:g} less {after[0]:g}: {told(less(row[after[-1]], row[after[0]]))}"
    slopes = f"slope from {last[0]:g} less slope from {first[0]:g}: {told(_bend(row, first, last))} per {TENTH}"
    return Judgement(worst([sign(rise), sign(bend)]), (line, slopes))


def _peak(row: Row) -> float:
    """The p of the grid that is nearest to PEAK. Raises Missing if none is near it."""
    found = min(row.grid, key=lambda p: abs(p - PEAK))
    if not _near(found):
        raise Missing(f"needs p of about {PEAK}; there is {', '.join(f'{p:g}' for p in row.grid)}")
    return found


def _near(p: float) -> bool:
    return NEAR[0] - CLOSE <= p <= NEAR[1] + CLOSE


def _bend(row: Row, a: tuple[float, float], b: tuple[float, float]) -> Difference:
    """The slope in interval b less that in interval a, points per TENTH."""
    weights: dict[float, float] = {}
    for side, (left, right) in ((-1, a), (1, b)):
        for way, x in ((-1, left), (1, right)):
            weights[x] = weights.get(x, 0.0) + side * way * TENTH / (right - left)
    return of(*((weight, row[x]) for x, weight in weights.items()))


def gap_widens(cells: Cells, printed: Cells) -> Judgement:
    """Linear less fine-tuned is larger at the largest p than at PEAK."""
    return both("figure5", cells, _widens)


def _widens(linear: Row, tuned: Row) -> Judgement:
    peak, last = _peak(linear), linear.grid[-1]
    if peak == last:
        raise Missing(f"needs p beyond {PEAK}")
    near, far = less(linear[peak], tuned[peak]), less(linear[last], tuned[last])
    d = of((1, linear[peak]), (-1, tuned[peak]), (-1, linear[last]), (1, tuned[last]))
    gaps = f"{peak:g}: {near.points:+.2f} ± {near.error:.2f}, at {last:g}: {far.points:+.2f} ± {far.error:.2f}"
    return Judgement(sign(d), (f"linear less fine-tuned at p {gaps}; the former less the latter {told(d)}",))


def both(exhibit: str, cells: Cells, judge: Callable[[Row, Row], Judgement]) -> Judgement:
    """Judged on every data set of a figure, given its rows under linear evaluation and fine-tuning."""
    datasets = dict.fromkeys(key.dataset for key in cells if key.exhibit == exhibit)
    if not datasets:
        raise Missing(f"needs {title(exhibit)}, of which nothing is there")
    pairs = {d: [row(cells, exhibit, stage, d) for stage in STAGES] for d in datasets}
    return together([attempt(d, partial(judge, *pair)) for d, pair in pairs.items()])


def smaller_range(other: str) -> Callable[[Cells, Cells], Judgement]:
    """That eps (Figure 6) matters less than what another figure varies: the error has a smaller range over its grid.

    The range, the highest error less the lowest, grows with noise, as both are picked after the fact; it does so on either side
    and all but cancels where the grids are about equally long. The standard error takes the four points as given, which is
    more than the ranges of six or seven equal errors differ by chance. The paper does not tell its values of eps.
    """

    def judge(cells: Cells, printed: Cells) -> Judgement:
        return each(cells, "figure6", STAGES, lambda eps: _smaller(eps, row(cells, other, eps.stage, eps.dataset)))

    return judge


def _smaller(eps: Row, other: Row) -> Judgement:
    (low, high), (least, most) = (_range(row) for row in (eps, other))
    d = of((1, eps[high]), (-1, eps[low]), (-1, other[most]), (1, other[least]))
    own, theirs = eps[high].value - eps[low].value, other[most].value - other[least].value
    return Judgement(sign(d), (f"range {own:.2f} over eps, {theirs:.2f} in {title(other.exhibit)}; {told(d)}",))


def _range(row: Row) -> tuple[float, float]:
    """Where the error is lowest and where it is highest."""
    return min(row.grid, key=lambda x: row[x].value), max(row.grid, key=lambda x: row[x].value)


def several(at: Set[float]) -> bool:
    """Return whether a curve has several points."""
    return len(at) > 1


def around_a_quarter(at: Set[float]) -> bool:
    """Return whether a curve has a p within NEAR, and one on either side of it."""
    return len(at) > 2 and any(map(_near, at)) and not _near(min(at)) and not _near(max(at))


def beyond_a_quarter(at: Set[float], intervals: int = 1) -> bool:
    """Return whether a curve has so many intervals, and a p beyond the one nearest to PEAK, which is within NEAR."""
    nearest = min(sorted(at), key=lambda p: abs(p - PEAK), default=0.0)
    return len(at) > intervals and _near(nearest) and nearest < max(at)


def need_classes(places: Collection[Key], printed: Collection[Key]) -> bool:
    """Return whether Figure 4 has curves of data sets with different, known numbers of classes, and no others."""
    found = [points(places, "figure4", stage) for stage in STAGES]
    return any(
        len({CLASSES.get(name) for name in p}) > 1 and CLASSES.keys() >= p.keys() and all(map(several, p.values())) for p in found
    )


def _both_ends(linear: Set[float], tuned: Set[float]) -> bool:
    ends = {min(sorted(linear), key=lambda p: abs(p - PEAK)), max(linear)}
    return beyond_a_quarter(linear) and ends <= tuned


CLAIMS = (
    Claim(
        "finetuned-below-linear", "4.3", ("figure4",),
        "Whatever tau is, fine-tuning leaves fewer errors than linear evaluation.", finetuned_below_linear,
        need_both("figure4", lambda linear, tuned: bool(linear & tuned)),
    ),
    Claim(
        "more-classes-larger-tau", "4.3", ("figure4",),
        "The best tau is larger where there are more classes to tell apart.", more_classes, need_classes,
    ),
    Claim(
        "tau-too-large", "4.3", ("figure4",),
        "Tau can be too large: the error is higher again at the end of its range.",
        lambda cells, printed: each(cells, "figure4", STAGES, end_is_worse("tau", -1)),
        need_one("figure4", STAGES, several),
    ),
    Claim(
        "best-p-near-a-quarter", "4.3", ("figure5",),
        "The error is lowest for a p of about 0.25, and higher for much smaller and much larger ones.",
        lambda cells, printed: each(cells, "figure5", STAGES, best_near_a_quarter),
        need_one("figure5", STAGES, around_a_quarter),
    ),
    Claim(
        "faster-beyond-a-quarter", "4.3", ("figure5",),
        "Beyond 0.25 each further step of p costs more than the one before.",
        lambda cells, printed: each(cells, "figure5", STAGES, faster_and_faster),
        need_one("figure5", STAGES, partial(beyond_a_quarter, intervals=2)),
    ),
    Claim(
        "gap-widens-with-p", "4.3", ("figure5",),
        "Fine-tuning gains more over linear evaluation when p is large than when it is 0.25.", gap_widens,
        need_both("figure5", _both_ends),
    ),
    Claim(
        "some-size-of-noise-helps", "4.3", ("figure6",),
        "Noise of some size is better than next to none.",
        lambda cells, printed: each(cells, "figure6", STAGES, end_is_worse("eps", 0)),
        need_one("figure6", STAGES, several),
    ),
    Claim(
        "eps-matters-less-than-tau", "4.3", ("figure4", "figure6"),
        "The size of the noise changes the error less than tau does.", smaller_range("figure4"),
        need_smaller("figure4"),
    ),
    Claim(
        "eps-matters-less-than-p", "4.3", ("figure5", "figure6"),
        "The size of the noise changes the error less than p does.", smaller_range("figure5"),
        need_smaller("figure5"),
    ),
)  # fmt: skip
