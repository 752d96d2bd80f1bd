"""Build a Sheet from a Table and results: printed numbers, and below them ours."""

import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from simclic.data import FACTS, title
from simclic.experiment import Job, Table
from simclic.experiment.baselines import IMPORTED, METHODS
from simclic.report.added_methods import AddedMethod, read_added_methods
from simclic.report.cell_keys import Cells, Key, printed_row_of, read_printed_cells
from simclic.report.noise import Measured, compute_difference, format_p
from simclic.report.results import Results, keep_comparable
from simclic.report.search import choose_value
from simclic.report.sheet import DASH, Cell, Group, Row, Sheet, mark_best
from simclic.report.stored_numbers import StoredNumber, StoredNumbers, column_of, read_stored_numbers, row_of
from simclic.store.run_files import DIVERGED
from simclic.text import format_signed

Failures = Mapping[str, str]
NO_FAILURES: Failures = MappingProxyType({})


def build_sheet(table: Table, results: Results, baselines: Path, failures: Failures = NO_FAILURES) -> Sheet:
    """Return printed numbers and below them our results. failures: name of a Run -> why it failed."""
    path = baselines / f"{table.paper or table.beside}.csv"
    printed = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame()
    if isinstance(table.columns, tuple):
        return _build_detail_sheet(table, _select_table(printed, ["method", *table.columns]))
    if not (table.paper or table.beside) and (table.columns == "dataset" or table.rows == "label"):
        return _build_method_sheet(table, results, read_stored_numbers(table, baselines), failures)
    if table.columns == "dataset":
        return _build_dataset_sheet(table, results, _select_table(printed, ["protocol", "method"]), failures, baselines)
    return _build_ablation_sheet(
        table, results, _select_table(printed, [*printed.columns[:1], "error"]), failures, read_printed_cells(baselines)
    )


def _build_method_sheet(table: Table, results: Results, stored: StoredNumbers, failures: Failures) -> Sheet:
    """Build a table of one's own with a row per method: per stage the stored rows, ours under each protocol, how ours compare."""
    runs = [job.evaluated for job in table.jobs]
    values = dict.fromkeys(getattr(run, str(table.columns)) for run in runs)
    header = list(dict.fromkeys((getattr(run, str(table.columns)), column_of(table, run)) for run in runs))
    blocks = []
    for stage in dict.fromkeys(protocol.stage for protocol in table.protocols):
        stored_rows = [
            Row(row, [_build_stored_cell(stored.find(stage, row, text)) for _, text in header])
            for row in stored.rows.get(stage, ())
        ]
        mark_best(stored_rows)
        jobs = [job for job in table.jobs if job.stage == stage]
        ours = _build_our_groups(jobs, [*values], results, failures, table)
        less = [
            Group(
                group.title.replace("Run here", "Run here less stored"),
                _build_difference_rows(group.rows, stored_rows, row_of),
                "none",
            )
            for group in ours
        ]
        groups = [Group("As stored", stored_rows), *ours, *less]
        blocks.append((_build_heading(table, stage), [group for group in groups if group.rows]))
    return Sheet(table, "", [text for _, text in header], blocks, stored.note)


def _build_stored_cell(number: StoredNumber | None) -> Cell:
    return _build_printed_cell(number.text, number.measured) if number else Cell()


def _build_heading(table: Table, stage: str) -> str:
    titles = [protocol.title for protocol in table.plain_protocols if protocol.stage == stage]
    return titles[0] if len(titles) == 1 else titles[0].partition(", ")[0]


def _build_cell(results: Results, jobs: Sequence[Job], failures: Failures, search: str) -> Cell:
    """Return the mean error over seeds, with the standard deviation of several.

    search: see Exhibit. The best of an unfinished search says so, and is no value that could be marked or ranked.
    """
    choice = choose_value(results, jobs, search)
    rows = keep_comparable(results.rows_of(choice.jobs))
    if not rows:
        return Cell("diverged" if any(DIVERGED in failures.get(job.run.name, "") for job in jobs) else DASH)
    errors = [row["error"] for row in rows]
    spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    names = tuple(str(row["name"]) for row in rows)
    mean = statistics.fmean(errors)
    if not choice.is_final:
        return Cell(f"{mean:.2f}{spread} ({choice.done} of {len(choice.values)})", runs=names)
    return Cell(f"{mean:.2f}{spread}", mean, runs=names, measure=lambda: results.measure_jobs(choice.jobs))


