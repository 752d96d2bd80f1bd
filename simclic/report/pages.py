"""One folder of exhibits: an index with the scorecard, a page per exhibit and per run, the claims and the choices."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from simclic import files
from simclic.data import PAPER
from simclic.data import title as data_title
from simclic.experiment import Exhibit, Figure, Suite, Table
from simclic.report import claims, formats
from simclic.report.cell_keys import ASSUMED_SIZES, measure_cells, read_printed_cells
from simclic.report.choices import choices
from simclic.report.figures import BARS_NOTE, compute_points, draw_figure, format_line_label
from simclic.report.findings import findings
from simclic.report.gaps import failed, reasons
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
from simclic.report.run_pages import write_run_pages as run_pages
from simclic.report.site import Site, check_source
from simclic.report.tables import build_sheet
from simclic.report.time_spent import summarise_time_spent

NOTHING: Mapping[str, str] = MappingProxyType({})
HONEST_NOTE = (
    "Marked: the best entry of each column, and every one that is not distinguishable from it. Printed numbers are compared as "
    "two proportions of the images they were measured on, ours in pairs, image by image and seed by seed; p < .05 counts, and "
    f"{ONE_SEED}. Of SimCLIC's printed rows {ASSUMED_SIZES}."
)


@dataclass
class ExhibitPage:
    """An exhibit as it stands on its page."""

    exhibit: Exhibit
    told: list[str]
    there: int  # results, of those asked
    asked: int
    files: list[str] = field(default_factory=list)
    table: str = ""  # HTML, escaped
    honest: str = ""
    beside: list[PrintedVsOurs] = field(default_factory=list)
    points: list[dict[Hashable, Any]] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many printed numbers have which verdict."""
        return count_verdicts(self.beside)


def format_headline(suites: Sequence[Suite]) -> str:
    """What a folder of exhibits is called."""
    return suites[0].title if len(suites) == 1 else "SimCLIC: the paper's tables and figures"


def write_pages(
    suites: Sequence[Suite], results: Results, folder: Path, source: Path, others: Mapping[str, str] = NOTHING
) -> tuple[Path, list[str]]:
    """Write everything of these suites into one folder. Returns index.html, and what is wrong with result files.

    others: the pages of other folders and what they are called, to be linked.
    Raises InputError if the source tree with baselines/ and reports/ is not there.
    """
    check_source(source)
    order = sorted(((e, s) for s in suites for e in s.exhibits), key=lambda pair: _sort_key(pair[0]))
    title = format_headline(suites)
    site = Site(title, [exhibit for exhibit, _ in order], folder, source)
    shown = [_write_exhibit(exhibit, f"simclic run {suite.path}", results, site) for exhibit, suite in order]
    for item in shown:
        site.write_page(
            f"{item.exhibit.name}.html",
            "exhibit.html.j2",
            title=_format_title(item.exhibit),
            item=item,
            rule=VERDICT_RULE,
            note=HONEST_NOTE,
        )
    tables = [s.exhibit for s in shown if s.table]
    files.write_bytes(folder / "tables.tex", _document(site, tables).encode())

    jobs = [job for suite in suites for job in suite.jobs]
    asked = results.frame_of(jobs)
    problems, good = list(dict.fromkeys(asked.loc[asked["problem"] != "", "problem"])), asked[asked["problem"] == ""]
    judged = claims.judged(read_printed_cells(source / "baselines"), measure_cells([e for e, _ in order], results))
    settings = {row.claim.name: describe_departures([e for e, _ in order if e.paper in row.claim.exhibits]) for row in judged}
    notes = {"one_seed": ONE_SEED, "assumed": ASSUMED_SIZES}
    site.write_page("claims.html", "claims.html.j2", title="The paper's claims", claims=judged, settings=settings, **notes)
    site.write_page("choices.html", "choices.html.j2", title="Where the paper is silent or contradicts itself",
               choices=choices(suites, results))  # fmt: skip
    encoders = run_pages(good, [e for e, _ in order], results, site)
    titles = list(dict.fromkeys(job.protocol.title for job in jobs if job.protocol))
    site.write_page("encoders.html", "encoders.html.j2", title="Encoders", encoders=encoders, protocols=titles,
               spent=summarise_time_spent(suites, results))  # fmt: skip
    learned = [p for e, _ in order if isinstance(e, Table) and e.columns == "dataset" for p in findings(e, results)]
    values = {"exhibits": shown, "verdicts": VERDICTS, "claims": judged, "settings": settings, "findings": learned}
    more = {"problems": problems, "provenance": summarise_provenance(good), "others": others}
    path = site.write_page("index.html", "index.html.j2", title=title, **values, **more)
    return path, problems


