"""What the runs say, in sentences: SimCLIC beside the controls, judged against sampling error."""

from dataclasses import dataclass

from simclic import data
from simclic.experiment import Linear, Table
from simclic.report.noise import Measured, difference
from simclic.report.results import Results

UNTRAINED, IDENTITY, PIXELS = CONTROLS = ("Untrained backbone", "SimCLIC (no perturbation)", "Raw pixels")

Cells = dict[str, Measured]  # by method

RULE = (
    "Differences ± standard error, paired over test images and seeds; one counts if p < .05 (Student's t, with degrees of "
    "freedom after Welch and Satterthwaite)."
)


@dataclass(frozen=True)
class Finding:
    """What was learned on one data set, or why nothing can be said of some.

    rows: per method its mean error, and its error less that of each control.
    """

    sentences: str
    basis: str
    controls: list[str]
    rows: list[tuple[str, str, list[str]]]


def findings(table: Table, results: Results) -> list[Finding]:
    """One per data set of Table 2 that has results of SimCLIC under linear evaluation; one for all that lack the control."""
    told, untold = [], list[str]()
    linear = [p for p in table.protocols if isinstance(p, Linear)][:1]
    for dataset in dict.fromkeys(run.dataset for run in table.runs):
        jobs = [job for job in table.jobs if job.protocol in linear and job.run.dataset == dataset]
        labels = dict.fromkeys(job.run.label for job in jobs)
        every = {label: results.measure_jobs([job for job in jobs if job.run.label == label]) for label in labels}
        digests = [m.data for m in every.values() if m]
        most = max(digests, key=digests.count, default="")  # other images cannot be paired with these
        found = {method: m for method, m in every.items() if m and m.data == most}
        if any(_ours(m) for m in found) and UNTRAINED not in found:
            untold.append(data.title(dataset))
        elif any(_ours(m) for m in found):
            others = [method for method, m in every.items() if m and m.data != most]
            apart = f" Left out, since measured on other data: {', '.join(others)}." if others else ""
            told.append(_finding(data.title(dataset), found, apart))
    if untold:
        unknown = "the untrained backbone has not been run, so nothing can be said of what SimCLIC learns."
        told.append(Finding(f"{', '.join(untold)}: {unknown}", "", [], []))
    return told


def _finding(title: str, found: Cells, apart: str) -> Finding:
    """What was learned, then the numbers it rests on, best first."""
    ours, first = [m for m in found if _ours(m)], next(iter(found.values()))
    controls = [c for c in CONTROLS if c in found]
    rows = []
    for m in sorted(found, key=lambda m: found[m].value):
        less = [str(difference(found[m], found[c]) or "–") if m != c else "" for c in controls]
        rows.append((m, f"{found[m].value:.1f}", less))
    seeds = max(len(m.seeds) for m in found.values())
    over = f"{seeds} seed{'s' * (seeds > 1)} and {first.images:,} images"
    basis = f"{title}, linear evaluation: mean error in percent over {over}. {RULE}{apart}"
    return Finding(" ".join(_learned(title, ours, found)), basis, controls, rows)


def _learned(title: str, ours: list[str], found: Cells) -> list[str]:
    """The first sentences: is SimCLIC better than the controls?"""
    better = _clearly("better", ours, found, UNTRAINED)
    if not better:
        return [f"{title}: that SimCLIC learns anything is not shown: with no perturbation is it clearly better than untrained."]
    told = [f"{title}: SimCLIC learns something: with {_and(better)} it is clearly better than the untrained backbone."]
    if IDENTITY in found:
        worth = _clearly("better", ours, found, IDENTITY)
        harm = _clearly("worse", ours, found, IDENTITY)
        if harm:
            told.append(f"With {_and(harm)} it is clearly worse than without any perturbation.")
        if worth:
            told.append(f"Perturbing is worth something: with {_and(worth)} it is clearly better than without any perturbation.")
        elif len(harm) < len(ours):
            told.append("That perturbing is worth anything is not shown: no perturbation is clearly better than none.")
    if PIXELS in found and len(_clearly("worse", ours, found, PIXELS)) == len(ours):
        told.append("Raw pixels are clearly better than SimCLIC with any of them.")
    return told


def _clearly(what: str, ours: list[str], found: Cells, control: str) -> list[str]:
    told = {m: difference(found[m], found[control]) for m in ours}
    return [m for m, less in told.items() if less and less.verdict == f"clearly {what} than"]


def _ours(method: str) -> bool:
    return method.startswith("SimCLIC") and method not in CONTROLS


def _and(methods: list[str]) -> str:
    names = [_short(m) for m in methods]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _short(method: str) -> str:
    return method.removeprefix("SimCLIC (").removesuffix(")")
