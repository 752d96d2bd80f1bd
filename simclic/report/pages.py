"""One folder of exhibits: an index with the scorecard, a page per exhibit and per run, the claims and the choices."""

import shlex
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from simclic.data import PAPER
from simclic.data import title as data_title
from simclic.experiment import Exhibit, Figure, Suite, Table
from simclic.files import place_options
from simclic.report import claims
from simclic.report.cell_keys import ASSUMED_SIZES, measure_cells, read_printed_cells
from simclic.report.choices import list_choices
from simclic.report.figures import BARS_NOTE, compute_points, draw_figure, format_line_label
from simclic.report.findings import list_all_findings
from simclic.report.formats import Site, comparison_to_csv
from simclic.report.gaps import find_failures, list_notes
from simclic.report.noise import ONE_SEED
from simclic.report.printed_vs_ours import (
    STATED,
    VERDICT_RULE,
    VERDICTS,
    PrintedVsOurs,
    compare_with_printed,
    count_verdicts,
    list_departures,
)
from simclic.report.results import Results
from simclic.report.run_pages import title_result, write_run_pages
from simclic.report.search import list_search_notes
from simclic.report.tables import Failures, build_sheet
from simclic.report.three_numbers import list_three_numbers
from simclic.report.time_spent import summarise_time_spent
from simclic.store.record import read_record

SUPPORTED_NOTE = (
    "Marked: the best entry of each column and every entry that is not distinguishable from it (p < .05). Printed numbers are "
    "compared as two proportions of the images they were measured on, ours in pairs, image by image and seed by seed; "
    f"{ONE_SEED}. Of SimCLIC's printed rows {ASSUMED_SIZES}."
)


@dataclass
class ExhibitPage:
    """What the page of an exhibit shows. searched: what a search chose and cost. available: how many of the requested results
    there are. table, supported: HTML."""

    exhibit: Exhibit
    reasons: list[str]
    available: int = 0
    requested: int = 0
    searched: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    table: str = ""
    supported: str = ""
    comparisons: list[PrintedVsOurs] = field(default_factory=list)
    points: list[dict[Hashable, Any]] = field(default_factory=list)
    printed: str = ""  # the page of the paper's own rows, where none of their columns is ours

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of printed numbers by verdict."""
        return count_verdicts(self.comparisons)


def format_headline(suites: Sequence[Suite]) -> str:
    """Return the title of a folder of exhibits."""
    return suites[0].title if len(suites) == 1 else "SimCLIC: the paper's tables and figures"


def write_pages(suites: Sequence[Suite], results: Results, folder: Path, others: Mapping[str, str]) -> tuple[Path, list[str]]:
    """Write everything of these suites into one folder. Return index.html, and what is wrong with result files.

    others: the pages of other folders and their titles, to be linked.
    """
    order = sorted(((e, s) for s in suites for e in s.exhibits), key=lambda pair: _sort_key(pair[0]))
    exhibits = [exhibit for exhibit, _ in order]
    site = Site(format_headline(suites), exhibits, folder, _describe_record(results.runs))
    items = [_write_exhibit(exhibit, _fill_command(suite, results.runs), results, site) for exhibit, suite in order]
    tables = [item.exhibit for item in items if item.table]
    document = site.text.get_template("document.tex.j2").render(title=site.title, tables=tables)
    site.write_file("tables.tex", document.encode())

    jobs = [job for suite in suites for job in suite.jobs]
    frame = results.frame_of(jobs)
    problems, good = list(dict.fromkeys(frame.loc[frame["problem"] != "", "problem"])), frame[frame["problem"] == ""]
    judged = claims.judge_claims(read_printed_cells(site.baselines), measure_cells(exhibits, results))
    settings = {row.claim.name: describe_departures([e for e in exhibits if e.paper in row.claim.exhibits]) for row in judged}
    site.write_page(
        "claims.html", "claims.html.j2", title="The paper's claims", claims=judged, settings=settings, one_seed=ONE_SEED,
        assumed=ASSUMED_SIZES,
    )  # fmt: skip
    site.write_page(
        "choices.html", "choices.html.j2", title="Where the paper is silent or contradicts itself",
        choices=list_choices(suites, results),
    )  # fmt: skip
    site.write_page(
        "encoders.html", "encoders.html.j2", title="Encoders", encoders=write_run_pages(good, exhibits, results, site),
        protocols=list(dict.fromkeys(title_result(job.protocol.title, job.protocol.on) for job in jobs if job.protocol)),
        spent=summarise_time_spent(suites, results),
        systems=list_three_numbers(results.rows_of(jobs), read_printed_cells(site.baselines)),
    )  # fmt: skip
    path = site.write_page(
        "index.html", "index.html.j2", title=site.title, exhibits=items, verdicts=VERDICTS, claims=judged, settings=settings,
        findings=list_all_findings([e for e in exhibits if isinstance(e, Table) and e.columns == "dataset"], results),
        problems=problems, provenance=summarise_provenance(good), others=others,
    )  # fmt: skip
    return path, problems


def _describe_record(runs: Path) -> str:
    """Return where recorded results were measured; empty if `runs` is no record."""
    if (record := read_record(runs)) is None:
        return ""
    device, commit = (", ".join(record[name]) for name in ("device", "commit"))
    return f"Recorded results: measured on {device} at commit {commit}, not here."


def _fill_command(suite: Suite, runs: Path) -> str:
    """Return the command that computes what is missing, into the same store; a record is not computed into."""
    return shlex.join(["simclic", "run", suite.path, *([] if read_record(runs) else place_options(runs))])


def describe_departures(exhibits: Sequence[Exhibit]) -> str:
    """Return how the training of these exhibits' Runs differs from the paper's; empty if it does not."""
    departures: dict[str, None] = {}
    for exhibit in exhibits:
        axes = (exhibit.x, exhibit.lines) if isinstance(exhibit, Figure) else ("perturbation", getattr(exhibit, "columns", ""))
        names = [name for name in STATED if name not in (*axes, "perturbation")]
        elsewhere = (job.run.dataset for job in exhibit.jobs if job.run.epochs and job.dataset != job.run.dataset)
        departures |= {f"pre-trained on {data_title(name)}": None for name in elsewhere}
        for run in (run for run in exhibit.runs if run.epochs):
            if run.dataset not in PAPER and f"pre-trained on {data_title(run.dataset)}" not in departures:
                departures.setdefault(data_title(run.dataset))
            departures |= dict.fromkeys(list_departures(run, names))
    return "; ".join(departures)


def summarise_provenance(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return what computed these results: devices, threads, commits, data, versions."""
    versions = sorted({f"{k} {v}" for row in frame["versions"] for k, v in row.items()})
    values = {k: sorted({str(v) for v in frame[k]}) for k in ("device", "threads", "commit", "data")}
    return {"results": [f"{len(frame):,}"], **values, "versions": versions}


