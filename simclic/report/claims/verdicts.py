"""What a claim is, what it can be judged to be, and the one way from differences to a verdict."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from simclic.experiment.exhibit import BEYOND
from simclic.report.cell_keys import Cells, Key
from simclic.report.claims.needs import CLASSES, STAGES, Need
from simclic.report.noise import LEVEL, Difference, Measured, compute_contrast, compute_difference, format_p

# As claimed, beyond noise; within noise; the other way, beyond noise; for want of numbers; a figure that is printed without any.
Verdict = Literal["holds", "undecided", "fails", "not run", "not printed"]


@dataclass(frozen=True)
class Judgement:
    """What numbers say of a claim, and the lines that show it: errors in percent, differences ± standard error in points."""

    verdict: Verdict
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """Something that the paper says it found.

    name: a slug. section, exhibits: where it stands. says: it in our own words. judge: given the numbers to judge by, and the
    printed ones, which stand in for methods that were not run again; it raises Missing for what neither holds. need: which
    places of both must have a number so that `judge` gives a verdict, whatever the numbers are.
    """

    name: str
    section: str
    exhibits: tuple[str, ...]
    says: str
    judge: Callable[[Cells, Cells], Judgement]
    need: Need

    @property
    def place(self) -> str:
        """Return where the paper says so: "Section 4.3, Figure 4"."""
        return f"Section {self.section}, {name_exhibits(self.exhibits)}"

    def judge_cells(self, cells: Cells, printed: Cells) -> Judgement:
        """Return the verdict on these numbers, or "not run" and what is missing."""
        try:
            return self.judge(cells, printed)
        except Missing as e:
            return Judgement("not run", (str(e),))

    def can_be_judged(self, places: Collection[Key], printed: Collection[Key]) -> bool:
        """Return whether `judge_cells` gives a verdict once these places have numbers, assuming a common seed."""
        return self.need(places, printed)


class Missing(Exception):
    """Numbers that a claim cannot be judged without."""


class Row(dict[Any, Measured]):
    """What was measured on one data set under one protocol: `at` (see Key) -> error. Raises Missing for what is not there."""

    def __init__(self, exhibit: str, stage: str, dataset: str) -> None:
        super().__init__()
        self.exhibit, self.stage, self.dataset = exhibit, stage, dataset

    def __missing__(self, at: Any) -> Measured:
        raise Missing(f"needs {at} of {name_exhibit(self.exhibit)}, {STAGES[self.stage]}")

    @property
    def classes(self) -> int:
        """The number of classes of the data set; a folder's is that of its results. Raise Missing if they disagree or lack it."""
        if self.dataset in CLASSES:
            return CLASSES[self.dataset]
        counts = {measured.classes for measured in self.values()}
        if len(counts) != 1 or 0 in counts:
            known = " and ".join(map(str, sorted(counts - {0}))) or "none"
            raise Missing(f"needs the number of classes; its results say {known}")
        return counts.pop()

    @property
    def grid(self) -> list[float]:
        """The values of x in order. Raises Missing unless there are several."""
        if len(self) < 2:
            raise Missing(f"needs several points of {name_exhibit(self.exhibit)}, {STAGES[self.stage]}")
        return sorted(self)


def select_rows(cells: Cells, exhibit: str, stage: str) -> dict[str, Row]:
    """Return the errors of an exhibit under one protocol, by data set."""
    by_dataset: dict[str, Row] = {}
    for key, measured in cells.items():
        if (key.exhibit, key.stage) == (exhibit, stage):
            by_dataset.setdefault(key.dataset, Row(*key[:3]))[key.at] = measured
    return by_dataset


def select_row(cells: Cells, exhibit: str, stage: str, dataset: str) -> Row:
    """Return the errors of an exhibit on one data set under one protocol; the row may be empty."""
    return select_rows(cells, exhibit, stage).get(dataset, Row(exhibit, stage, dataset))


