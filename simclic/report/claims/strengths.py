"""What Section 4.3 finds in Figures 4 to 6: how much the strength of a perturbation matters. None of their numbers is printed."""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import partial
from itertools import combinations

from simclic.report.cell_keys import Cells, Key
from simclic.report.claims.needs import CLASSES, STAGES, group_points, need_both, need_one, need_smaller
from simclic.report.claims.verdicts import (
    Claim,
    Judgement,
    Missing,
    Row,
    Verdict,
    combine_judgements,
    combine_verdicts,
    find_best,
    format_difference,
    judge_below_zero,
    judge_each,
    judge_place,
    name_exhibit,
    select_row,
    select_rows,
    subtract_errors,
    weigh_errors,
)
from simclic.report.noise import Difference

PEAK, NEAR = 0.25, (0.2, 0.3)  # the p that is said to be best, and what counts as near it: a step of the paper's grid
CLOSE = 1e-9  # two values of x that differ by less are one
TENTH = 0.1  # slopes are in points per 0.1 of x


def judge_finetuned_below_linear(cells: Cells, printed: Cells) -> Judgement:
    """Judge that fine-tuning has the lower error at every tau that has both. Fails if it is clearly higher at one."""
    return judge_both_stages("figure4", cells, _judge_finetuned_below)


def _judge_finetuned_below(linear: Row, tuned: Row) -> Judgement:
    taus = sorted(tau for tau in linear if tau in tuned)
    if not taus:
        raise Missing("needs one tau of Figure 4 both linear and fine-tuned")
    apart = {tau: subtract_errors(tuned[tau], linear[tau]) for tau in taus}
    lines = ", ".join(f"{tau:g}: {apart[tau].format_points()}" for tau in taus)
    return Judgement(
        combine_verdicts(map(judge_below_zero, apart.values())), (f"Fine-tuning vs linear evaluation at tau {lines}",)
    )


def judge_more_classes(cells: Cells, printed: Cells) -> Judgement:
    """Judge whether the best tau never falls with more classes, and is larger with the most classes than with the fewest.

    The best tau of a data set is any that is not clearly worse than the lowest, see `best`. Holds if it is so whichever of
    them are taken; fails if for some two data sets it is the other way round whichever are taken.
    """
    by_stage = {stage: select_rows(cells, "figure4", stage) for stage in STAGES}
    if not any(by_stage.values()):
        raise Missing("needs results of Figure 4; there are none")
    return combine_judgements(
        [judge_place(STAGES[stage], partial(_judge_order, stage_rows)) for stage, stage_rows in by_stage.items() if stage_rows]
    )


def _judge_order(stage_rows: Mapping[str, Row]) -> Judgement:
    known = sorted(stage_rows.values(), key=lambda row: row.classes)
    if known[0].classes == known[-1].classes:
        raise Missing(f"needs data sets with different numbers of classes in Figure 4; there is {', '.join(stage_rows)}")
    among = {row.dataset: find_best(row) for row in known}
    pairs = [(a, b, among[a.dataset][1], among[b.dataset][1]) for a, b in combinations(known, 2) if a.classes < b.classes]
    ends = [(few, many) for a, b, few, many in pairs if (a.classes, b.classes) == (known[0].classes, known[-1].classes)]
    verdict: Verdict = "undecided"
    if any(min(few) > max(many) for _, _, few, many in pairs):
        verdict = "fails"
    elif all(max(few) <= min(many) for _, _, few, many in pairs) and all(max(few) < min(many) for few, many in ends):
        verdict = "holds"
    lines = [f"{r.dataset} ({r.classes} classes) {_format_best(among[r.dataset])}" for r in known]
    return Judgement(verdict, ("lowest error at tau, " + "; ".join(lines),))


def _format_best(best: tuple[float, Sequence[float]]) -> str:
    """Return the x of the lowest error and those that may as well be it: "0.3 (not clearly higher at 0.2, 0.3)"."""
    return f"{best[0]:g} (not clearly higher at {', '.join(f'{x:g}' for x in best[1])})"


def claim_end_is_worse(name: str, end: int) -> Callable[[Row], Judgement]:
    """Return the claim that one end of a grid, 0 or -1, is clearly worse than its best. It fails if that end is clearly the best.

    See `best`.
    """

    def judge(row: Row) -> Judgement:
        lowest, among = find_best(row)
        x = row.grid[end]
        verdict: Verdict = "holds" if x not in among else "fails" if among == [x] else "undecided"
        line = f"lowest error at {name} {_format_best((lowest, among))}"
        if lowest != x:
            line += f"; {name} {x:g} vs {lowest:g}: {format_difference(subtract_errors(row[x], row[lowest]), len(row) - 1)}"
        return Judgement(verdict, (line,))

    return judge