def _sort_key(exhibit: Exhibit) -> tuple[bool, bool, str]:
    """Sort the paper's tables before its figures before one's own, which stay in the order of their declaration."""
    return (not exhibit.paper, bool(exhibit.paper) and isinstance(exhibit, Figure), exhibit.paper)


def _write_exhibit(exhibit: Exhibit, command: str, results: Results, site: Site) -> ExhibitPage:
    """Write the files and the page of an exhibit. command: what would fill its empty cells."""
    failures = find_failures(exhibit, results.runs)
    item = ExhibitPage(
        exhibit,
        list_notes(exhibit, results, failures, command),
        len(results.rows_of(exhibit.jobs)),
        len(exhibit.jobs),
        list(list_search_notes(exhibit, results)),
    )
    if isinstance(exhibit, Figure):
        points = compute_points(exhibit, results)
        item.exhibit = replace(exhibit, notes=(*exhibit.notes, BARS_NOTE))
        item.files = draw_figure(exhibit, points, site.folder)
        item.points = [{**row, "line": format_line_label(exhibit, row["line"])} for row in points.to_dict("records")]
    elif isinstance(exhibit, Table):
        _write_table(item, exhibit, results, failures, site)
    _write_exhibit_page(item, f"{exhibit.title}. {exhibit.caption}", exhibit.name, site)
    return item


def _write_table(item: ExhibitPage, table: Table, results: Results, failures: Failures, site: Site) -> None:
    """Write a table, the same with supported marks, the printed numbers beside ours, and the paper's rows if they are apart."""
    sheet = build_sheet(table, results, site.baselines, failures)
    item.reasons += sheet.remarks
    item.table, item.files = site.render_sheet(sheet), site.write_sheet(sheet, table.name, [*item.searched, *item.reasons])
    if any(group.rivals != "none" for _, groups in sheet.blocks for group in groups):
        supported, stem = sheet.with_supported_marks(), f"{table.name}-honest"
        item.supported = site.render_sheet(supported, stem)
        item.files += site.write_sheet(supported, stem, [SUPPORTED_NOTE, *item.searched, *item.reasons])
    item.comparisons = compare_with_printed(table, results, site.baselines, failures)
    if item.comparisons:
        item.files.append(f"{table.name}-beside.csv")
        site.write_file(item.files[-1], comparison_to_csv(item.comparisons).encode())
    if sheet.apart:
        item.printed = f"{table.name}-printed"
        printed = build_sheet(replace(table, runs=()), results, site.baselines)
        _write_exhibit_page(
            ExhibitPage(table, [], table=site.render_sheet(printed)), f"{table.title} as the paper prints it", item.printed, site
        )


def _write_exhibit_page(item: ExhibitPage, title: str, stem: str, site: Site) -> None:
    site.write_page(f"{stem}.html", "exhibit.html.j2", title=title, item=item, rule=VERDICT_RULE, note=SUPPORTED_NOTE)
