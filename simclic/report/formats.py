"""Pages of HTML that share a menu, and tables as HTML, Markdown, LaTeX and CSV, each escaped in its own way."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from simclic import files
from simclic.errors import InputError
from simclic.experiment import Exhibit
from simclic.report.cell_keys import SOURCE as SOURCE
from simclic.report.escape import escape_csv, escape_markdown, escape_tex
from simclic.report.printed_vs_ours import PrintedVsOurs
from simclic.report.sheet import Sheet

COMPARISON_HEADER = (
    "protocol", "row", "column", "stored", "here", "difference", "tolerance", "verdict", "why", "images", "runs"
)  # fmt: skip


class Site:
    """Writes the pages and tables of one folder. Raises InputError if the source tree with baselines/ and reports/ is missing."""

    def __init__(self, title: str, exhibits: Sequence[Exhibit], folder: Path, recorded: str = "") -> None:
        """recorded: a line below the title of every page, for results that are a record."""
        check_source()
        self.title, self.folder, self.baselines, self.recorded = title, folder, SOURCE / "baselines", recorded
        loader = FileSystemLoader(SOURCE / "reports" / "templates")
        rules: dict[str, Any] = {"loader": loader, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
        self.html, self.text = Environment(autoescape=True, **rules), Environment(**rules)
        self.text.filters |= {"tex": escape_tex, "md": escape_markdown}
        menu = [("index.html", "Overview"), *((f"{e.name}.html", e.title) for e in exhibits)]
        self.menu = [*menu, ("claims.html", "Claims"), ("choices.html", "Choices"), ("encoders.html", "Encoders")]

    def write_page(self, name: str, template: str, **values: Any) -> Path:
        """Write one page and return its path. name: its path in the folder."""
        site = {"site": self.title, "menu": self.menu, "current": name, "up": "../" * name.count("/")}
        site["recorded"] = self.recorded
        page = self.html.get_template(template).render(site | values).encode(errors="backslashreplace")
        return self.write_file(name, page)

    def write_sheet(self, sheet: Sheet, stem: str, notes: Sequence[str]) -> list[str]:
        """Write stem.md, .tex and .csv and return their names. notes: printed below the table."""
        values = {"sheet": sheet, "missing": tuple(notes)}
        for kind in ("md", "tex"):
            self.write_file(f"{stem}.{kind}", self.text.get_template(f"table.{kind}.j2").render(values).encode())
        self.write_file(f"{stem}.csv", sheet_to_csv(sheet).encode())
        return [f"{stem}.{kind}" for kind in ("md", "tex", "csv")]

    def render_sheet(self, sheet: Sheet, label: str = "") -> Markup:
        """Return the sheet as HTML. label: of its region, which a page has once; by default the exhibit's title."""
        return Markup(self.html.get_template("table.html.j2").render(sheet=sheet, label=label))  # escaped inside

    def write_file(self, name: str, content: bytes) -> Path:
        """Write one file into the folder and return its path."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        files.write_bytes(path, content)
        return path


def check_source() -> None:
    """Raise InputError if the source tree with baselines/ and reports/ is missing."""
    if not (SOURCE / "baselines").is_dir() or not (SOURCE / "reports" / "templates").is_dir():
        raise InputError(
            f"{SOURCE}: baselines/ and reports/ are missing; install simclic from its source tree with pip install -e"
        )


def sheet_to_csv(sheet: Sheet) -> str:
    """Return the sheet as CSV: protocol, source, name, then a column per value. Nothing in it is a formula to a spreadsheet."""
    rows = [
        [block, group.title, row.label, *(c.text for c in row.cells)]
        for block, groups in sheet.blocks for group in groups for row in group.rows
    ]  # fmt: skip
    return _rows_to_csv([["protocol", "source", sheet.corner.lower() or "method", *sheet.header], *rows])


def comparison_to_csv(comparisons: Sequence[PrintedVsOurs]) -> str:
    """Return a row for every printed number and what was run for it."""
    rows = [
        (
            c.protocol,
            c.row,
            c.column,
            c.stored,
            c.ours,
            c.difference,
            c.tolerance,
            c.verdict,
            c.why,
            str(c.images),
            " ".join(c.runs),
        )
        for c in comparisons
    ]
    return _rows_to_csv([COMPARISON_HEADER, *rows])


def _rows_to_csv(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([escape_csv(value) for value in row] for row in rows)
    return buffer.getvalue()