def judge_best_near_quarter(row: Row) -> Judgement:
    """Judge whether the lowest error is at a p within NEAR, and both ends of the grid are clearly worse.

    Fails if every p within NEAR is clearly worse than the lowest, see `best`.
    """
    low, high = row.grid[0], row.grid[-1]
    near = [p for p in row.grid if _is_near_peak(p)]
    if not near or low in near or high in near:
        raise Missing(f"needs p within {NEAR[0]} to {NEAR[1]} and on either side of it; the results cover {low:g} to {high:g}")
    lowest, among = find_best(row)
    verdict: Verdict = "undecided"
    if not set(near) & set(among):
        verdict = "fails"
    elif lowest in near and low not in among and high not in among:
        verdict = "holds"
    peak = min(near, key=lambda p: row[p].value)
    ends = "; ".join(
        f"p {p:g} vs {peak:g}: {format_difference(subtract_errors(row[p], row[peak]), len(row) - 1)}" for p in (low, high)
    )
    return Judgement(verdict, (f"lowest error at p {_format_best((lowest, among))}; {ends}",))


def judge_faster_beyond_quarter(row: Row) -> Judgement:
    """Judge whether the error rises from PEAK to the largest p, more steeply in the last interval than in the first.

    If there is but one interval beyond PEAK, the one that ends there takes the place of the first.
    """
    after = [p for p in row.grid if p >= _find_peak(row)]
    steps = list(zip(row.grid, row.grid[1:], strict=False))
    if len(after) < 2 or len(steps) < 2:
        raise Missing(f"needs p beyond {PEAK} and two intervals; there is {', '.join(f'{p:g}' for p in row.grid)}")
    first, last = steps[-max(len(after) - 1, 2)], steps[-1]
    rise, bend = subtract_errors(row[after[0]], row[after[-1]]), _subtract_slopes(row, last, first)
    line = f"p {after[-1]:g} vs {after[0]:g}: {format_difference(subtract_errors(row[after[-1]], row[after[0]]))}"
    steeper = format_difference(_subtract_slopes(row, first, last))
    slopes = f"slope from p {last[0]:g} vs slope from p {first[0]:g}, per {TENTH}: {steeper}"
    return Judgement(combine_verdicts([judge_below_zero(rise), judge_below_zero(bend)]), (line, slopes))


def _find_peak(row: Row) -> float:
    """Return the p of the grid that is nearest to PEAK. Raises Missing if none is near it."""
    peak = min(row.grid, key=lambda p: abs(p - PEAK))
    if not _is_near_peak(peak):
        raise Missing(f"needs p of about {PEAK}; there is {', '.join(f'{p:g}' for p in row.grid)}")
    return peak


def _is_near_peak(p: float) -> bool:
    return NEAR[0] - CLOSE <= p <= NEAR[1] + CLOSE


def _subtract_slopes(row: Row, a: tuple[float, float], b: tuple[float, float]) -> Difference:
    """Return the slope in interval b minus that in interval a, in points per TENTH."""
    weights: dict[float, float] = {}
    for side, (start, right) in ((-1, a), (1, b)):
        for way, x in ((-1, start), (1, right)):
            weights[x] = weights.get(x, 0.0) + side * way * TENTH / (right - start)
    return weigh_errors(*((weight, row[x]) for x, weight in weights.items()))


def judge_gap_widens(cells: Cells, printed: Cells) -> Judgement:
    """Judge that linear minus fine-tuned error is larger at the largest p than at PEAK."""
    return judge_both_stages("figure5", cells, _judge_gap)


def _judge_gap(linear: Row, tuned: Row) -> Judgement:
    peak, last = _find_peak(linear), linear.grid[-1]
    if peak == last:
        raise Missing(f"needs p beyond {PEAK}")
    near, far = subtract_errors(linear[peak], tuned[peak]), subtract_errors(linear[last], tuned[last])
    d = weigh_errors((1, linear[peak]), (-1, tuned[peak]), (-1, linear[last]), (1, tuned[last]))
    gaps = f"{peak:g}: {near.format_points()}, at {last:g}: {far.format_points()}"
    return Judgement(
        judge_below_zero(d), (f"Linear evaluation minus fine-tuning at p {gaps}; first gap vs second: {format_difference(d)}",)
    )


def judge_both_stages(exhibit: str, cells: Cells, judge: Callable[[Row, Row], Judgement]) -> Judgement:
    """Judge every data set of a figure by its rows under linear evaluation and fine-tuning."""
    datasets = dict.fromkeys(key.dataset for key in cells if key.exhibit == exhibit)
    if not datasets:
        raise Missing(f"needs results of {name_exhibit(exhibit)}; there are none")
    pairs = {d: [select_row(cells, exhibit, stage, d) for stage in STAGES] for d in datasets}
    return combine_judgements([judge_place(d, partial(judge, *pair)) for d, pair in pairs.items()])


def claim_smaller_range(other: str) -> Callable[[Cells, Cells], Judgement]:
    """Return the claim that eps (Figure 6) matters less than another figure's field: the error has a smaller range over its grid.

    The range, the highest error less the lowest, grows with noise, as both are picked after the fact; it does so on either side
    and all but cancels where the grids are about equally long. The standard error takes the four points as given, which is
    more than the ranges of six or seven equal errors differ by chance. The paper does not tell its values of eps.
    """

    def judge(cells: Cells, printed: Cells) -> Judgement:
        return judge_each(
            cells, "figure6", STAGES, lambda eps: _judge_smaller_range(eps, select_row(cells, other, eps.stage, eps.dataset))
        )

    return judge


