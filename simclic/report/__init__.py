"""Rows -> tables, figures and a page to read them on. pandas, matplotlib and jinja2; never torch."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simclic.errors import InputError
from simclic.experiment import Suite
from simclic.report.pages import format_headline, write_pages
from simclic.report.result_pictures import draw_result
from simclic.report.results import Results
from simclic.report.site import check_source

SOURCE = Path(__file__).parents[2]  # where baselines/ and reports/ lie beside the package


def render(suites: Iterable[Suite], runs: Path, out: Path) -> tuple[list[Path], list[str]]:
    """Every exhibit in all its formats, and an index.html for each folder of them.

    A file that declares several exhibits has a folder of its own under `out`. Returns the pages, and what is wrong with
    result files that exhibits ask for.
    """
    results = Results(runs)
    folders: dict[Path, list[Suite]] = {}
    for suite in suites:
        folders.setdefault(out / suite.name, []).append(suite)
    for group in folders.values():
        check_names_differ(group)
    pages, problems = [], dict[str, None]()
    for folder, group in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        others = {
            os.path.relpath(f / "index.html", folder): format_headline(those) for f, those in folders.items() if f != folder
        }
        path, wrong = write_pages(group, results, folder, SOURCE, others)
        pages.append(path)
        problems |= dict.fromkeys(wrong)
    return pages, list(problems)


def check_names_differ(suites: list[Suite]) -> None:
    """Raise InputError if two files would write the same pages."""
    seen: dict[str, str] = {}
    for name, path in [(exhibit.name, suite.path) for suite in suites for exhibit in suite.exhibits]:
        if name in seen:
            raise InputError(f"{path} and {seen[name]} both declare {name}, in one folder; report them apart, or rename a file")
        seen[name] = path


def picture(result: dict[str, Any], title: str, stem: Path) -> list[Path]:
    """One result as stem.svg and stem.png: a probe's error against l2, or a fine-tuning grid. Returns their paths."""
    check_source(SOURCE)
    return draw_result(result, title, stem, SOURCE / "reports" / "simclic.mplstyle")
