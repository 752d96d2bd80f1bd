"""simclic compare A B: which cells changed beyond noise between two folders of results, or two commits."""

import argparse
import json
import math
import os.path
from typing import TYPE_CHECKING, Any

from simclic.cli import add_runs_argument
from simclic.text import count_noun, terminal_safe

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from simclic.report.compare import Cell, Comparison
    from simclic.report.sides import Side

MOST = 12  # lines of one kind
FEW = 3  # values of one kind in a line
DASH = "–"
Fields = dict[str, object]
STYLES = {"changed": "bold red", "perhaps": "yellow"}
MORE = """A cell is one experiment with all its seeds, under one protocol. It has changed if its difference, paired over test
images and seeds, survives Holm's correction over all cells that were tested; perhaps if p < .05 without it. Cells that predict
the same bits are identical and need no test; results from other data are not compared. A commit is anything that git resolves
here, or as results record it; its results are those that say so, anywhere below --runs DIR. COMMIT stands for what was measured
on a clean tree alone, COMMIT+ for what was measured with uncommitted changes alone. A folder goes before a commit of the same
name. Exit code: 0 if nothing changed beyond noise, 1 if a cell changed, a file is broken or nothing could be compared, 2 for a
mistake."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `simclic compare`."""
    parser.set_defaults(verb=compare)
    parser.epilog = MORE
    text = "a folder of results such as runs/, or a commit: a hash, a tag, main~3"
    parser.add_argument("a", type=os.path.expanduser, metavar="A", help=text)
    parser.add_argument("b", type=os.path.expanduser, metavar="B", help="a second folder or commit, compared with A")
    add_runs_argument(parser)
    parser.add_argument("--all", action="store_true", help="list every cell, not only those that changed")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def compare(arguments: argparse.Namespace) -> int:
    """Exit code 1 if a cell changed beyond noise, a file is broken or nothing could be compared."""
    from rich.console import Console

    from simclic.report import compare as comparing
    from simclic.report.sides import read_sides

    comparison = comparing.compare_sides(*read_sides(arguments.a, arguments.b, arguments.runs))
    if arguments.json:
        print(json.dumps(as_json(comparison), indent=1, allow_nan=False))
    else:
        Console().print(draw_comparison(comparison, arguments.all), soft_wrap=True)
    return int(bool(comparison.counts[comparing.CHANGED] or comparison.broken or not comparison.compared))


def as_json(comparison: "Comparison") -> dict[str, Any]:
    """Return both sides, in what they differ, the counts, every cell and the broken files, for programs."""
    sides = {"a": comparison.a, "b": comparison.b}
    return {
        **{k: {"name": s.name, "results": len(s.results), "provenance": s.provenance} for k, s in sides.items()},
        "differs": {name: {"a": a, "b": b} for name, (a, b) in comparison.differs.items()},
        "counts": comparison.counts | {"broken": len(comparison.broken)}, "tested": comparison.tested,
        "cells": [_cell_json(cell) for cell in comparison.cells],
        "broken": [{"side": side, "problem": problem} for problem, side in comparison.broken.items()],
    }  # fmt: skip


def _cell_json(cell: "Cell") -> dict[str, Any]:
    d = cell.difference
    tested = {} if d is None else {
        "points": d.points, "standard_error": d.error, "freedom": _if_finite(d.freedom), "p": _if_finite(d.p),
        "p_holm": cell.adjusted
    }  # fmt: skip
    return {
        "word": cell.word, "method": cell.run.label, "run": {k: v for k, v in cell.run.values.items() if k != "seed"},
        "stage": cell.protocol.stage, "protocol": cell.protocol.values, "seeds": cell.seeds,
        "left_out": [{"seed": seed, "why": why} for seed, why in cell.left_out.items()],
        "a": _if_finite(cell.a), "b": _if_finite(cell.b), **tested, "why": cell.why,
    }  # fmt: skip


def _if_finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def draw_comparison(comparison: "Comparison", every: bool = False) -> "Group":
    """Return the sides, a table of the changed cells (or of all), the counts, the cells left out and the broken files."""
    from rich.console import Group

    from simclic.report.compare import CHANGED, PERHAPS

    rows = [cell for cell in comparison.cells if every or cell.word in (CHANGED, PERHAPS)]
    parts: list[object] = [_plain_text(line) for line in _describe_sides(comparison)]
    if rows:
        first, *others = map(_differing_fields, rows)
        shared = {k: v for k, v in first.items() if all(k in fields and fields[k] == v for fields in others)}
        parts += [_plain_text(f"each cell: {_format_fields(shared)}")] if shared else []
        parts += [_draw_table(rows, shared), _plain_text(
            f"changed: p < .05 after Holm's correction over the {count_noun(comparison.tested, 'cell')} that were tested; "
            "perhaps: p < .05 only without the correction"
        )]  # fmt: skip
        if any(len(cell.seeds) == 1 and cell.difference for cell in rows):
            parts.append(_plain_text("with one seed, variation between seeds is unknown; run a second seed to include it"))
    parts += [_plain_text(line) for line in _describe_counts(comparison)]
    odd = [f"{cell.word}: {_name_cell_and_protocol(cell)}: {cell.why}" for cell in comparison.cells if cell.why]
    left_out = [
        f"{_name_cell_and_protocol(c)}: seed {seed}, {why}"
        for c in comparison.cells
        if c.seeds
        for seed, why in c.left_out.items()
    ]
    parts += _list_lines("needs your attention", odd) + _list_lines("seeds not compared", left_out)
    parts += _list_lines(
        "broken files, ignored", [f"{side}: {problem}" for problem, side in comparison.broken.items()], "bold red"
    )
    return Group(*parts)  # type: ignore[arg-type]


