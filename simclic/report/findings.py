"""What the runs say, in sentences: SimCLIC beside the controls, judged against sampling error."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from simclic import data, store
from simclic.report.tables import of_jobs
from simclic.spec import Linear, Table

UNTRAINED, IDENTITY, PIXELS = CONTROLS = ("Untrained backbone", "SimCLIC (no perturbation)", "Raw pixels")

Seeds = dict[int | None, np.ndarray]  # seed -> (n,) whether each test image was classified wrongly
Wrong = dict[str, Seeds]  # by method

RULE = "Differences ± standard error, paired over test images and seeds; one counts if it is more than twice that error."


@dataclass(frozen=True)
class Difference:
    """Error of a method minus that of a control, in points, and its standard error."""

    points: float
    error: float

    @property
    def verdict(self) -> str:
        """Better or worse if the difference is more than twice its standard error, else no difference to speak of."""
        if abs(self.points) <= 2 * self.error:
            return "not distinguishable from"
        return "clearly better than" if self.points < 0 else "clearly worse than"

    def __str__(self) -> str:
        return f"{self.points:+.1f} ± {self.error:.1f}"


def compare(method: Seeds, control: Seeds) -> Difference | None:
    """Paired over test images and seeds: seeds that one of them lacks are left out; None if no seed is left.

    The standard error adds what the choice of test images and, with several seeds, what the seeds contribute. Raw pixels
    have no seed (None) and are compared with each seed of the other.
    """
    pairs = [(m, c) for s, m in method.items() for t, c in control.items() if s == t or s is None or t is None]
    if not pairs:
        return None
    differences = np.stack([m.astype(float) - c for m, c in pairs])  # (seeds, n)
    variance = differences.mean(axis=0).var(ddof=1) / differences.shape[1]
    if len(pairs) > 1:
        variance += differences.mean(axis=1).var(ddof=1) / len(pairs)
    return Difference(100 * float(differences.mean()), 100 * math.sqrt(variance))


@dataclass(frozen=True)
class Finding:
    """What was learned on one data set, or why nothing can be said of some.

    rows: per method its mean error, and its error less that of each control.
    """

    sentences: str
    basis: str
    controls: list[str]
    rows: list[tuple[str, str, list[str]]]


def findings(table: Table, frame: pd.DataFrame, runs: Path) -> list[Finding]:
    """One per data set of Table 2 that has results of SimCLIC under linear evaluation; one for all that lack the control."""
    told, untold = [], list[str]()
    for dataset in dict.fromkeys(run.dataset for run in table.runs):
        linear = [p for p in table.protocols if isinstance(p, Linear)][:1]
        jobs = [(run, p) for run, p in table.jobs if p in linear and run.dataset == dataset]
        found = of_jobs(frame, jobs)
        found = found[found["error"].notna()].sort_values("seed")
        most = found["data"].mode().head(1)  # what most were measured on; other images cannot be paired with these
        others = found.loc[~found["data"].isin(most), "method"].unique()
        found = found[found["data"].isin(most)]
        wrong: Wrong = {}
        for name, method, seed, protocol in zip(found["name"], found["method"], found["seed"], found["protocol"], strict=True):
            truth, scores = store.predictions(runs, name, protocol)
            if truth.ndim == 1:  # one class per image
                wrong.setdefault(method, {})[None if method == PIXELS else int(seed)] = scores.argmax(axis=1) != truth
        if any(_ours(m) for m in wrong) and UNTRAINED not in wrong:
            untold.append(data.title(dataset))
        elif any(_ours(m) for m in wrong):
            apart = f" Left out, since measured on other data: {', '.join(others)}." if len(others) else ""
            told.append(_finding(data.title(dataset), wrong, int(found["seed"].nunique()), apart))
    if untold:
        unknown = "the untrained backbone has not been run, so nothing can be said of what SimCLIC learns."
        told.append(Finding(f"{', '.join(untold)}: {unknown}", "", [], []))
    return told


def _finding(title: str, wrong: Wrong, seeds: int, apart: str) -> Finding:
    """What was learned, then the numbers it rests on, best first."""
    ours, tests = [m for m in wrong if _ours(m)], len(next(iter(next(iter(wrong.values())).values())))
    means = {m: 100 * float(np.mean(list(seeds.values()))) for m, seeds in wrong.items()}
    controls = [c for c in CONTROLS if c in wrong]
    rows = []
    for m in sorted(means, key=lambda m: means[m]):
        less = [str(compare(wrong[m], wrong[c]) or "–") if m != c else "" for c in controls]
        rows.append((m, f"{means[m]:.1f}", less))
    over = f"{seeds} seed{'s' * (seeds > 1)} and {tests:,} images"
    basis = f"{title}, linear evaluation: mean share of wrong answers in percent over {over}. {RULE}{apart}"
    return Finding(" ".join(_learned(title, ours, wrong)), basis, controls, rows)


def _learned(title: str, ours: list[str], wrong: Wrong) -> list[str]:
    """The first sentences: is SimCLIC better than the controls?"""
    better = _clearly("better", ours, wrong, UNTRAINED)
    if not better:
        return [
            f"{title}: SimCLIC learns nothing here that the untrained backbone does not know: no perturbation is clearly better."
        ]
    told = [f"{title}: SimCLIC learns something: with {_and(better)} it is clearly better than the untrained backbone."]
    if IDENTITY in wrong:
        worth = _clearly("better", ours, wrong, IDENTITY)
        harm = _clearly("worse", ours, wrong, IDENTITY)
        if harm:
            told.append(f"With {_and(harm)} it is clearly worse than without any perturbation.")
        if worth:
            told.append(f"Perturbing is worth something: with {_and(worth)} it is clearly better than without any perturbation.")
        elif len(harm) < len(ours):
            told.append("That perturbing is worth anything is not shown: no perturbation is clearly better than none.")
    if PIXELS in wrong and len(_clearly("worse", ours, wrong, PIXELS)) == len(ours):
        told.append("Raw pixels are clearly better than SimCLIC with any of them.")
    return told


def _clearly(what: str, ours: list[str], wrong: Wrong, control: str) -> list[str]:
    told = {m: compare(wrong[m], wrong[control]) for m in ours}
    return [m for m, difference in told.items() if difference and difference.verdict == f"clearly {what} than"]


def _ours(method: str) -> bool:
    return method.startswith("SimCLIC") and method not in CONTROLS


def _and(methods: list[str]) -> str:
    names = [_short(m) for m in methods]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _short(method: str) -> str:
    return method.removeprefix("SimCLIC (").removesuffix(")")
