"""What Section 5 finds: predictor (Table 4), stop-gradient (Table 5), batches and epochs (Figure 7), loss (Table 6)."""

from collections.abc import Callable, Set
from dataclasses import replace

from simclic.experiment.exhibit import BEYOND
from simclic.report.cell_keys import Cells
from simclic.report.claims.needs import Need, need_columns, need_one
from simclic.report.claims.verdicts import (
    Claim,
    Judgement,
    Missing,
    Row,
    combine_verdicts,
    format_difference,
    judge_below_zero,
    judge_each,
    subtract_errors,
    weigh_errors,
)
from simclic.report.noise import Difference

RULE, PAPER_BATCH = "linear", 128  # the learning rate by SimSiam's rule; the largest batch of Figure 7
LOST = 0.95  # the share of what the working model learned that must be gone to say that a model fell to chance

Judge = Callable[[Cells, Cells], Judgement]


def claim_collapse(table: str, broken: str, working: str) -> Judge:
    """Return the claim that a model falls to chance: it lost at least the share LOST of the working one's gain.

    A model can be a little better than chance beyond noise, as 89.16 % on 12,000 images of 10 classes, and still have lost 99 %
    of it. Chance is 100 (1 - 1 / classes). Undecided, too, if the working model is not clearly better than chance itself.
    """

    def judge(row: Row) -> Judgement:
        learned, lost = judge_below_zero(_beyond_chance(row, working)), judge_below_zero(_beyond_lost(row, broken, working, -1))
        if learned != "holds":
            line = f"{working} ({row[working].value:.2f}) is itself not clearly better than chance ({_chance_error(row):.2f})"
            return Judgement("undecided", (line,))
        return Judgement(lost, (_format_lost_share(row, broken, working),))

    return lambda cells, printed: judge_each(cells, table, ["linear"], judge)


def claim_convergence(table: str, model: str, working: str) -> Judge:
    """Return the claim that a model does not fall to chance: it is better, and lost less than LOST (see `claim_collapse`)."""

    def judge(row: Row) -> Judgement:
        verdicts = [judge_below_zero(_beyond_lost(row, model, working, 1)), judge_below_zero(_beyond_chance(row, model))]
        return Judgement(combine_verdicts(verdicts), (_format_lost_share(row, model, working),))

    return lambda cells, printed: judge_each(cells, table, ["linear"], judge)


def _chance_error(row: Row) -> float:
    return 100 * (1 - 1 / row.classes)


def _beyond_chance(row: Row, model: str) -> Difference:
    """Return the error minus that of chance."""
    d = weigh_errors((1, row[model]))
    return replace(d, points=d.points - _chance_error(row))


def _beyond_lost(row: Row, model: str, working: str, side: int) -> Difference:
    """Return side times (the error minus the error at which the share LOST is lost)."""
    d = weigh_errors((side, row[model]), (-side * (1 - LOST), row[working]))
    return replace(d, points=d.points - side * LOST * _chance_error(row))


def _format_lost_share(row: Row, model: str, working: str) -> str:
    errors = f"{model} {row[model].value:.2f}, {working} {row[working].value:.2f}, chance {_chance_error(row):.2f}"
    learned = _chance_error(row) - row[working].value
    if learned <= 0:
        return f"{errors}: the working model learned nothing that could be lost"
    share = 1 - (_chance_error(row) - row[model].value) / learned
    error = weigh_errors((1, row[model]), (share - 1, row[working])).error / learned  # to first order
    return f"{errors}: {100 * share:z.1f} ± {100 * error:.1f} % of what was learned is lost"


def claim_better(table: str, first: str, second: str) -> Judge:
    """Return the judge of the claim that the first has a lower error than the second."""

    def judge(row: Row) -> Judgement:
        d = subtract_errors(row[first], row[second])
        errors = f"{first} {row[first].value:.2f} vs {second} {row[second].value:.2f}"
        return Judgement(judge_below_zero(d), (f"{errors}, linear evaluation: {format_difference(d)}",))

    return lambda cells, printed: judge_each(cells, table, ["linear"], judge)


