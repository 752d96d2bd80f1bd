"""A Table and the results -> a Sheet: rows of cells with the paper's marks, or with marks that the test images support."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import pandas as pd

from simclic.data import PAPER, title
from simclic.experiment import Exhibit, Job, Table
from simclic.experiment.baselines import AS_STORED, IMPORTED, METHODS
from simclic.report.added_methods import AddedMethod, read_added_methods
from simclic.report.cell_keys import Cells, Key, read_printed_cells
from simclic.report.noise import Measured, difference, shown
from simclic.report.results import Results, keep_same_data
from simclic.store.run_files import DIVERGED

DASH = "–"

Failures = Mapping[str, str]
NO_FAILURES: Failures = MappingProxyType({})


@dataclass
class Cell:
    """One value. mark: best, second or nothing. runs: the names of the Runs behind it. measure: what is known of its noise."""

    text: str = DASH
    value: float = math.nan
    mark: str = ""
    runs: tuple[str, ...] = ()
    measure: Callable[[], Measured | None] = lambda: None


@dataclass
class Row:
    """One line of cells under a name."""

    label: str
    cells: list[Cell]


@dataclass
class Group:
    """Rows under a title that says where they come from.

    rivals: with whom they are compared to be marked: each other, nobody, or those of the group before as well.
    """

    title: str
    rows: list[Row]
    rivals: Literal["own", "none", "before"] = "own"


@dataclass
class Sheet:
    """A table ready to be printed: blocks of groups of rows, one block per protocol."""

    exhibit: Exhibit
    corner: str
    header: list[str]
    blocks: list[tuple[str, list[Group]]]
    remarks: tuple[str, ...] = ()  # what explains its dashes

    def with_supported_marks(self) -> Self:
        """The same with every entry marked that is not distinguishable from the best of its column and group."""
        return replace(self, blocks=[(title, _mark_supported_groups(groups)) for title, groups in self.blocks])


def build_sheet(table: Table, results: Results, baselines: Path, failures: Failures = NO_FAILURES) -> Sheet:
    """Stored numbers as printed, and below them what was run here. failures: by the name of a Run, why it failed."""
    path = baselines / f"{table.paper}.csv"
    stored = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame()
    if isinstance(table.columns, tuple):
        return _build_detail_sheet(table, _select_table(stored, ["method", *table.columns]))
    if table.columns == "dataset":
        return _build_dataset_sheet(table, results, _select_table(stored, ["protocol", "method"]), failures, baselines)
    return _build_ablation_sheet(
        table, results, _select_table(stored, [*stored.columns[:1], "error"]), failures, read_printed_cells(baselines)
    )


def mark_best(rows: Sequence[Row]) -> None:
    """Mark best and second best of every column on printed precision, ties included, as Table 2 does."""
    for column in zip(*(row.cells for row in rows), strict=True):
        values = sorted({round(cell.value, 2) for cell in column if math.isfinite(cell.value)})
        for cell in column:
            if math.isfinite(cell.value):
                cell.mark = {0: "best", 1: "second"}.get(values.index(round(cell.value, 2)), "")


def mark_supported(rows: Sequence[Row]) -> list[Row]:
    """The rows with every entry marked best that is not distinguishable from the best of its column, see simclic.report.noise.

    One whose noise is not known shares the mark only if it is the best, or equal to it in print.
    """
    columns = [_mark_supported_column(column) for column in zip(*(row.cells for row in rows), strict=True)]
    return [Row(row.label, list(cells)) for row, cells in zip(rows, zip(*columns, strict=True), strict=True)]


def _mark_supported_groups(groups: Sequence[Group]) -> list[Group]:
    marked_groups = []
    for before, group in zip([None, *groups], groups, strict=False):
        rows = group.rows
        if group.rivals != "none":
            above = before.rows if before and group.rivals == "before" else []
            rows = mark_supported([*above, *rows])[len(above) :]
        marked_groups.append(replace(group, rows=rows))
    return marked_groups


def _mark_supported_column(column: Sequence[Cell]) -> list[Cell]:
    known = [cell for cell in column if math.isfinite(cell.value)]
    if not known:
        return list(column)
    best = min(known, key=lambda cell: cell.value)
    top = best.measure()

    def like(cell: Cell) -> bool:
        if round(cell.value, 2) == round(best.value, 2):
            return True
        mine = cell.measure() if math.isfinite(cell.value) else None
        less = difference(mine, top) if mine and top else None
        return less is not None and not less.clear and not math.isnan(less.p)

    return [replace(cell, mark="best" if like(cell) else "") for cell in column]


def summarise_errors(errors: Sequence[float], reasons: Sequence[str] = ()) -> Cell:
    """The mean error over seeds, with its standard deviation if there are several. reasons: why Runs of this cell failed."""
    if not errors:
        return Cell("diverged") if any(DIVERGED in reason for reason in reasons) else Cell()
    series = pd.Series(errors)
    spread = f" ± {series.std():.2f}" if len(errors) > 1 else ""
    return Cell(f"{series.mean():.2f}{spread}", float(series.mean()))


def _build_cell(results: Results, jobs: Sequence[Job], failures: Failures) -> Cell:
    rows = keep_same_data(results.rows_of(jobs))
    cell = summarise_errors([row["error"] for row in rows], [failures[job.run.name] for job in jobs if job.run.name in failures])
    return replace(cell, runs=tuple(str(row["name"]) for row in rows), measure=lambda: results.measure_jobs(jobs))


def _build_dataset_sheet(table: Table, results: Results, stored: pd.DataFrame, failures: Failures, baselines: Path) -> Sheet:
    """Table 2: the paper's rows, those that were added, then ours, for each protocol; where those stand that the paper does not
    print, and in what ours differ from theirs. Columns: the data sets of the paper and any other."""
    names = {title(name): name for name in PAPER}  # as printed -> data set
    theirs = [c for c in stored.columns if c not in ("protocol", "method", "value")]
    asked = list(dict.fromkeys(run.dataset for run in table.runs))
    ours = [name for name in asked if title(name) not in theirs or name not in PAPER]
    columns = ours + [names.get(text, text) for text in theirs]
    header, blocks, known = [title(name) for name in ours] + theirs, [], read_printed_cells(baselines)
    taken = {*IMPORTED.values(), *(stored["method"] if theirs else ())}
    new, split = read_added_methods(baselines / "methods", theirs, taken) if theirs else [], {run.split for run in table.runs}
    for protocol in table.protocols:
        rows = stored[stored["protocol"] == protocol.stage].to_dict("records")
        places = [[Key("table2", protocol.stage, c, r["method"]) for c in theirs] for r in rows]
        paper_rows = [
            Row(r["method"], [Cell()] * len(ours) + [_build_printed_cell(r[k.dataset], known.get(k)) for k in keys])
            for r, keys in zip(rows, places, strict=True)
        ]
        jobs: dict[str, dict[str, list[Job]]] = {}
        for job in table.jobs:
            if job.protocol == protocol:
                jobs.setdefault(job.run.label, {}).setdefault(job.run.dataset, []).append(job)
        our_rows = [Row(m, [_build_cell(results, those.get(n, []), failures) for n in columns]) for m, those in jobs.items()]
        added_rows = [
            _build_added_row(method, protocol.stage, len(ours), theirs) for method in new if protocol.stage in method.rows
        ]
        mark_best([*paper_rows, *added_rows])  # those that were added, as if the paper had them
        mark_best(paper_rows)  # the others as the paper has them
        mark_best(our_rows)
        labels = {row.label for row in paper_rows}
        unprinted = [*added_rows, *(row for row in our_rows if row.label not in labels and split == {"ericsson"})]
        groups = [
            Group("As printed in the paper", paper_rows),
            Group("Added", added_rows, "before"),
            Group("Run here", our_rows),
            Group("Rank among the printed rows, p against the best of them", _build_rank_rows(unprinted, paper_rows), "none"),
            Group("Run here less printed", _build_difference_rows(our_rows, paper_rows), "none"),
        ]
        blocks.append((protocol.title, [group for group in groups if group.rows]))
    remark = "A dash without another reason: the paper prints no number there, or nothing is asked to run there but"
    remarks = (f"{remark} {', '.join(title(name) for name in asked)}.",) if theirs else ()
    return Sheet(table, "", header, blocks, (*remarks, *(f"Added: {method.note}." for method in new)))


def _build_added_row(method: AddedMethod, stage: str, before: int, columns: Sequence[str]) -> Row:
    texts = {name: method.rows[stage].get(name, "") for name in columns}
    cells = [_build_printed_cell(text, method.to_measured(text, name)) for name, text in texts.items()]
    return Row(method.name, [Cell()] * before + cells)


def _build_rank_rows(rows: Sequence[Row], paper: Sequence[Row]) -> list[Row]:
    """Where rows that the paper does not print stand among those that it does; rows without a number are left out."""
    ranked_rows = []
    for row in rows:
        columns = zip(row.cells, zip(*(r.cells for r in paper), strict=True), strict=True) if paper else ()
        texts = [format_rank(cell, theirs) for cell, theirs in columns]
        if any(texts):
            ranked_rows.append(Row(row.label, [Cell(text or DASH) for text in texts]))
    return ranked_rows


def format_rank(cell: Cell, others: Sequence[Cell]) -> str:
    """The rank of an error among others, ties sharing the better one, and the p-value against the best of them: "3 of 17, p .04".

    The other may be the better. No p-value where noise is not known; for mean per class and mAP it is a rough measure.
    """
    known = sorted((other for other in others if math.isfinite(other.value)), key=lambda other: other.value)
    if not known or not math.isfinite(cell.value):
        return ""
    rank = 1 + sum(round(other.value, 2) < round(cell.value, 2) for other in known)
    mine, best = cell.measure(), known[0].measure()
    less = difference(mine, best) if mine and best else None
    return f"{rank} of {len(known) + 1}" + (f", p {shown(less.p)}" if less else "")


def _build_difference_rows(our_rows: Sequence[Row], paper: Sequence[Row]) -> list[Row]:
    """Ours less theirs, for rows of one name, where both have a number."""
    difference_rows, theirs = [], {row.label: row for row in paper}
    for name, stored in AS_STORED.items():
        if (own := METHODS[name.removesuffix("-as-stored")]) in theirs:
            theirs[stored] = theirs[own]
    for row in our_rows:
        if row.label in theirs:
            pairs = zip(row.cells, theirs[row.label].cells, strict=True)
            less = [ours.value - round(printed.value, 2) for ours, printed in pairs]
            if any(map(math.isfinite, less)):
                difference_rows.append(Row(row.label, [Cell(f"{v:+.2f}") if math.isfinite(v) else Cell() for v in less]))
    return difference_rows


def _build_ablation_sheet(table: Table, results: Results, stored: pd.DataFrame, failures: Failures, known: Cells) -> Sheet:
    """Tables 4-6: one row from the paper, which has linear evaluation only, and one per data set of ours."""
    assert isinstance(table.columns, str)
    values: list[Hashable] = list(dict.fromkeys(getattr(run, table.columns) for run in table.runs))
    header = [table.labels.get(v, str(v)) for v in values]
    texts = dict(zip(stored.iloc[:, 0], stored["error"], strict=True))  # label -> error
    cells = [
        _build_printed_cell(texts.get(label, ""), known.get(Key(table.name, "linear", "CIFAR10", label))) for label in header
    ]
    paper = [Row("CIFAR10", cells)] if texts else []
    blocks = []
    for protocol in table.protocols:
        our_rows = []
        for dataset in dict.fromkeys(run.dataset for run in table.runs):
            jobs = [job for job in table.jobs if job.protocol == protocol and job.run.dataset == dataset]
            row = [_build_cell(results, [j for j in jobs if getattr(j.run, str(table.columns)) == v], failures) for v in values]
            our_rows.append(Row(title(dataset), row))
        blocks.append((protocol.title, _build_unranked_groups(paper if protocol.stage == "linear" else [], our_rows)))
    return Sheet(table, "Error rate (%)", header, blocks)


def _build_detail_sheet(table: Table, stored: pd.DataFrame) -> Sheet:
    """Table 3: what the papers report, and what the Runs themselves say."""
    header = [table.labels.get(c, c) for c in table.columns]
    paper = [Row(r["method"], [_build_detail_cell(r[c]) for c in table.columns]) for _, r in stored.iterrows()]
    here = [Row(run.title, [_build_detail_cell(getattr(run, c)) for c in table.columns]) for run in table.runs]
    return Sheet(table, "Method", header, [("", _build_unranked_groups(paper, here))])


def _select_table(stored: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The stored numbers, or none of them if they are of another table than this one."""
    return stored if set(columns) <= set(stored.columns) else pd.DataFrame(columns=list(dict.fromkeys(["value", *columns])))


def _build_unranked_groups(paper: list[Row], our_rows: list[Row]) -> list[Group]:
    """Rows of one data set each, or of facts: nothing in a column of them is in competition."""
    titled = (Group("As printed in the paper", paper, "none"), Group("Run here", our_rows, "none"))
    return [g for g in titled if g.rows]


def _build_printed_cell(text: str, measured: Measured | None = None) -> Cell:
    return Cell(f"{float(text):.2f}", float(text), measure=lambda: measured) if text else Cell()


def _build_detail_cell(value: Any) -> Cell:
    return Cell({"x": "✓", "": "", "True": "✓", "False": ""}.get(str(value), str(value)))