def _build_dataset_sheet(table: Table, results: Results, stored: pd.DataFrame, failures: Failures, baselines: Path) -> Sheet:
    """Build Table 2: a block per stage with the paper's rows, added methods, ours under each protocol, and how ours compare.

    Columns: our data sets that the paper does not print, then the paper's. If none is common, only ours are shown.
    """
    datasets = table.datasets
    if table.beside:  # SimCLIC's printed rows were pre-trained on each data set itself
        stored = stored[stored["method"].isin(METHODS.values())]
    ours = [name for name in datasets if name not in FACTS or title(name) not in stored]
    theirs = [column for column in stored.columns if column not in ("protocol", "method", "value")]
    apart = bool(theirs and datasets and len(ours) == len(datasets))
    names = ", ".join(map(title, datasets))
    remarks = []
    if apart:
        theirs, remarks = [], [f"The paper prints no number for {names}. Its own rows are in baselines/table2.csv."]
    elif theirs and datasets:
        remarks = [f"Other dashes: the paper prints no number there, or this exhibit does not run it. It runs {names}."]
    methods = read_added_methods(baselines / "methods", theirs, {*IMPORTED.values(), *stored["method"]}) if theirs else []
    known, to_name = read_printed_cells(baselines), {title(name): name for name in FACTS}
    blocks = []
    for stage in dict.fromkeys(protocol.stage for protocol in table.protocols):
        paper_rows = [
            Row(r["method"], [Cell()] * len(ours) + [
                _build_printed_cell(r[column], known.get(Key("table2", stage, column, r["method"]))) for column in theirs
            ])
            for r in (stored[stored["protocol"] == stage].to_dict("records") if theirs else ())
        ]  # fmt: skip
        added_rows = [_build_added_row(method, stage, len(ours), theirs) for method in methods if stage in method.rows]
        mark_best([*paper_rows, *added_rows])  # added rows as if the paper had them
        mark_best(paper_rows)  # the paper's as the paper has them
        jobs = [job for job in table.jobs if job.stage == stage]
        columns = ours + [to_name.get(text, text) for text in theirs]
        our_groups = _build_our_groups(jobs, columns, results, failures, table)
        on_test = {run.split for run in table.runs} == {"ericsson"}
        to_printed = row_of if table.beside else printed_row_of
        comparisons = _build_comparison_groups(our_groups, paper_rows, added_rows, on_test, to_printed)
        groups = [Group("As printed in the paper", paper_rows), Group("Added", added_rows, "before"), *our_groups, *comparisons]
        blocks.append((_build_heading(table, stage), [group for group in groups if group.rows]))
    header = [title(name) for name in ours] + theirs
    return Sheet(table, "", header, blocks, (*remarks, *(f"Added: {method.note}." for method in methods)), apart)


def _build_our_groups(
    jobs: Sequence[Job], columns: Sequence[Hashable], results: Results, failures: Failures, table: Table
) -> list[Group]:
    """Build a group per protocol of one stage, with a row per method and a cell for each of these values of its columns."""
    groups = []
    protocols = dict.fromkeys(job.protocol.plain for job in jobs if job.protocol)
    for protocol in protocols:
        cells: dict[str, dict[Hashable, list[Job]]] = {}
        for job in jobs:
            if job.protocol and job.protocol.plain == protocol:
                cells.setdefault(job.run.label, {}).setdefault(getattr(job.evaluated, str(table.columns)), []).append(job)
        rows = [
            Row(label, [_build_cell(results, row.get(name, []), failures, table.search) for name in columns])
            for label, row in cells.items()
        ]
        mark_best(rows)
        variant = protocol.title.partition(", ")[2] if len(protocols) > 1 else ""  # "as published"
        groups.append(Group(f"Run here{variant and ', '}{variant}", rows))
    return groups


def _build_comparison_groups(
    ours: Sequence[Group], paper: Sequence[Row], added: Sequence[Row], on_test: bool, to_printed: Callable[[str], str]
) -> list[Group]:
    """Build the ranks of rows that the paper does not print, and our numbers minus the printed ones, for each group of ours.

    to_printed: row label of ours -> of the printed row that it meets. on_test: whether ours were scored on the same test images
    as the printed rows, which ranks need.
    """
    groups, labels = [], {row.label for row in paper}
    for i, group in enumerate(ours):
        unprinted = [*(() if i else added), *(row for row in group.rows if on_test and row.label not in labels)]
        variant = group.title.removeprefix("Run here")
        groups += [
            Group(
                f"Rank among the printed rows, p against the best of them{variant}", _build_rank_rows(unprinted, paper), "none"
            ),
            Group(f"Run here less printed{variant}", _build_difference_rows(group.rows, paper, to_printed), "none"),
        ]
    return groups


def _build_added_row(method: AddedMethod, stage: str, before: int, columns: Sequence[str]) -> Row:
    texts = {name: method.rows[stage].get(name, "") for name in columns}
    cells = [_build_printed_cell(text, method.to_measured(text, name)) for name, text in texts.items()]
    return Row(method.name, [Cell()] * before + cells)