def claim_larger_helps(axis: int) -> Judge:
    """Return the claim that the largest batch (axis 1), or number of epochs (axis 0), has a lower error than the smallest.

    Errors are averaged over the other axis. The values between are not judged, nor whether it would be so beyond the range.
    """
    names = ("epochs", "batch size")

    def judge(row: Row) -> Judgement:
        values = sorted({at[axis] for at in row})
        least, most = ({at[1 - axis]: m for at, m in row.items() if at[axis] == end} for end in (values[0], values[-1]))
        common = sorted(other for other in most if other in least)
        if len(values) < 2 or not common:
            raise Missing(f"needs results for two values of {names[axis]} at the same {names[1 - axis]} in Figure 7")
        d = weigh_errors(*((side / len(common), end[other]) for side, end in ((1, most), (-1, least)) for other in common))
        over = ", ".join(f"{other:g}" for other in common)
        return Judgement(
            judge_below_zero(d),
            (
                f"{names[axis]} {values[-1]:g} vs {values[0]:g}, linear evaluation, mean over {names[1 - axis]} {over}: "
                f"{format_difference(d)}",
            ),
        )

    return lambda cells, printed: judge_each(cells, "figure7", ["linear"], judge)


def need_ends(axis: int) -> Need:
    """Return the need of `claim_larger_helps`: a data set with both ends of one axis at a common value of the other."""

    def enough(at: Set[tuple[float, float]]) -> bool:
        low, high = ({point[1 - axis] for point in at if point[axis] == end(p[axis] for p in at)} for end in (min, max))
        return len({point[axis] for point in at}) > 1 and bool(low & high)

    return need_one("figure7", ["linear"], enough)


def judge_larger_still(cells: Cells, printed: Cells) -> Judgement:
    """Judge the paper's prediction: the largest batch has a lower error than 128, both with the learning rate by the rule."""
    return judge_each(cells, BEYOND, ["linear"], _judge_larger_still)


def _judge_larger_still(row: Row) -> Judgement:
    largest = max((batch for rule, batch in row if rule == RULE), default=0)
    if largest <= PAPER_BATCH or (RULE, PAPER_BATCH) not in row:
        raise Missing(f"needs results of a batch of {PAPER_BATCH} and of a larger one, lr_rule={RULE!r}")
    d = subtract_errors(row[RULE, largest], row[RULE, PAPER_BATCH])
    line = f"batch size {largest} vs {PAPER_BATCH}, linear evaluation, lr_rule={RULE!r}: {format_difference(d)}"
    return Judgement(judge_below_zero(d), (line,))


def _enough_beyond(at: Set[tuple[str, int]]) -> bool:
    return (RULE, PAPER_BATCH) in at and any(rule == RULE and batch > PAPER_BATCH for rule, batch in at)


CLAIMS = (
    Claim(
        "no-predictor-falls-to-chance", "5.1", ("table4",),
        "Without a predictor the encoder learns next to nothing.", claim_collapse("table4", "No predictor", "2-layer MLP"),
        need_columns("table4", "No predictor", "2-layer MLP"),
    ),
    Claim(
        "frozen-predictor-falls-to-chance", "5.1", ("table4",),
        "With a predictor that stays as it was initialised the encoder learns next to nothing.",
        claim_collapse("table4", "Fixed random init", "2-layer MLP"),
        need_columns("table4", "Fixed random init", "2-layer MLP"),
    ),
    Claim(
        "two-layers-beat-one", "5.1", ("table4",),
        "A predictor of two layers leaves fewer errors than one of one layer.",
        claim_better("table4", "2-layer MLP", "1-layer MLP"),
        need_columns("table4", "2-layer MLP", "1-layer MLP"),
    ),
    Claim(
        "no-stop-gradient-falls-to-chance", "5.2", ("table5",),
        "Where gradients flow into the target as well, the encoder learns next to nothing.",
        claim_collapse("table5", "Without stop-gradient", "With stop-gradient"),
        need_columns("table5", "Without stop-gradient", "With stop-gradient"),
    ),
    Claim(
        "larger-batches-help", "5.3", ("figure7",),
        "The largest batch leaves fewer errors than the smallest.", claim_larger_helps(1), need_ends(1),
    ),
    Claim(
        "more-epochs-help", "5.3", ("figure7",),
        "The longest training leaves fewer errors than the shortest.", claim_larger_helps(0), need_ends(0),
    ),
    Claim(
        "batches-beyond-128-help", "5.3", (BEYOND,),
        "A prediction: batches larger than 128 help further.", judge_larger_still, need_one(BEYOND, ["linear"], _enough_beyond),
    ),
    Claim(
        "cross-entropy-worse", "5.4", ("table6",),
        "Cosine similarity leaves fewer errors than cross-entropy.", claim_better("table6", "Cosine", "Cross-entropy"),
        need_columns("table6", "Cosine", "Cross-entropy"),
    ),
    Claim(
        "cross-entropy-converges", "5.4", ("table6",),
        "With cross-entropy the encoder still learns: it does not fall to chance.",
        claim_convergence("table6", "Cross-entropy", "Cosine"),
        need_columns("table6", "Cross-entropy", "Cosine"),
    ),
)  # fmt: skip
