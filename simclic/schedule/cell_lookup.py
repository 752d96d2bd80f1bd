"""Find cells of exhibits by their coordinates. A cell is all seeds of one place under one protocol."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from simclic import data
from simclic.errors import InputError
from simclic.experiment import Exhibit, Figure, Job, Linear, Suite, Table
from simclic.text import count_noun, terminal_safe

MAX_EXPLAINED = 6  # cells
MAX_LISTED = 20  # cells, if there are more


@dataclass
class Cell:
    """One place of an exhibit under one protocol, or several places that show the same jobs.

    places: titles for a reader. paths: the files that declare it. address: its coordinates in one line.
    names: every coordinate, in small letters.
    """

    places: list[str]
    paths: list[str]
    jobs: tuple[Job, ...]
    address: str
    names: frozenset[str]


def find_cells(suites: Iterable[Suite], asked: str) -> list[Cell]:
    """Return the cells that have every word of `asked` as a coordinate.

    Raise InputError, with the nearest cells, if there is none, and, with a list, if there are more than MAX_EXPLAINED.
    """
    cells, words = list(_list_cells(suites)), asked.casefold().split()
    if not cells:
        raise InputError("these exhibits show no results, so there is no cell to explain")
    if not words:
        raise InputError("--why '': name a cell, such as 'table2 noise cifar10 linear', or a run")
    matching = _merge_cells(cell for cell in cells if cell.names.issuperset(words))
    if not matching:
        raise InputError(terminal_safe(_explain_no_cell(cells, words, asked)))
    if len(matching) > MAX_EXPLAINED:
        lines = [f"{asked!r} names {count_noun(len(matching), 'cell')}; add a coordinate:"]
        lines += [f"  {cell.address}" for cell in matching[:MAX_LISTED]]
        lines += [f"  and {len(matching) - MAX_LISTED} more"] * (len(matching) > MAX_LISTED)
        raise InputError("\n".join(map(terminal_safe, lines)))
    return matching


def _list_cells(suites: Iterable[Suite]) -> Iterator[Cell]:
    """Yield every cell of every exhibit, in their order."""
    for suite in suites:
        for exhibit in suite.exhibits:
            for jobs in exhibit.group_by_place(exhibit.jobs).values():
                yield _make_cell(suite, exhibit, tuple(jobs))


def _make_cell(suite: Suite, exhibit: Exhibit, jobs: tuple[Job, ...]) -> Cell:
    run, protocol = jobs[0].evaluated, jobs[0].protocol
    axes = {name: getattr(run, name) for name in _axis_fields(exhibit)}
    published = isinstance(protocol, Linear) and protocol.solver == "as-published"
    address = [suite.name, exhibit.name, run.kind, run.dataset, *(f"{name}={value}" for name, value in axes.items())]
    variant = protocol.title.partition(", ")[2].replace(" ", "-") if protocol else ""  # "k-20"
    address += [variant] if published else [jobs[0].stage, variant]
    title = [f"{suite.name} {exhibit.title}".strip(), run.label, data.title(run.dataset), *_format_axes(exhibit, axes)]
    title.append(protocol.title if protocol else "")
    names = [*address, Path(suite.path).stem, Path(run.dataset).name, run.method, run.perturbation, *map(str, axes.values())]
    names += ["-".join(re.findall(r"[\w.]+", run.label)), run.init if run.init != "random" else ""]
    names += [name for job in jobs for name in (job.name, job.encoder.name, job.run.name, job.name.split("/")[1])]
    return Cell(
        [" · ".join(title)], [suite.path], jobs, " ".join(filter(None, address)), frozenset(n.casefold() for n in names if n)
    )


def _axis_fields(exhibit: Exhibit) -> list[str]:
    """Return the fields, besides the data set, along which an exhibit spreads its Runs."""
    if isinstance(exhibit, Figure):
        axes = [exhibit.lines, exhibit.x]
    else:
        axes = [exhibit.columns] if isinstance(exhibit, Table) and isinstance(exhibit.columns, str) else []
    return [name for name in axes if name != "dataset"]


def _format_axes(exhibit: Exhibit, axes: dict[str, object]) -> Iterator[str]:
    for name, value in axes.items():
        label = exhibit.labels.get(value, "") if isinstance(exhibit, Table) else ""
        yield f"{name}={value}" + (f" ({label})" if label and label != str(value) else "")


def _merge_cells(cells: Iterable[Cell]) -> list[Cell]:
    """Return cells with those of the same jobs merged."""
    merged: dict[frozenset[Job], Cell] = {}
    for cell in cells:
        first = merged.setdefault(frozenset(cell.jobs), cell)
        if first is not cell:
            first.places, first.paths = [*first.places, *cell.places], list(dict.fromkeys(first.paths + cell.paths))
    return list(merged.values())


def _explain_no_cell(cells: list[Cell], words: list[str], asked: str) -> str:
    """Return why there is no such cell: the unknown words, and the cells that most other words name."""
    known = dict.fromkeys(name for cell in cells for name in sorted(cell.names))
    close = {word: get_close_matches(word, known, 1) for word in words if word not in known}
    why = [f"nothing is called {word!r}" + (f", did you mean {near[0]}?" if near else "") for word, near in close.items()]
    meant = {name for word in words for name in close.get(word, [word])}
    most = max(len(meant & cell.names) for cell in cells)
    nearest = list(dict.fromkeys(cell.address for cell in cells if len(meant & cell.names) == most))[: 3 * bool(most)]
    text = f"{asked!r}: " + ("; ".join(why) or "no cell has all of these coordinates")
    return text + (f"; nearest: {' | '.join(nearest)}" if nearest else "")
