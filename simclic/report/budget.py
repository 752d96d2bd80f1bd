"""What fits into a budget: parts of exhibits, first those that let most of the paper's claims be judged for an hour."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from simclic.data import title
from simclic.experiment import Suite
from simclic.report import SOURCE
from simclic.report.cell_keys import Key, job_key, read_printed_cells
from simclic.report.claims import CLAIMS, Claim
from simclic.schedule.plan import Plan
from simclic.schedule.plan_cost import PlanCost


@dataclass(frozen=True)
class Part:
    """One exhibit's results on one data set under one protocol. jobs: the names of all that make them. stem: the exhibit."""

    exhibit: str
    dataset: str
    protocol: str
    jobs: frozenset[str]
    stem: str

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
    """steps: what fits, in this order. open: claims that cannot be judged then.

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


def list_parts(suites: Iterable[Suite]) -> list[Part]:
    """Return what can be had or left: each exhibit by data set and protocol, in the order in which they were named."""
    jobs: dict[tuple[str, str, str, str], set[str]] = {}
    for suite in suites:
        for exhibit in suite.exhibits:
            for job in exhibit.jobs:
                protocol = job.protocol.title if job.protocol else ""
                name = f"{suite.name} {exhibit.name}".strip()
                place = (name, title(job.dataset), protocol, exhibit.claimed_name or exhibit.name)
                jobs.setdefault(place, set()).update((job.name, job.encoder.name))
    return [Part(*place[:3], frozenset(names), place[3]) for place, names in jobs.items()]


def propose_budget(limit: float, suites: Sequence[Suite], plan: Plan, bill: PlanCost, claims: Sequence[Claim] = CLAIMS) -> Budget:
    """Propose parts while they fit into `limit` device hours.

    First whatever lets most claims be judged for an hour: one part, two, or all of a claim's exhibits. Then, of what decides no
    claim, the cheapest first.
    """
    parts, budget, judge = list_parts(suites), Budget(limit), _Judge(suites, claims)
    done = frozenset(name for name, job in plan.jobs.items() if job.state == "done")
    unpriced = {name for name, job in plan.jobs.items() if job.state == "broken"} | set(bill.unpriced_jobs)
    priced = [part for part in parts if not part.jobs & unpriced and part.jobs - done]

    def hours(option: Iterable[Part]) -> float:
        return bill.hours_of(plan.jobs[name] for name in frozenset().union(*(part.jobs for part in option)) - done)

    budget.open = judge.list_open_claims(done)
    options = list(dict.fromkeys(option for claim in claims for option in judge.find_options(claim, priced, done)))
    while rated := [
        (len(gained) / max(cost, 1e-9), option, cost, gained)
        for option in options
        if (gained := budget.open - judge.list_open_claims(done.union(*(part.jobs for part in option))))
        and (cost := hours(option)) <= limit - budget.hours
    ]:
        _, option, cost, gained = max(rated, key=lambda item: (round(item[0], 6), len(item[3]), -len(item[1])))
        budget.steps.append(Step(tuple(part for part in option if part.jobs - done), cost, gained))
        done, budget.open = done.union(*(part.jobs for part in option)), budget.open - gained
    while rest := sorted(((hours([part]), part) for part in priced if part.jobs - done), key=lambda item: item[0]):
        cost, part = rest[0]
        if cost > limit - budget.hours:
            budget.out = [(part, cost) for cost, part in rest]
            break
        budget.steps.append(Step((part,), cost, frozenset()))
        done |= part.jobs
    budget.out += [(part, math.nan) for part in parts if part.jobs & unpriced]
    return budget


class _Judge:
    """Which claims can be judged once jobs are done, by where their results stand in the paper's exhibits."""

    def __init__(self, suites: Iterable[Suite], claims: Sequence[Claim]):
        self.claims, self.printed, self.places = claims, read_printed_cells(SOURCE / "baselines").keys(), dict[str, list[Key]]()
        for exhibit in (exhibit for suite in suites for exhibit in suite.exhibits if exhibit.claimed_name):
            for job in exhibit.judged:
                self.places.setdefault(job.name, []).append(job_key(exhibit, job))

    def list_open_claims(self, jobs: Collection[str]) -> frozenset[str]:
        """Return the names of the claims that cannot be judged once these jobs are done."""
        places = self._find_places(jobs)
        return frozenset(claim.name for claim in self.claims if not claim.can_be_judged(places, self.printed))

    def find_options(self, claim: Claim, parts: Sequence[Part], done: frozenset[str]) -> Iterator[tuple[Part, ...]]:
        """Yield the smallest sets of parts that let a claim be judged: single ones if they do, else pairs, else all."""
        own = [part for part in parts if part.stem in claim.exhibits]
        for options in ([(part,) for part in own], list(combinations(own, 2)), [tuple(own)]):
            enough = [option for option in options if self._can_judge(claim, done.union(*(part.jobs for part in option)))]
            if enough:
                yield from enough
                return

    def _can_judge(self, claim: Claim, jobs: Collection[str]) -> bool:
        return claim.can_be_judged(self._find_places(jobs), self.printed)

    def _find_places(self, jobs: Iterable[str]) -> set[Key]:
        return {place for job in jobs for place in self.places.get(job, ())}