def _describe_sides(comparison: "Comparison") -> list[str]:
    """Return which results are compared and in what they differ: the likely cause of a change."""
    lines = [f"{letter}: {_describe_side(side)}" for letter, side in (("A", comparison.a), ("B", comparison.b))]
    if comparison.a.results == comparison.b.results:
        return [*lines, "A and B are the same results"]
    if differs := [f"{name} {_join_few(a)} → {_join_few(b)}" for name, (a, b) in comparison.differs.items()]:
        return [*lines, f"differs between A and B: {'; '.join(differs)}"]
    dirty = any(commit.endswith("+") for commit in comparison.a.provenance.get("commit", []))
    may = " (+: with uncommitted changes, which may differ)" if dirty else ""
    return [*lines, f"equal in A and B: commit, versions, device, threads, ranks{may}"]


def _describe_side(side: "Side") -> str:
    known = side.provenance
    what = [f"{name} {_join_few(known[name])}" for name in ("commit", "torch") if name in known] + [
        _join_few(known.get("device", []))
    ]
    return f"{count_noun(len(side.results), 'result')}, {side.name}" + (f" ({', '.join(what)})" if side.results else "")


def _join_few(values: list[str]) -> str:
    more = f" and {len(values) - FEW} more" if len(values) > FEW else ""
    return ", ".join(values[:FEW]) + more or DASH


def _draw_table(rows: "list[Cell]", shared: Fields) -> "Table":
    """Return a table with two lines for each cell, the second for its protocol. shared: fields of all, shown above."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from simclic.report.noise import format_p

    table = Table("", "cell, and protocol", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.columns[1].overflow = "fold"
    for header in ("seeds", "A", "B", "B - A", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    for cell in rows:
        name = _plain_text(_name_cell(cell, shared)).append("\n").append(_plain_text(_name_protocol(cell)))
        errors = (f"{error:.2f}" if math.isfinite(error) else DASH for error in (cell.a, cell.b))
        d = cell.difference
        test = (d.format_points(), format_p(d.p)) if d else (DASH, DASH)
        table.add_row(_plain_text(cell.word, STYLES.get(cell.word, "")), name, f"{len(cell.seeds)}", *errors, *test)
    return table


def _name_cell_and_protocol(cell: "Cell") -> str:
    """Return a cell and its protocol in one line."""
    return f"{_name_cell(cell, {})}, {_name_protocol(cell)}"


def _name_cell(cell: "Cell", shared: Fields) -> str:
    """Return data set, method and the fields that are not defaults, without those that are shown above."""
    from simclic.data import distinct_title

    name = cell.protocol.on or cell.run.dataset
    differ = _format_fields({k: v for k, v in _differing_fields(cell).items() if k not in shared})
    trained = f"pre-trained on {cell.run.dataset}" if cell.protocol.on else ""
    return ", ".join(filter(None, (distinct_title(name), cell.run.label, trained, differ)))


def _differing_fields(cell: "Cell") -> Fields:
    """Return the fields that are not defaults and are not in the method's name."""
    run = cell.run
    said = {"dataset", "perturbation", "seed"} | ({"epochs"} if run.epochs == 0 else set())
    said |= {name for name in ("init", "backbone") if getattr(run, name) in run.label.lower()}
    return {name: value for name, value in run.differing.items() if name not in said}


def _name_protocol(cell: "Cell") -> str:
    differ = _format_fields(
        {k: v for k, v in cell.protocol.differing.items() if k not in ("solver", "on")}
    )  # title and cell say that
    return ", ".join(filter(None, (cell.protocol.title, differ)))


def _format_fields(fields: Fields) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def _describe_counts(comparison: "Comparison") -> list[str]:
    from simclic.report.compare import APART, COMPARED, ONLY_A, ONLY_B

    first, others = (
        ", ".join(f"{comparison.counts[word]:,} {word}" for word in words) for words in (COMPARED, (APART, ONLY_A, ONLY_B))
    )
    return [f"{count_noun(comparison.compared, 'cell')} compared: {first}", f"{others}; broken files: {len(comparison.broken):,}"]


def _list_lines(title: str, lines: list[str], style: str = "bold") -> "list[Text]":
    more = [_plain_text(f"  and {len(lines) - MOST:,} more; see all with --json")] if len(lines) > MOST else []
    return [_plain_text(title, style), *(_plain_text(f"  {line}") for line in lines[:MOST]), *more] if lines else []


def _plain_text(text: str, style: str = "") -> "Text":
    """Return text that rich does not read as markup."""
    from rich.text import Text

    return Text(terminal_safe(text), style=style)