def _judge_smaller_range(eps: Row, other: Row) -> Judgement:
    (low, high), (least, most) = (_find_range(row) for row in (eps, other))
    d = weigh_errors((1, eps[high]), (-1, eps[low]), (-1, other[most]), (1, other[least]))
    own, theirs = eps[high].value - eps[low].value, other[most].value - other[least].value
    return Judgement(
        judge_below_zero(d),
        (f"range of errors over eps ({own:.2f}) vs in {name_exhibit(other.exhibit)} ({theirs:.2f}): {format_difference(d)}",),
    )


def _find_range(row: Row) -> tuple[float, float]:
    """Return the x of the lowest and of the highest error."""
    return min(row.grid, key=lambda x: row[x].value), max(row.grid, key=lambda x: row[x].value)


def has_several(at: Set[float]) -> bool:
    """Return whether a curve has several points."""
    return len(at) > 1


def around_a_quarter(at: Set[float]) -> bool:
    """Return whether a curve has a p within NEAR, and one on either side of it."""
    return len(at) > 2 and any(map(_is_near_peak, at)) and not _is_near_peak(min(at)) and not _is_near_peak(max(at))


def beyond_a_quarter(at: Set[float], intervals: int = 1) -> bool:
    """Return whether a curve has so many intervals, and a p beyond the one nearest to PEAK, which is within NEAR."""
    nearest = min(sorted(at), key=lambda p: abs(p - PEAK), default=0.0)
    return len(at) > intervals and _is_near_peak(nearest) and nearest < max(at)


def need_classes(places: Collection[Key], printed: Collection[Key]) -> bool:
    """Return whether Figure 4 has curves of data sets with different numbers of classes, and none whose number is yet unknown."""
    by_stage = [group_points(places, "figure4", stage) for stage in STAGES]
    return any(
        len({CLASSES.get(name) for name in p}) > 1 and CLASSES.keys() >= p.keys() and all(map(has_several, p.values()))
        for p in by_stage
    )


def _both_ends(linear: Set[float], tuned: Set[float]) -> bool:
    ends = {min(sorted(linear), key=lambda p: abs(p - PEAK)), max(linear)}
    return beyond_a_quarter(linear) and ends <= tuned


CLAIMS = (
    Claim(
        "finetuned-below-linear", "4.3", ("figure4",),
        "Whatever tau is, fine-tuning leaves fewer errors than linear evaluation.", judge_finetuned_below_linear,
        need_both("figure4", lambda linear, tuned: bool(linear & tuned)),
    ),
    Claim(
        "more-classes-larger-tau", "4.3", ("figure4",),
        "The best tau is larger where there are more classes to tell apart.", judge_more_classes, need_classes,
    ),
    Claim(
        "tau-too-large", "4.3", ("figure4",),
        "Tau can be too large: the error is higher again at the end of its range.",
        lambda cells, printed: judge_each(cells, "figure4", STAGES, claim_end_is_worse("tau", -1)),
        need_one("figure4", STAGES, has_several),
    ),
    Claim(
        "best-p-near-a-quarter", "4.3", ("figure5",),
        "The error is lowest for a p of about 0.25, and higher for much smaller and much larger ones.",
        lambda cells, printed: judge_each(cells, "figure5", STAGES, judge_best_near_quarter),
        need_one("figure5", STAGES, around_a_quarter),
    ),
    Claim(
        "faster-beyond-a-quarter", "4.3", ("figure5",),
        "Beyond 0.25 each further step of p costs more than the one before.",
        lambda cells, printed: judge_each(cells, "figure5", STAGES, judge_faster_beyond_quarter),
        need_one("figure5", STAGES, partial(beyond_a_quarter, intervals=2)),
    ),
    Claim(
        "gap-widens-with-p", "4.3", ("figure5",),
        "Fine-tuning gains more over linear evaluation when p is large than when it is 0.25.", judge_gap_widens,
        need_both("figure5", _both_ends),
    ),
    Claim(
        "some-size-of-noise-helps", "4.3", ("figure6",),
        "Noise of some size is better than next to none.",
        lambda cells, printed: judge_each(cells, "figure6", STAGES, claim_end_is_worse("eps", 0)),
        need_one("figure6", STAGES, has_several),
    ),
    Claim(
        "eps-matters-less-than-tau", "4.3", ("figure4", "figure6"),
        "The size of the noise changes the error less than tau does.", claim_smaller_range("figure4"),
        need_smaller("figure4"),
    ),
    Claim(
        "eps-matters-less-than-p", "4.3", ("figure5", "figure6"),
        "The size of the noise changes the error less than p does.", claim_smaller_range("figure5"),
        need_smaller("figure5"),
    ),
)  # fmt: skip