def _build_rank_rows(rows: Sequence[Row], paper: Sequence[Row]) -> list[Row]:
    """Rank rows that the paper does not print among those that it does; rows without a number are left out."""
    printed = list(zip(*(row.cells for row in paper), strict=True))
    ranks = {row.label: list(map(format_rank, row.cells, printed)) for row in rows}
    return [Row(label, [Cell(text or DASH) for text in texts]) for label, texts in ranks.items() if any(texts)]


def format_rank(cell: Cell, others: Sequence[Cell]) -> str:
    """Return the rank of an error among others (ties share the better rank) and p against the best: "3 of 17, p .04".

    p is two-sided. It is left out where noise is unknown, and is approximate for mean per class and mAP.
    """
    known = sorted((other for other in others if math.isfinite(other.value)), key=lambda other: other.value)
    if not known or not math.isfinite(cell.value):
        return ""
    rank = 1 + sum(round(other.value, 2) < round(cell.value, 2) for other in known)
    mine, best = cell.measure(), known[0].measure()
    less = compute_difference(mine, best) if mine and best else None
    return f"{rank} of {len(known) + 1}" + (f", p {format_p(less.p)}" if less else "")


def _build_difference_rows(our_rows: Sequence[Row], paper: Sequence[Row], to_printed: Callable[[str], str]) -> list[Row]:
    """Return ours minus printed, where both are numbers. to_printed: row label of ours -> of the printed row that it meets."""
    printed, rows = {row.label: row for row in paper}, []
    for row in our_rows:
        theirs = printed.get(to_printed(row.label))
        points = [a.value - round(b.value, 2) for a, b in zip(row.cells, theirs.cells, strict=True)] if theirs else []
        if any(map(math.isfinite, points)):
            rows.append(Row(row.label, [Cell(format_signed(v)) if math.isfinite(v) else Cell() for v in points]))
    return rows


def _build_ablation_sheet(table: Table, results: Results, stored: pd.DataFrame, failures: Failures, known: Cells) -> Sheet:
    """Build Tables 4-6: one row from the paper, which has linear evaluation only, and one per data set of ours."""
    assert isinstance(table.columns, str)
    values: list[Hashable] = list(dict.fromkeys(getattr(run, table.columns) for run in table.runs))
    header = [table.labels.get(v, str(v)) for v in values]
    texts = dict(zip(stored.iloc[:, 0], stored["error"], strict=True))  # label -> error
    cells = [
        _build_printed_cell(texts.get(label, ""), known.get(Key(table.name, "linear", "CIFAR10", label))) for label in header
    ]
    paper = [Row("CIFAR10", cells)] if texts else []
    blocks = []
    for protocol in table.plain_protocols:
        our_rows = []
        for dataset in table.datasets:
            jobs = [job for job in table.jobs if job.protocol and job.protocol.plain == protocol and job.dataset == dataset]
            by_value = [[job for job in jobs if getattr(job.run, str(table.columns)) == v] for v in values]
            row = [_build_cell(results, jobs_of_cell, failures, table.search) for jobs_of_cell in by_value]
            our_rows.append(Row(title(dataset), row))
        blocks.append((protocol.title, _build_unranked_groups(paper if protocol.stage == "linear" else [], our_rows)))
    return Sheet(table, "Error rate (%)", header, blocks)


def _build_detail_sheet(table: Table, stored: pd.DataFrame) -> Sheet:
    """Build Table 3: what the papers report, and the fields of our Runs."""
    header = [table.labels.get(column, column) for column in table.columns]
    paper = [Row(r["method"], [_build_detail_cell(r[c]) for c in table.columns]) for _, r in stored.iterrows()]
    our_rows = [Row(run.title, [_build_detail_cell(getattr(run, c)) for c in table.columns]) for run in table.runs]
    return Sheet(table, "Method", header, [("", _build_unranked_groups(paper, our_rows))])


def _select_table(stored: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the stored numbers, or none if their columns are those of another table."""
    return stored if set(columns) <= set(stored.columns) else pd.DataFrame(columns=list(dict.fromkeys(["value", *columns])))


def _build_unranked_groups(paper: list[Row], our_rows: list[Row]) -> list[Group]:
    """Return groups whose columns are not compared: rows of different data sets, or of facts."""
    titled = (Group("As printed in the paper", paper, "none"), Group("Run here", our_rows, "none"))
    return [g for g in titled if g.rows]


def _build_printed_cell(text: str, measured: Measured | None = None) -> Cell:
    return Cell(f"{float(text):.2f}", float(text), measure=lambda: measured) if text else Cell()


def _build_detail_cell(value: Any) -> Cell:
    return Cell({"x": "✓", "": "", "True": "✓", "False": ""}.get(str(value), str(value)))
