"""What the runs say, in sentences: SimCLIC beside the controls, judged against sampling error."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from simclic import data
from simclic.experiment import Linear, Run, Table
from simclic.report.noise import Measured, compute_difference
from simclic.report.results import Results
from simclic.report.search import select_shown
from simclic.text import count_noun

UNTRAINED, IDENTITY, PIXELS = CONTROLS = ("Untrained backbone", "SimCLIC (no perturbation)", "Raw pixels")

OURS = "SimCLIC ("  # before a perturbation

Cells = dict[str, Measured]  # by method

RULE = (
    "Differences ± standard error, paired over test images and seeds; one counts if p < .05 (Student's t, with degrees of "
    "freedom after Welch and Satterthwaite)."
)


@dataclass(frozen=True)
class Finding:
    """What was learned on one data set, or why nothing can be said of some.

    rows: per method its mean error, and its error less that of each control. table: its title. compared: encoders and data sets.
    """

    sentences: str
    basis: str
    controls: list[str]
    rows: list[tuple[str, str, list[str]]]
    table: str = ""
    compared: frozenset[tuple[Run, str]] = frozenset()


def list_all_findings(tables: Iterable[Table], results: Results) -> list[Finding]:
    """Return the findings of several tables. Where tables show the same encoders, as by two solvers, the first one's counts."""
    findings, seen = list[Finding](), set[tuple[Run, str]]()
    for table in tables:
        fresh = [finding for finding in list_findings(table, results) if not finding.compared <= seen]
        findings += fresh
        seen = seen.union(*(finding.compared for finding in fresh))
    return findings


def list_findings(table: Table, results: Results) -> list[Finding]:
    """Return a finding for each data set of Table 2 with linear results of SimCLIC, and one for all that lack the control."""
    stated, without_control, unjudged = list[Finding](), list[str](), set[tuple[Run, str]]()
    linear = [p for p in table.plain_protocols if isinstance(p, Linear)][:1]
    for dataset in table.datasets:
        jobs = [
            job
            for job in select_shown(table, results)
            if job.protocol and job.protocol.plain in linear and job.dataset == dataset
        ]
        labels = dict.fromkeys(job.run.label for job in jobs)
        every = {label: results.measure_jobs([job for job in jobs if job.run.label == label]) for label in labels}
        digests = [m.data for m in every.values() if m]
        most = max(digests, key=digests.count, default="")  # other images cannot be paired with these
        errors = {method: m for method, m in every.items() if m and m.data == most}
        perturbed = {job.run.label for job in jobs if job.run.method == "simclic" and job.run.epochs}
        ours = [method for method in errors if method in perturbed.difference(CONTROLS)]
        compared = frozenset((job.run, dataset) for job in jobs if job.run.label in errors)
        if ours and UNTRAINED not in errors:
            without_control.append(data.title(dataset))
            unjudged |= compared
        elif ours:
            rivals = [job.run.label for job in jobs if job.run.method != "simclic" and job.run.label in errors]
            others = [method for method, m in every.items() if m and m.data != most]
            apart = f" Left out, since measured on other data: {', '.join(others)}." if others else ""
            finding = _describe_dataset(data.title(dataset), ours, list(dict.fromkeys(rivals)), errors, apart)
            stated.append(replace(finding, table=table.title, compared=compared))
    if without_control:
        unknown = "the untrained backbone has not been run, so nothing can be said of what SimCLIC learns."
        stated.append(Finding(f"{', '.join(without_control)}: {unknown}", "", [], [], table.title, frozenset(unjudged)))
    return stated


def _describe_dataset(title: str, ours: list[str], rivals: list[str], errors: Cells, apart: str) -> Finding:
    """Return what was learned, then the numbers that show it, best first."""
    first = next(iter(errors.values()))
    controls = [c for c in CONTROLS if c in errors]
    rows = []
    for m in sorted(errors, key=lambda m: errors[m].value):
        less = [str(compute_difference(errors[m], errors[c]) or "–") if m != c else "" for c in controls]
        rows.append((m, f"{errors[m].value:.1f}", less))
    seeds = max(len(m.seeds) for m in errors.values())
    over = f"{count_noun(seeds, 'seed')} and {first.images:,} images"
    basis = f"{title}, linear evaluation: mean error in percent over {over}. {RULE}{apart}"
    sentences = [*_describe_learning(title, ours, errors), *_describe_rivals(rivals, errors)]
    return Finding(" ".join(sentences), basis, controls, rows)


def _describe_learning(title: str, ours: list[str], errors: Cells) -> list[str]:
    """Return the first sentences: whether SimCLIC is better than the controls."""
    better = _select_clear("better", ours, errors, UNTRAINED)
    if not better:
        worse = _select_clear("worse", ours, errors, UNTRAINED)
        text = f"{title}: that SimCLIC learns anything is not shown: no perturbation makes it clearly better than untrained"
        return [text + (f"; with {_join_methods(worse)} it is clearly worse." if worse else ".")]
    sentences = [
        f"{title}: SimCLIC learns something: with {_join_methods(better)} it is clearly better than the untrained backbone."
    ]
    if IDENTITY in errors:
        worth = _select_clear("better", ours, errors, IDENTITY)
        harm = _select_clear("worse", ours, errors, IDENTITY)
        if harm:
            sentences.append(f"With {_join_methods(harm)} it is clearly worse than without any perturbation.")
        if worth:
            sentences.append(
                f"Perturbing is worth something: with {_join_methods(worth)} it is clearly better than without any perturbation."
            )
        elif len(harm) < len(ours):
            sentences.append("That perturbing is worth anything is not shown: no perturbation is clearly better than none.")
    if PIXELS in errors and len(_select_clear("worse", ours, errors, PIXELS)) == len(ours):
        sentences.append("Raw pixels are clearly better than SimCLIC with any of them.")
    return sentences


def _describe_rivals(rivals: list[str], errors: Cells) -> list[str]:
    """Return which other methods, trained on the same images, are clearly better than the untrained backbone, and which not."""
    better = _select_clear("better", rivals, errors, UNTRAINED)
    shown = [f"Of the other methods, {_join_methods(better)} clearly learn something."] if better else []
    rest = [m for m in rivals if m not in better]
    return shown + ([f"That {_join_methods(rest)} learn{'s' * (len(rest) == 1)} anything is not shown."] if rest else [])


def _select_clear(what: str, ours: list[str], errors: Cells, control: str) -> list[str]:
    differences = {m: compute_difference(errors[m], errors[control]) for m in ours}
    return [m for m, less in differences.items() if less and less.verdict == f"clearly {what} than"]


def _join_methods(methods: list[str]) -> str:
    names = [_short(m) for m in methods]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _short(method: str) -> str:
    return method[len(OURS) : -1] if method.startswith(OURS) else method