def describe_departures(exhibits: Sequence[Exhibit]) -> str:
    """In what the training of these exhibits' Runs is not the paper's; nothing if it is."""
    departures: dict[str, None] = {}
    for exhibit in exhibits:
        axes = (exhibit.x, exhibit.lines) if isinstance(exhibit, Figure) else ("perturbation", getattr(exhibit, "columns", ""))
        names = [name for name in STATED if name not in (*axes, "perturbation")]
        for run in (run for run in exhibit.runs if run.epochs):
            if run.dataset not in PAPER:
                departures.setdefault(data_title(run.dataset))
            departures |= dict.fromkeys(list_departures(run, names))
    return "; ".join(departures)


def summarise_provenance(frame: pd.DataFrame) -> dict[str, list[str]]:
    """What computed these results: devices, threads, commits, data, versions."""
    versions = sorted({f"{k} {v}" for row in frame["versions"] for k, v in row.items()})
    values = {k: sorted({str(v) for v in frame[k]}) for k in ("device", "threads", "commit", "data")}
    return {"results": [f"{len(frame):,}"], **values, "versions": versions}


def _format_title(exhibit: Exhibit) -> str:
    return f"{exhibit.title}. {exhibit.caption}"


def _sort_key(exhibit: Exhibit) -> tuple[bool, bool, str]:
    """Where an exhibit stands: the paper's tables, its figures, then one's own in the order of their declaration."""
    return (not exhibit.paper, bool(exhibit.paper) and isinstance(exhibit, Figure), exhibit.paper)


def _document(site: Site, tables: Sequence[Exhibit]) -> str:
    return str(site.text.get_template("document.tex.j2").render(title=site.title, tables=list(tables)))


def _write_exhibit(exhibit: Exhibit, command: str, results: Results, site: Site) -> ExhibitPage:
    """Write the files of an exhibit; what stands on its page."""
    failures = failed(exhibit, results.runs)
    notes = reasons(exhibit, results, failures, command)
    item = ExhibitPage(exhibit, notes, len(results.rows_of(exhibit.jobs)), len(exhibit.jobs))
    if isinstance(exhibit, Figure):
        drawn = compute_points(exhibit, results)
        item.exhibit = replace(exhibit, notes=(*exhibit.notes, BARS_NOTE))
        item.files = draw_figure(exhibit, drawn, site.folder, site.source / "reports" / "simclic.mplstyle")
        item.points = [{**row, "line": format_line_label(exhibit, row["line"])} for row in drawn.to_dict("records")]
        return item
    assert isinstance(exhibit, Table)
    sheet = build_sheet(exhibit, results, site.source / "baselines", failures)
    item.told = [*notes, *sheet.remarks]
    item.table, item.files = formats.write_sheet(sheet, exhibit.name, item.told, site.folder, site.html, site.text)
    if any(group.rivals != "none" for _, groups in sheet.blocks for group in groups):
        honest = sheet.with_supported_marks()
        item.honest, more = formats.write_sheet(
            honest, f"{exhibit.name}-honest", [HONEST_NOTE, *item.told], site.folder, site.html, site.text
        )
        item.files += more
    item.beside = compare_with_printed(exhibit, results, site.source / "baselines", failures)
    if item.beside:
        name = f"{exhibit.name}-beside.csv"
        files.write_bytes(site.folder / name, formats.comparison_to_csv(item.beside).encode())
        item.files.append(name)
    return item
