"""A Table and the results -> a Sheet: rows of cells with the paper's marks, and why a cell is empty."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from simclic import store
from simclic.data import PAPER, title
from simclic.report.methods import Method, added, standing
from simclic.spec import Exhibit, Linear, Protocol, Run, Table
from simclic.spec.methods import AS_STORED, METHODS

DASH = "–"


@dataclass
class Cell:
    """One printed value. mark: best, second or nothing."""

    text: str = DASH
    value: float = math.nan
    mark: str = ""


@dataclass
class Row:
    """One line of cells under a name."""

    label: str
    cells: list[Cell]


@dataclass
class Group:
    """Rows that are compared with each other. title: where they come from."""

    title: str
    rows: list[Row]


@dataclass
class Sheet:
    """A table ready to be printed: blocks of groups of rows, one block per protocol."""

    exhibit: Exhibit
    corner: str
    header: list[str]
    blocks: list[tuple[str, list[Group]]]
    remarks: tuple[str, ...] = ()  # what explains its dashes


def sheet(table: Table, frame: pd.DataFrame, baselines: Path, failures: Mapping[str, str] = MappingProxyType({})) -> Sheet:
    """Stored numbers as printed, and below them what was run here. failures: by the name of a Run, why it failed."""
    path = baselines / f"{table.name}.csv"
    stored = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame()
    if isinstance(table.columns, tuple):
        return _details(table, _shaped(stored, ["method", *table.columns]))
    if table.columns == "dataset":
        return _comparison(table, frame, _shaped(stored, ["protocol", "method"]), failures, baselines / "methods")
    return _ablation(table, frame, _shaped(stored, [*stored.columns[:1], "error"]), failures)


def mark(rows: Sequence[Row]) -> None:
    """Mark best and second best of every column on printed precision, ties included, as Table 2 does."""
    for column in zip(*(row.cells for row in rows), strict=True):
        values = sorted({round(cell.value, 2) for cell in column if math.isfinite(cell.value)})
        for cell in column:
            if math.isfinite(cell.value):
                cell.mark = {0: "best", 1: "second"}.get(values.index(round(cell.value, 2)), "")


def summary(found: pd.DataFrame, reasons: Sequence[str] = ()) -> Cell:
    """The mean error over seeds, with its standard deviation if there are several. reasons: why Runs of this cell failed."""
    errors = found["error"].dropna()
    if errors.empty:
        return Cell("diverged") if any(store.DIVERGED in reason for reason in reasons) else Cell()
    spread = f" ± {errors.std():.2f}" if len(errors) > 1 else ""
    return Cell(f"{errors.mean():.2f}{spread}", float(errors.mean()))


def _cell(frame: pd.DataFrame, jobs: Sequence[tuple[Run, Protocol]], failures: Mapping[str, str]) -> Cell:
    return summary(of_jobs(frame, jobs), [failures[run.name] for run, _ in jobs if run.name in failures])


def of_jobs(frame: pd.DataFrame, jobs: Sequence[tuple[Run, Protocol]]) -> pd.DataFrame:
    """The rows of `frame` that these jobs ask for."""
    asked = {(run.name, protocol.name) for run, protocol in jobs}
    pairs = zip(frame["name"], frame["protocol"], strict=True)
    return frame[pd.Series([pair in asked for pair in pairs], index=frame.index, dtype=bool)]


def gaps(exhibit: Exhibit, frame: pd.DataFrame, failures: dict[str, str], command: str) -> list[str]:
    """Why results are not there, each reason once: a broken file, a failure, or that nobody ran it yet."""
    found = of_jobs(frame, exhibit.jobs)
    there = set(zip(found["name"], found["protocol"], strict=True))
    missing = [(run, protocol) for run, protocol in exhibit.jobs if (run.name, protocol.name) not in there]
    reasons = list(dict.fromkeys(found.loc[found["problem"] != "", "problem"]))
    reasons += [f"{name}: {failures[name]}" for name in dict.fromkeys(run.name for run, _ in missing) if name in failures]
    waiting = sum(run.name not in failures for run, _ in missing)
    return reasons + ([f"{waiting} of {len(exhibit.jobs)} results are not there yet; {command}"] if waiting else [])


def fallen(exhibit: Exhibit, frame: pd.DataFrame) -> list[str]:
    """Whose representation collapsed, and how that shows: a finding, not a failure."""
    found = of_jobs(frame, exhibit.jobs)
    found = found[found["collapsed"].fillna("") != ""].drop_duplicates("name")
    return [f"collapsed: {name}, {why}" for name, why in zip(found["name"], found["collapsed"], strict=True)]


def unsolved(exhibit: Exhibit, frame: pd.DataFrame) -> list[str]:
    """Whose linear probe was not solved at every l2, though its protocol says converged: its number may be a little off."""
    converged = [(run, p) for run, p in exhibit.jobs if isinstance(p, Linear) and p.solver == "converged"]
    found = of_jobs(frame, converged)
    found = found[found["unconverged"] > 0]
    return [f"not converged: {name}, at {n} values of l2" for name, n in zip(found["name"], found["unconverged"], strict=True)]


def mixed(exhibit: Exhibit, frame: pd.DataFrame) -> list[str]:
    """Where results that were measured on different data stand in one exhibit: data set, digests, and whose they are."""
    found = of_jobs(frame, exhibit.jobs)
    told = []
    for (dataset, split, _), rows in found[found["error"].notna()].groupby(["dataset", "split", "difficult"], sort=False):
        digests = rows.groupby("data", sort=False)["method"].agg(lambda m: ", ".join(dict.fromkeys(m)))
        if len(digests) > 1:
            those = "; ".join(f"{digest}: {methods}" for digest, methods in digests.items())
            told.append(
                f"{title(str(dataset))}, split {split}: numbers from different data stand here and do not compare ({those})"
            )
    return told


def _comparison(table: Table, frame: pd.DataFrame, stored: pd.DataFrame, failures: Mapping[str, str], folder: Path) -> Sheet:
    """Table 2: the paper's rows, those that were added in `folder`, then ours, for each protocol; where those stand that the
    paper does not print, and in what ours differ from theirs. Columns: the data sets of the paper and any other."""
    printed = [c for c in stored.columns if c not in ("protocol", "method", "value")]
    names = {title(name): name for name in PAPER}  # as printed -> data set
    asked = list(dict.fromkeys(run.dataset for run in table.runs))
    ours = [name for name in asked if title(name) not in printed or name not in PAPER]
    columns = ours + [names.get(text, text) for text in printed]
    header, blocks = [title(name) for name in ours] + printed, []
    new, split = added(folder, printed) if printed else [], {run.split for run in table.runs}
    for protocol in table.protocols:
        rows = stored[stored["protocol"] == protocol.stage]
        paper = [Row(r["method"], [Cell()] * len(ours) + [_printed(r[c]) for c in printed]) for _, r in rows.iterrows()]
        here = []
        jobs = [(run, p) for run, p in table.jobs if p == protocol]
        for method in dict.fromkeys(run.method for run, _ in jobs):
            those = [(run, p) for run, p in jobs if run.method == method]
            here.append(Row(method, [_cell(frame, [j for j in those if j[0].dataset == n], failures) for n in columns]))
        more = [_added(method, protocol.stage, len(ours), printed) for method in new if protocol.stage in method.rows]
        mark([*paper, *more])  # those that were added, as if the paper had them
        mark(paper)  # the others as the paper has them
        mark(here)
        known = {row.label for row in paper}
        unprinted = [*more, *(row for row in here if row.label not in known and split == {"ericsson"})]
        groups = [
            Group("As printed in the paper", paper),
            Group("Added", more),
            Group("Run here", here),
            Group("Rank among the printed rows, p against the best of them", _standings(unprinted, paper, header)),
            Group("Run here less printed", _differences(here, paper)),
        ]
        blocks.append((protocol.title, [group for group in groups if group.rows]))
    remark = "A dash without another reason: the paper prints no number there, or nothing is asked to run there but"
    told = (f"{remark} {', '.join(title(name) for name in asked)}.",) if printed else ()
    return Sheet(table, "", header, blocks, (*told, *(f"Added: {method.note}." for method in new)))


def _added(method: Method, stage: str, before: int, printed: Sequence[str]) -> Row:
    return Row(method.name, [Cell()] * before + [_printed(method.rows[stage].get(name, "")) for name in printed])


def _standings(rows: Sequence[Row], paper: Sequence[Row], header: Sequence[str]) -> list[Row]:
    """Where rows that the paper does not print stand among those that it does; rows without a number are left out."""
    found = []
    for row in rows:
        columns = zip(row.cells, header, zip(*(r.cells for r in paper), strict=True), strict=True) if paper else ()
        texts = [standing(cell.value, [c.value for c in theirs], name) for cell, name, theirs in columns]
        if any(texts):
            found.append(Row(row.label, [Cell(text or DASH) for text in texts]))
    return found


def _differences(here: Sequence[Row], paper: Sequence[Row]) -> list[Row]:
    """Ours less theirs, for rows of one name, where both have a number."""
    found, printed = [], {row.label: row for row in paper}
    for name, stored in AS_STORED.items():
        if (own := METHODS[name.removesuffix("-as-stored")]) in printed:
            printed[stored] = printed[own]
    for row in here:
        if row.label in printed:
            pairs = zip(row.cells, printed[row.label].cells, strict=True)
            less = [ours.value - round(theirs.value, 2) for ours, theirs in pairs]
            if any(map(math.isfinite, less)):
                found.append(Row(row.label, [Cell(f"{v:+.2f}") if math.isfinite(v) else Cell() for v in less]))
    return found


def _ablation(table: Table, frame: pd.DataFrame, stored: pd.DataFrame, failures: Mapping[str, str]) -> Sheet:
    """Tables 4-6: one row from the paper, which has linear evaluation only, and one per data set of ours."""
    assert isinstance(table.columns, str)
    values: list[Hashable] = list(dict.fromkeys(getattr(run, table.columns) for run in table.runs))
    header = [table.labels.get(v, str(v)) for v in values]
    printed = dict(zip(stored.iloc[:, 0], stored["error"], strict=True))  # label -> error
    paper = [Row("CIFAR10", [_printed(printed.get(label, "")) for label in header])] if printed else []
    blocks = []
    for protocol in table.protocols:
        here = []
        for dataset in dict.fromkeys(run.dataset for run in table.runs):
            jobs = [(run, p) for run, p in table.jobs if p == protocol and run.dataset == dataset]
            cells = [_cell(frame, [j for j in jobs if getattr(j[0], table.columns) == v], failures) for v in values]
            here.append(Row(title(dataset), cells))
        blocks.append((protocol.title, _groups(paper if protocol.stage == "linear" else [], here)))
    return Sheet(table, "Error rate (%)", header, blocks)


def _details(table: Table, stored: pd.DataFrame) -> Sheet:
    """Table 3: what the papers report, and what the Runs themselves say."""
    header = [table.labels.get(c, c) for c in table.columns]
    paper = [Row(r["method"], [_fact(r[c]) for c in table.columns]) for _, r in stored.iterrows()]
    here = [Row("SimCLIC", [_fact(getattr(run, c)) for c in table.columns]) for run in table.runs]
    return Sheet(table, "Method", header, [("", _groups(paper, here))])


def _shaped(stored: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The stored numbers, or none of them if they are of another table than this one."""
    return stored if set(columns) <= set(stored.columns) else pd.DataFrame(columns=list(dict.fromkeys(["value", *columns])))


def _groups(paper: list[Row], here: list[Row]) -> list[Group]:
    return [g for g in (Group("As printed in the paper", paper), Group("Run here", here)) if g.rows]


def _printed(text: str) -> Cell:
    return Cell(f"{float(text):.2f}", float(text)) if text else Cell()


def _fact(value: Any) -> Cell:
    return Cell({"x": "✓", "": "", "True": "✓", "False": ""}.get(str(value), str(value)))
