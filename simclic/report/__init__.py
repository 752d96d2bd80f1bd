"""Rows -> tables, figures and a page to read them on. pandas, matplotlib and jinja2; never torch."""

import os
from collections.abc import Iterable
from pathlib import Path

from simclic.errors import InputError
from simclic.experiment import Suite
from simclic.report.formats import SOURCE as SOURCE
from simclic.report.formats import check_source
from simclic.report.pages import format_headline, write_pages
from simclic.report.result_pictures import draw_result as draw_result
from simclic.report.results import Results


def render(suites: Iterable[Suite], runs: Path, out: Path) -> tuple[list[Path], list[str]]:
    """Write every exhibit in all its formats, and an index.html for each folder of them.

    A file that declares several exhibits has a folder of its own under `out`. Returns the index pages, and what is wrong with
    result files that exhibits ask for. Raises InputError if two files would write the same page.
    """
    check_source()
    results = Results(runs)
    folders: dict[Path, list[Suite]] = {}
    for suite in suites:
        folders.setdefault(out / suite.name, []).append(suite)
    for group in folders.values():
        check_names_differ(group)
    pages, problems = [], dict[str, None]()
    for folder, group in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        others = {os.path.relpath(f / "index.html", folder): format_headline(s) for f, s in folders.items() if f != folder}
        path, folder_problems = write_pages(group, results, folder, others)
        pages.append(path)
        problems |= dict.fromkeys(folder_problems)
    return pages, list(problems)


def check_names_differ(suites: list[Suite]) -> None:
    """Raise InputError if two files declare exhibits of one name."""
    seen: dict[str, str] = {}
    for name, path in [(exhibit.name, suite.path) for suite in suites for exhibit in suite.exhibits]:
        if name in seen:
            raise InputError(f"{path} and {seen[name]} both declare {name}; report them separately, or rename a file")
        seen[name] = path
