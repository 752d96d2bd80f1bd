"""A table as HTML, Markdown, LaTeX and CSV, each escaped in its own way."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from simclic import files
from simclic.report.escape import escape_csv, escape_markdown, escape_tex
from simclic.report.printed_vs_ours import PrintedVsOurs
from simclic.report.tables import Sheet

COMPARISON_COLUMNS = (
    "protocol",
    "row",
    "column",
    "stored",
    "here",
    "difference",
    "tolerance",
    "verdict",
    "why",
    "images",
    "runs",
)


def create_environments(templates: Path) -> tuple[Environment, Environment]:
    """Two jinja2 environments: one for HTML, where everything is escaped, one for text with an escape for each format."""
    loader, rules = FileSystemLoader(templates), {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    html, text = Environment(autoescape=True, loader=loader, **rules), Environment(loader=loader, **rules)  # type: ignore[arg-type]
    text.filters |= {"tex": escape_tex, "md": escape_markdown}
    return html, text


def write_sheet(
    sheet: Sheet, stem: str, notes: Sequence[str], folder: Path, html: Environment, text: Environment
) -> tuple[Markup, list[str]]:
    """Write stem.md, .tex and .csv. told: printed below the table. Returns it as HTML, and the files' names."""
    written = {
        "md": text.get_template("table.md.j2").render(sheet=sheet, missing=tuple(notes)),
        "tex": text.get_template("table.tex.j2").render(sheet=sheet, missing=tuple(notes)),
        "csv": sheet_to_csv(sheet),
    }
    for kind, content in written.items():
        files.write_bytes(folder / f"{stem}.{kind}", content.encode())
    label = "" if stem == sheet.exhibit.name else stem  # of its region, which a page has once
    body = Markup(html.get_template("table.html.j2").render(sheet=sheet, label=label))  # escaped inside
    return body, [f"{stem}.{kind}" for kind in written]


def sheet_to_csv(sheet: Sheet) -> str:
    """The sheet as CSV: protocol, source, name, then a column per value. Nothing in it is a formula to a spreadsheet."""
    rows = [
        [block, group.title, row.label, *(c.text for c in row.cells)]
        for block, groups in sheet.blocks for group in groups for row in group.rows
    ]  # fmt: skip
    return _rows_to_csv([["protocol", "source", sheet.corner.lower() or "method", *sheet.header], *rows])


def comparison_to_csv(cells: Sequence[PrintedVsOurs]) -> str:
    """Every printed number beside what was run for it, a row each."""
    values = [[str(" ".join(c.runs) if name == "runs" else getattr(c, name)) for name in COMPARISON_COLUMNS] for c in cells]
    return _rows_to_csv([list(COMPARISON_COLUMNS), *values])


def _rows_to_csv(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([escape_csv(value) for value in row] for row in rows)
    return buffer.getvalue()