def judge_each(cells: Cells, exhibit: str, stages: Collection[str], judge: Callable[[Row], Judgement]) -> Judgement:
    """Judge a claim on every data set and protocol that has results; see `combine_judgements`."""
    dataset_rows = [row for stage in stages for row in select_rows(cells, exhibit, stage).values()]
    if not dataset_rows:
        raise Missing(f"needs results of {name_exhibit(exhibit)}; there are none")
    places = [row.dataset + (f", {STAGES[row.stage]}" if len(stages) > 1 else "") for row in dataset_rows]
    return combine_judgements([judge_place(place, partial(judge, row)) for place, row in zip(places, dataset_rows, strict=True)])


def judge_place(place: str, judge: Callable[[], Judgement]) -> Judgement:
    """Judge one data set and put its name before the evidence; "not run" if numbers are missing."""
    try:
        judgement = judge()
    except Missing as e:
        judgement = Judgement("not run", (str(e),))
    return Judgement(judgement.verdict, (f"{place}: {judgement.evidence[0]}", *judgement.evidence[1:]))


def combine_judgements(parts: Sequence[Judgement], needs_all: bool = False) -> Judgement:
    """Return fails if any judgement fails, else undecided if any is undecided, else holds.

    No test is corrected for how many places there are. Where numbers are missing nothing is decided, but said; needs_all: then
    the whole is "not run" unless it fails.
    """
    order: tuple[Verdict, ...] = ("fails", "undecided", "holds", "not run")
    if needs_all:
        order = ("fails", "not run", "undecided", "holds")
    verdicts = {part.verdict for part in parts}
    return Judgement(next(v for v in order if v in verdicts), tuple(line for part in parts for line in part.evidence))


def combine_verdicts(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on several statements that must all hold."""
    return combine_judgements([Judgement(verdict, ()) for verdict in verdicts]).verdict


def judge_below_zero(d: Difference) -> Verdict:
    """Return the verdict on the claim that a difference is below zero."""
    if not d.clear:
        return "undecided"
    return "holds" if d.points < 0 else "fails"


def weigh_errors(*terms: tuple[float, Measured]) -> Difference:
    """Return the weighted sum of errors, see noise.contrast. Raises Missing if they have no seed in common."""
    weighted = compute_contrast(terms)
    if weighted is None:
        raise Missing("needs results of one seed in common; the existing results share no seed")
    return weighted


def subtract_errors(first: Measured, second: Measured) -> Difference:
    """Return the error of the first minus that of the second. Raises Missing if they have no seed in common."""
    return weigh_errors((1, first), (-1, second))


def find_best(row: Row) -> tuple[float, list[float]]:
    """Return the x of the lowest error in a figure, and every x that is not clearly worse, in order.

    As the lowest is picked after the fact, each p-value is multiplied by the number of others (Bonferroni).
    """
    lowest = min(row.grid, key=lambda x: row[x].value)

    def clearly_worse(x: float) -> bool:
        d = compute_difference(row[x], row[lowest])
        return d is not None and d.points > 0 and d.p * (len(row) - 1) < LEVEL

    return lowest, [x for x in row.grid if not clearly_worse(x)]


def format_difference(d: Difference, times: int = 1) -> str:
    """Return a difference and its meaning: "-0.06 ± 0.32 (p = .85): no difference detected".

    times: the number of comparisons that the p-value is corrected for.
    """
    p = min(d.p * times, 1.0)  # nan stays nan
    corrected = f", corrected for {times} comparisons" if times > 1 else ""
    outcome = "no difference detected" if not p < LEVEL else "clearly lower" if d.points < 0 else "clearly higher"
    return f"{d.format_points()} (p {'' if p < 0.001 else '= '}{format_p(p)}{corrected}): {outcome}"


def name_exhibit(exhibit: str) -> str:
    """Return the paper's name of an exhibit: table2 is Table 2."""
    if exhibit == BEYOND:
        return "beyond Figure 7"
    return f"{exhibit[:-1].capitalize()} {exhibit[-1]}"


def name_exhibits(exhibits: Sequence[str]) -> str:
    """Return the paper's name of one exhibit, or of several figures: Figures 4 and 6."""
    return name_exhibit(exhibits[0]) if len(exhibits) == 1 else f"Figures {' and '.join(name[-1] for name in exhibits)}"
