"""simclic compare A B: which cells changed beyond noise between two folders of results, or two commits."""

import argparse
import json
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from simclic.cli import runs
from simclic.text import terminal_safe

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from simclic.report.compare import Cell, Comparison
    from simclic.report.sides import Side

MOST = 12  # lines of one kind
FEW = 3  # values of one kind in a line
DASH = "–"
Fields = Mapping[str, object]
NONE: Fields = MappingProxyType({})
STYLES = {"changed": "bold red", "perhaps": "yellow"}
MORE = """A cell is one experiment with all its seeds, under one protocol. It has changed if its difference, paired over test
images and seeds, survives Holm's correction over all cells that were tested; perhaps if p < .05 without it. Cells that predict
the same bits are identical and need no test; results from other data are not compared. A commit is anything that git resolves
here, or as results record it; its results are those that say so, anywhere below --runs DIR. COMMIT stands for what was measured
on a clean tree alone, COMMIT+ for what was measured with uncommitted changes alone. A folder goes before a commit of the same
name. Exit code: 0 if nothing changed beyond noise, 1 if a cell changed, a file is broken or nothing could be compared, 2 for a
mistake."""


def add(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic compare`."""
    parser.set_defaults(verb=compare)
    parser.epilog = MORE
    parser.add_argument("a", metavar="A", help="a folder of results such as runs/, or a commit: a hash, a tag, main~3")
    parser.add_argument("b", metavar="B", help="what is compared with it, likewise")
    runs(parser)
    parser.add_argument("--all", action="store_true", help="list every cell, not only those that changed")
    parser.add_argument("--json", action="store_true", help="for programs")


def compare(arguments: argparse.Namespace) -> int:
    """Exit code 1 if a cell changed beyond noise, a file is broken or nothing could be compared."""
    from rich.console import Console

    from simclic.report import compare as comparing
    from simclic.report.sides import sides

    found = comparing.compare(*sides(arguments.a, arguments.b, arguments.runs))
    if arguments.json:
        print(json.dumps(as_json(found), indent=1, allow_nan=False))
    else:
        Console().print(drawn(found, arguments.all), soft_wrap=True)
    return int(bool(found.counts[comparing.CHANGED] or found.broken or not found.compared))


def as_json(found: "Comparison") -> dict[str, Any]:
    """For programs: both sides, what they were not made alike in, counts, every cell, and what is broken."""
    return {
        "a": _side_json(found.a), "b": _side_json(found.b),
        "differs": {name: {"a": a, "b": b} for name, (a, b) in found.differs.items()},
        "counts": found.counts | {"broken": len(found.broken)}, "tested": found.tested,
        "cells": [_cell_json(cell) for cell in found.cells],
        "broken": [{"side": side, "problem": problem} for problem, side in found.broken.items()],
    }  # fmt: skip


def _side_json(side: "Side") -> dict[str, Any]:
    return {"name": side.name, "results": len(side.results), "provenance": side.provenance}


def _cell_json(cell: "Cell") -> dict[str, Any]:
    d = cell.difference
    tested = {} if d is None else {
        "points": d.points, "standard_error": d.error, "freedom": _finite(d.freedom), "p": _finite(d.p), "p_holm": cell.adjusted
    }  # fmt: skip
    return {
        "word": cell.word, "method": cell.run.label, "run": {k: v for k, v in cell.run.values.items() if k != "seed"},
        "stage": cell.protocol.stage, "protocol": cell.protocol.values, "seeds": cell.seeds,
        "left_out": [{"seed": seed, "why": why} for seed, why in cell.left.items()],
        "a": _finite(cell.a), "b": _finite(cell.b), **tested, "why": cell.why,
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def drawn(found: "Comparison", every: bool = False) -> "Group":
    """What the sides are, a table of what changed (or of every cell), then counts, what was left out, and what is broken."""
    from rich.console import Group

    from simclic.report.compare import CHANGED, PERHAPS

    rows = [cell for cell in found.cells if every or cell.word in (CHANGED, PERHAPS)]
    parts: list[object] = [_text(line) for line in _head(found)]
    if rows:
        fields, protocols = _shared(map(_fields, rows)), _protocols(rows)
        parts += [_text(f"{title}: {_told(values)}") for title, values in (("each cell", fields), *protocols.items()) if values]
        parts += [_table(rows, fields), *(_text(line) for line in _rules(found, rows))]
    parts += [_text(line) for line in _counts(found)]
    odd = [cell for cell in found.cells if cell.why]
    parts += _listed("to be looked at", [f"{cell.word}: {_place(cell)}: {cell.why}" for cell in odd])
    left = [(cell, seed, why) for cell in found.cells if cell.seeds for seed, why in cell.left.items()]
    parts += _listed("left out of the pairs", [f"{_place(cell)}: seed {seed}, {why}" for cell, seed, why in left])
    parts += _listed("broken, and never a number", [f"{side}: {problem}" for problem, side in found.broken.items()], "bold red")
    return Group(*parts)  # type: ignore[arg-type]


def _head(found: "Comparison") -> list[str]:
    """Which results are compared, and what is another there: the likely cause of a change."""
    lines = [f"{letter}: {_side(side)}" for letter, side in (("A", found.a), ("B", found.b))]
    if found.a.results == found.b.results:
        return [*lines, "A and B are the same results"]
    differs = [f"{name} {_few(a)} → {_few(b)}" for name, (a, b) in found.differs.items()]
    if differs:
        return [*lines, f"not alike: {'; '.join(differs)}"]
    dirty = any(commit.endswith("+") for commit in found.a.provenance.get("commit", []))
    may = " (+: with uncommitted changes, which may be others)" if dirty else ""
    return [*lines, f"alike: commit, versions, device, threads{may}"]


def _side(side: "Side") -> str:
    told = side.provenance
    what = [f"{name} {_few(told[name])}" for name in ("commit", "torch") if name in told] + [_few(told.get("device", []))]
    return f"{len(side.results):,} result{'s' * (len(side.results) != 1)}, {side.name}" + (
        f" ({', '.join(what)})" if side.results else ""
    )


def _few(values: list[str]) -> str:
    more = f" and {len(values) - FEW} more" if len(values) > FEW else ""
    return ", ".join(values[:FEW]) + more or DASH


def _table(rows: "list[Cell]", fields: Fields) -> "Table":
    """Two lines for each cell, the second for its protocol. fields: those that all of them share, told elsewhere."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table, same = Table("", "cell, and protocol", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)), _protocols(rows)
    table.columns[1].overflow = "fold"
    for header in ("seeds", "A", "B", "B - A", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    for cell in rows:
        name = Text("\n").join([_text(_name(cell, fields)), _text(_protocol(cell, same[cell.protocol.title]))])
        numbers = [f"{len(cell.seeds)}", _error(cell.a), _error(cell.b), *_difference(cell)]
        table.add_row(_text(cell.word, STYLES.get(cell.word, "")), name, *numbers)
    return table


def _difference(cell: "Cell") -> tuple[str, str]:
    from simclic.report.noise import shown

    d = cell.difference
    return (f"{d.points:+.2f} ± {d.error:.2f}", shown(d.p)) if d else (DASH, DASH)


def _error(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else DASH


def _place(cell: "Cell") -> str:
    """A cell and its protocol in one line."""
    return f"{_name(cell)}, {_protocol(cell)}"


def _name(cell: "Cell", shared: Fields = NONE) -> str:
    """Data set, method, and the fields that differ from their defaults, without those that are told elsewhere."""
    from simclic.data import FACTS

    name = cell.run.dataset
    told = _told(_without(_fields(cell), shared))
    return f"{FACTS[name].title if name in FACTS else name}, {cell.run.label}" + (f", {told}" if told else "")


def _fields(cell: "Cell") -> dict[str, object]:
    """What differs from the defaults and is not in the method's name."""
    run = cell.run
    said = {"dataset", "perturbation", "seed"} | ({"epochs"} if run.epochs == 0 else set())
    said |= {name for name in ("init", "backbone") if getattr(run, name) in run.label.lower()}
    return {name: value for name, value in run.differing.items() if name not in said}


def _protocol(cell: "Cell", shared: Fields = NONE) -> str:
    told = _told(_without(_settings(cell), shared))
    return cell.protocol.title + (f", {told}" if told else "")


def _settings(cell: "Cell") -> dict[str, object]:
    return {name: value for name, value in cell.protocol.differing.items() if name != "solver"}  # the title says that


def _protocols(rows: "list[Cell]") -> dict[str, Fields]:
    """For each protocol by its title: the fields that its cells share."""
    titles = dict.fromkeys(cell.protocol.title for cell in rows)
    return {title: _shared(_settings(cell) for cell in rows if cell.protocol.title == title) for title in titles}


def _shared(those: Iterable[Fields]) -> Fields:
    """The fields that all have in common, so that they are told once."""
    first, *others = those
    return {k: v for k, v in first.items() if all(k in fields and fields[k] == v for fields in others)}


def _without(fields: Fields, shared: Fields) -> Fields:
    return {name: value for name, value in fields.items() if name not in shared}


def _told(values: Fields) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _rules(found: "Comparison", rows: "list[Cell]") -> list[str]:
    """How the words and numbers of the table are meant."""
    lines = [f"changed: p < .05 after Holm's correction over the {_cells(found.tested)} that were tested; perhaps: without it"]
    if any(len(cell.seeds) == 1 and cell.difference for cell in rows):
        lines.append("with one seed, what another seed would have changed is not counted: a second tells more")
    return lines


def _counts(found: "Comparison") -> list[str]:
    from simclic.report.compare import APART, COMPARED, ONLY_A, ONLY_B

    counts = found.counts
    first = ", ".join(f"{counts[word]:,} {word}" for word in COMPARED)
    others = ", ".join(f"{counts[word]:,} {word}" for word in (APART, ONLY_A, ONLY_B))
    return [f"{_cells(found.compared)} compared: {first}", f"{others}; broken files: {len(found.broken):,}"]


def _cells(count: int) -> str:
    return f"{count:,} cell{'s' * (count != 1)}"


def _listed(title: str, lines: Iterable[str], style: str = "bold") -> "list[Text]":
    lines = list(lines)
    more = [_text(f"  and {len(lines) - MOST:,} more: --json")] if len(lines) > MOST else []
    return [_text(title, style), *(_text(f"  {line}") for line in lines[:MOST]), *more] if lines else []


def _text(text: str, style: str = "") -> "Text":
    """As it is, not as markup."""
    from rich.text import Text

    return Text(terminal_safe(text), style=style)
