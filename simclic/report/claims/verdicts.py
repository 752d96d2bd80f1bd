"""What a claim is, what it can be judged to be, and the one way from differences to a verdict."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from simclic.report.cell_keys import Cells, Key
from simclic.report.claims.needs import CLASSES, STAGES, Need
from simclic.report.noise import LEVEL, Difference, Measured, contrast, difference, shown

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
        """Where the paper says so: "Section 4.3, Figure 4"."""
        return f"Section {self.section}, {titles(self.exhibits)}"

    def on(self, cells: Cells, printed: Cells) -> Judgement:
        """The claim judged; "not run", with what it needs, if numbers are missing."""
        try:
            return self.judge(cells, printed)
        except Missing as e:
            return Judgement("not run", (str(e),))

    def can_be_judged(self, places: Collection[Key], printed: Collection[Key]) -> bool:
        """Return whether `on` gives a verdict once there are numbers at these places. A seed in common is taken for granted."""
        return self.need(places, printed)


class Missing(Exception):
    """Numbers that a claim cannot be judged without."""


class Row(dict[Any, Measured]):
    """What was measured on one data set under one protocol: `at` (see Key) -> error. Raises Missing for what is not there."""

    def __init__(self, exhibit: str, stage: str, dataset: str) -> None:
        super().__init__()
        self.exhibit, self.stage, self.dataset = exhibit, stage, dataset

    def __missing__(self, at: Any) -> Measured:
        raise Missing(f"needs {at} of {title(self.exhibit)}, {STAGES[self.stage]}")

    @property
    def classes(self) -> int:
        """How many classes the data set has. Raises Missing for a folder of images: its name does not tell."""
        if self.dataset not in CLASSES:
            raise Missing("needs the number of classes, which is not known here")
        return CLASSES[self.dataset]

    @property
    def grid(self) -> list[float]:
        """The values of x in order. Raises Missing unless there are several."""
        if len(self) < 2:
            raise Missing(f"needs several points of {title(self.exhibit)}, {STAGES[self.stage]}")
        return sorted(self)


def rows(cells: Cells, exhibit: str, stage: str) -> dict[str, Row]:
    """What an exhibit shows under one protocol, by data set."""
    found: dict[str, Row] = {}
    for key, measured in cells.items():
        if (key.exhibit, key.stage) == (exhibit, stage):
            found.setdefault(key.dataset, Row(*key[:3]))[key.at] = measured
    return found


def row(cells: Cells, exhibit: str, stage: str, dataset: str) -> Row:
    """What an exhibit shows on one data set under one protocol; it may be nothing."""
    return rows(cells, exhibit, stage).get(dataset, Row(exhibit, stage, dataset))


def each(cells: Cells, exhibit: str, stages: Collection[str], judge: Callable[[Row], Judgement]) -> Judgement:
    """Judged on every data set that there is, under every one of these protocols that there is; see `together`."""
    found = [row for stage in stages for row in rows(cells, exhibit, stage).values()]
    if not found:
        raise Missing(f"needs {title(exhibit)}, of which nothing is there")
    places = [row.dataset + (f", {STAGES[row.stage]}" if len(stages) > 1 else "") for row in found]
    return together([attempt(place, partial(judge, row)) for place, row in zip(places, found, strict=True)])


def attempt(place: str, judge: Callable[[], Judgement]) -> Judgement:
    """What is judged at one place, which is put before its evidence; "not run" if it lacks numbers."""
    try:
        found = judge()
    except Missing as e:
        found = Judgement("not run", (str(e),))
    return Judgement(found.verdict, (f"{place}: {found.evidence[0]}", *found.evidence[1:]))


def together(parts: Sequence[Judgement], needs_all: bool = False) -> Judgement:
    """Fails if it fails anywhere, else undecided if it is so anywhere, else holds.

    No test is corrected for how many places there are. Where numbers are missing nothing is decided, but said; needs_all: then
    the whole is "not run" unless it fails.
    """
    order: tuple[Verdict, ...] = ("fails", "undecided", "holds", "not run")
    if needs_all:
        order = ("fails", "not run", "undecided", "holds")
    found = {part.verdict for part in parts}
    return Judgement(next(v for v in order if v in found), tuple(line for part in parts for line in part.evidence))


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on several things that are claimed at once."""
    return together([Judgement(verdict, ()) for verdict in verdicts]).verdict


def sign(d: Difference) -> Verdict:
    """Of a claim that a difference is below zero."""
    if not d.clear:
        return "undecided"
    return "holds" if d.points < 0 else "fails"


def of(*terms: tuple[float, Measured]) -> Difference:
    """The weighted sum of errors, see noise.contrast. Raises Missing if they have no seed in common."""
    found = contrast(terms)
    if found is None:
        raise Missing("needs results of one seed: those that are there have none in common")
    return found


def less(first: Measured, second: Measured) -> Difference:
    """The error of the first less that of the second. Raises Missing if they have no seed in common."""
    return of((1, first), (-1, second))


def best(row: Row) -> tuple[float, list[float]]:
    """The x of the lowest error in a figure, and in order every x that may as well have it: not clearly worse than the lowest.

    As the lowest is picked after the fact, each p-value is multiplied by the number of others (Bonferroni).
    """
    lowest = min(row.grid, key=lambda x: row[x].value)

    def clearly_worse(x: float) -> bool:
        d = difference(row[x], row[lowest])
        return d is not None and d.points > 0 and d.p * (len(row) - 1) < LEVEL

    return lowest, [x for x in row.grid if not clearly_worse(x)]


def told(d: Difference, times: int = 1) -> str:
    """A difference as evidence shows it: "-0.06 ± 0.32, p .85". times: what its p-value was multiplied by when it was judged."""
    return f"{d.points:+.2f} ± {d.error:.2f}, p {shown(d.p)}" + (f" times {times}" if times > 1 else "")


def title(exhibit: str) -> str:
    """What the paper calls an exhibit: table2 is Table 2."""
    return f"{exhibit[:-1].capitalize()} {exhibit[-1]}"


def titles(exhibits: Sequence[str]) -> str:
    """What the paper calls one exhibit, or several figures: Figures 4 and 6."""
    return title(exhibits[0]) if len(exhibits) == 1 else f"Figures {' and '.join(name[-1] for name in exhibits)}"
