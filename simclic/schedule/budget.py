"""What fits into a budget: parts of exhibits in the order of how many claims they decide for an hour, and what is left out."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from simclic.data import title
from simclic.experiment import Suite
from simclic.schedule.bill import Bill
from simclic.schedule.plan import Job, Plan

Claims = Mapping[str, frozenset[str]]  # by the name of a claim, the stems of the exhibits whose numbers it is about
Judged = Callable[[str, frozenset[str]], bool]  # can a claim be judged once these jobs are done, whatever the numbers are?


@dataclass(frozen=True)
class Part:
    """One exhibit's results on one data set under one protocol. needs: the names of all jobs that make them."""

    exhibit: str
    dataset: str
    protocol: str
    needs: frozenset[str]

    @property
    def stem(self) -> str:
        """The exhibit, whatever file it is in."""
        return self.exhibit.split()[-1]

    def __str__(self) -> str:
        return f"{self.exhibit}, {self.dataset}, {self.protocol.lower()}"


@dataclass(frozen=True)
class Step:
    """Parts that are proposed together, what they cost beyond those before, and the claims that can then be judged."""

    parts: tuple[Part, ...]
    hours: float
    claims: frozenset[str]


@dataclass
class Budget:
    """steps: what fits, in this order. open: claims that cannot be judged then. hours: of all steps.

    out: parts that do not fit, with the hours that each would cost now; nan if that is not known, since a file is broken or the
    images are elsewhere.
    """

    limit: float
    steps: list[Step] = field(default_factory=list)
    out: list[tuple[Part, float]] = field(default_factory=list)
    open: frozenset[str] = frozenset()

    @property
    def hours(self) -> float:
        """Of all steps."""
        return sum(step.hours for step in self.steps)


def parts(suites: Iterable[Suite], made: Plan) -> list[Part]:
    """What can be had or left: each exhibit by data set and protocol, in the order in which they were named."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for suite in suites:
        for exhibit in suite.exhibits:
            for run, protocol in exhibit.jobs:
                place = (f"{suite.name} {exhibit.name}".strip(), title(run.dataset), protocol.title)
                found.setdefault(place, set()).update(job.name for job in (Job(run, protocol), Job(run, None)))
    return [Part(*place, frozenset(needs)) for place, needs in found.items()]


def within(limit: float, those: Sequence[Part], claims: Claims, made: Plan, told: Bill, judged: Judged) -> Budget:
    """Propose parts while they fit into `limit` device hours.

    First whatever lets most claims be judged for an hour, one part, two, or all of a claim's exhibits; then, of what decides no
    claim, the cheapest first.
    """
    have = frozenset(name for name, job in made.jobs.items() if job.state == "done")
    lost = {name for name, job in made.jobs.items() if job.state == "broken"} | set(told.unknown)
    unpriced = [part for part in those if part.needs & lost]
    left, found = [part for part in those if part.needs - have and part not in unpriced], Budget(limit)
    found.open = frozenset(claim for claim in claims if not judged(claim, have))
    options = _options(left, found.open, claims, have, judged)
    while options:
        best = _best(options, limit - found.hours, have, told)
        if best is None:
            break
        parts = tuple(p for p in best if p.needs - have)
        hours, have = _hours(best, have, told), have | _needs(best)
        decided = frozenset(claim for claim in found.open if judged(claim, have))
        found.steps.append(Step(parts, hours, decided))
        found.open -= decided
        options = {parts: gain & found.open for parts, gain in options.items() if gain & found.open}
    while rest := [(_hours((part,), have, told), part) for part in left if part.needs - have]:
        hours, part = min(rest, key=lambda r: r[0])
        if found.hours + hours > limit:
            found.out = sorted(((part, hours) for hours, part in rest), key=lambda r: r[1])
            break
        found.steps.append(Step((part,), hours, frozenset()))
        have |= part.needs
    found.out += [(part, math.nan) for part in unpriced]
    return found


def _options(
    left: Sequence[Part], open: frozenset[str], claims: Claims, have: frozenset[str], judged: Judged
) -> dict[tuple[Part, ...], frozenset[str]]:
    """Parts that let claims be judged, and which: for each claim single ones if they do, else pairs, else all of its exhibits."""
    found: dict[tuple[Part, ...], set[str]] = {}
    for claim in sorted(open):
        of = [part for part in left if part.stem in claims[claim]]
        for sets in ([(p,) for p in of], list(combinations(of, 2)), [tuple(of)]):
            fits = [parts for parts in sets if judged(claim, have | _needs(parts))]
            for parts in fits:
                found.setdefault(parts, set()).add(claim)
            if fits:
                break
    return {parts: frozenset(c for c in open if judged(c, have | _needs(parts))) for parts in found}


def _best(
    options: dict[tuple[Part, ...], frozenset[str]], limit: float, have: frozenset[str], told: Bill
) -> tuple[Part, ...] | None:
    """What decides most for an hour among what fits."""
    rated = []
    for parts, gain in options.items():
        hours = _hours(parts, have, told)
        if hours <= limit:
            rated.append((round(len(gain) / max(hours, 1e-9), 6), len(gain), -len(parts), parts))
    return max(rated, key=lambda r: r[:3])[3] if rated else None


def _needs(parts: Iterable[Part]) -> frozenset[str]:
    return frozenset().union(*(part.needs for part in parts))


def _hours(parts: Iterable[Part], have: frozenset[str], told: Bill) -> float:
    """Device hours of what these parts need beyond what is there."""
    return told.hours(sum(told.prices[name].seconds for name in _needs(parts) - have if name in told.prices))
