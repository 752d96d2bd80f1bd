"""One folder of exhibits: each table as HTML, Markdown, LaTeX and CSV, each figure, and the page that shows them all."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from simclic import files, store
from simclic.report.choices import choices
from simclic.report.figures import BARS, draw
from simclic.report.findings import findings
from simclic.report.runs import pages as run_pages
from simclic.report.tables import Sheet, fallen, gaps, mixed, of_jobs, sheet, unsolved
from simclic.spec import Figure, InputError, Run, Suite, Table

TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {"–": "--", "±": r"$\pm$", "✓": r"\checkmark{}", "τ": r"$\tau$", "ε": r"$\varepsilon$"}


def page(suites: list[Suite], frame: pd.DataFrame, runs: Path, folder: Path, source: Path) -> tuple[Path, list[str]]:
    """Write everything of these suites into one folder. Returns index.html, and what is wrong with result files.

    Raises InputError if the source tree with baselines/ and reports/ is not there.
    """
    check_source(source)
    html, text = environments(source / "reports" / "templates")
    shown, problems = [], list[str]()
    order = sorted(((e, s) for s in suites for e in s.exhibits), key=lambda pair: (isinstance(pair[0], Figure), pair[0].number))
    for exhibit, suite in order:
        failures = {run.name: why for run in exhibit.runs if (why := _failure(runs, run))}
        missing = [*gaps(exhibit, frame, failures, f"simclic run {suite.path}"), *mixed(exhibit, frame)]
        missing += [*fallen(exhibit, frame), *unsolved(exhibit, frame)]
        found = of_jobs(frame, exhibit.jobs)
        problems += list(found.loc[found["problem"] != "", "problem"])
        if isinstance(exhibit, Figure):
            exhibit = replace(exhibit, notes=(*exhibit.notes, BARS))
            body, formats = "", draw(exhibit, frame, folder, source / "reports" / "simclic.mplstyle")
        else:
            assert isinstance(exhibit, Table)
            made = sheet(exhibit, frame, source / "baselines", failures)
            missing = [*missing, *made.remarks]
            body = Markup(html.get_template("table.html.j2").render(sheet=made))  # escaped inside
            formats = _write(made, body, missing, folder, html, text)
        shown.append({"exhibit": exhibit, "missing": missing, "table": body, "files": formats})

    tables = [e for e, _ in order if isinstance(e, Table) and e.columns == "dataset"]
    asked = of_jobs(frame, [job for suite in suites for job in suite.jobs])
    asked = asked[asked["problem"] == ""]
    values = {
        "title": suites[0].title if len(suites) == 1 else "SimCLIC: the paper's tables and figures",
        "findings": [p for table in tables for p in findings(table, frame, runs)],
        "exhibits": shown,
        "choices": choices(suites),
        "encoders": run_pages(asked, runs, folder, html),
        "protocols": list(dict.fromkeys(p.title for suite in suites for _, p in suite.jobs)),
        "provenance": provenance(asked),
    }
    path = folder / "index.html"
    files.write_bytes(path, html.get_template("index.html.j2").render(values).encode())
    return path, problems


def check_source(source: Path) -> None:
    """Raise InputError if the source tree with baselines/ and reports/ is not there."""
    if not (source / "baselines").is_dir() or not (source / "reports" / "templates").is_dir():
        raise InputError(
            f"{source}: baselines/ and reports/ are not there; install simclic from its source tree with pip install -e"
        )


def environments(templates: Path) -> tuple[Environment, Environment]:
    """Two jinja2 environments: one for HTML, where everything is escaped, one for text with an escape for each format."""
    loader, rules = FileSystemLoader(templates), {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    html, text = Environment(autoescape=True, loader=loader, **rules), Environment(loader=loader, **rules)  # type: ignore[arg-type]
    text.filters |= {"tex": tex, "md": lambda s: re.sub(r"([\\|*_<>`\[\]])", r"\\\1", str(s))}
    return html, text


def tex(value: Any) -> str:
    """Text for LaTeX: no character of it is a command."""
    return "".join(TEX.get(c, c) for c in str(value))


NUMBER = re.compile(r"[+-]\d+\.\d+")


def as_csv(made: Sheet) -> str:
    """The sheet as CSV: protocol, source, name, then a column per value. A cell that a spreadsheet would run is quoted."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["protocol", "source", made.corner.lower() or "method", *made.header])
    for block, groups in made.blocks:
        for group in groups:
            for row in group.rows:
                cells = [block, group.title, row.label, *(cell.text for cell in row.cells)]
                writer.writerow([f"'{c}" if c.startswith(("=", "+", "-", "@")) and not NUMBER.fullmatch(c) else c for c in cells])
    return buffer.getvalue()


def provenance(found: pd.DataFrame) -> dict[str, list[str]]:
    """What computed these results: devices, threads, commits, data, versions."""
    versions = sorted({f"{k} {v}" for row in found["versions"] for k, v in row.items()})
    told = {k: sorted({str(v) for v in found[k]}) for k in ("device", "threads", "commit", "data")}
    return {"results": [f"{len(found):,}"], **told, "versions": versions}


def _write(made: Sheet, body: Markup, missing: list[str], folder: Path, html: Environment, text: Environment) -> list[str]:
    """The files of one table. Returns their names."""
    exhibit = made.exhibit
    page = {"title": f"{exhibit.title}. {exhibit.caption}", "body": body, "notes": [*exhibit.notes, *missing]}
    written = {
        "html": html.get_template("page.html.j2").render(page),
        "md": text.get_template("table.md.j2").render(sheet=made, missing=tuple(missing)),
        "tex": text.get_template("table.tex.j2").render(sheet=made, missing=tuple(missing)),
        "csv": as_csv(made),
    }
    for kind, content in written.items():
        files.write_bytes(folder / f"{exhibit.name}.{kind}", content.encode())
    return [f"{exhibit.name}.{kind}" for kind in written]


def _failure(runs: Path, run: Run) -> str:
    try:
        store.agrees(runs, run)
    except store.Broken as e:
        return str(e)
    return store.failure(runs, run)
