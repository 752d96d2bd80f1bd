"""simclic compare A B: which cells changed beyond noise between two folders of results, or two commits."""

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

from simclic.cli import runs
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
    sides = {"a": found.a, "b": found.b}
    return {
        **{k: {"name": s.name, "results": len(s.results), "provenance": s.provenance} for k, s in sides.items()},
        "differs": {name: {"a": a, "b": b} for name, (a, b) in found.differs.items()},
        "counts": found.counts | {"broken": len(found.broken)}, "tested": found.tested,
        "cells": [_cell_json(cell) for cell in found.cells],
        "broken": [{"side": side, "problem": problem} for problem, side in found.broken.items()],
    }  # fmt: skip


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
        first, *others = map(_fields, rows)
        shared = {k: v for k, v in first.items() if all(k in fields and fields[k] == v for fields in others)}
        parts += [_text(f"each cell: {_values(shared)}")] if shared else []
        parts += [_table(rows, shared), _text(
            f"changed: p < .05 after Holm's correction over the {count_noun(found.tested, 'cell')} that were tested; "
            "perhaps: without it"
        )]  # fmt: skip
        if any(len(cell.seeds) == 1 and cell.difference for cell in rows):
            parts.append(_text("with one seed, what another seed would have changed is not counted: a second tells more"))
    parts += [_text(line) for line in _counts(found)]
    odd = [f"{cell.word}: {_place(cell)}: {cell.why}" for cell in found.cells if cell.why]
    left = [f"{_place(c)}: seed {seed}, {why}" for c in found.cells if c.seeds for seed, why in c.left.items()]
    parts += _listed("to be looked at", odd) + _listed("left out of the pairs", left)
    parts += _listed("broken, and never a number", [f"{side}: {problem}" for problem, side in found.broken.items()], "bold red")
    return Group(*parts)  # type: ignore[arg-type]


def _head(found: "Comparison") -> list[str]:
    """Which results are compared, and what is another there: the likely cause of a change."""
    lines = [f"{letter}: {_side(side)}" for letter, side in (("A", found.a), ("B", found.b))]
    if found.a.results == found.b.results:
        return [*lines, "A and B are the same results"]
    if differs := [f"{name} {_few(a)} → {_few(b)}" for name, (a, b) in found.differs.items()]:
        return [*lines, f"not alike: {'; '.join(differs)}"]
    dirty = any(commit.endswith("+") for commit in found.a.provenance.get("commit", []))
    may = " (+: with uncommitted changes, which may be others)" if dirty else ""
    return [*lines, f"alike: commit, versions, device, threads{may}"]


def _side(side: "Side") -> str:
    known = side.provenance
    what = [f"{name} {_few(known[name])}" for name in ("commit", "torch") if name in known] + [_few(known.get("device", []))]
    return f"{count_noun(len(side.results), 'result')}, {side.name}" + (f" ({', '.join(what)})" if side.results else "")


def _few(values: list[str]) -> str:
    more = f" and {len(values) - FEW} more" if len(values) > FEW else ""
    return ", ".join(values[:FEW]) + more or DASH


def _table(rows: "list[Cell]", shared: Fields) -> "Table":
    """Two lines for each cell, the second for its protocol. shared: fields that all of them share, told elsewhere."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from simclic.report.noise import shown

    table = Table("", "cell, and protocol", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.columns[1].overflow = "fold"
    for header in ("seeds", "A", "B", "B - A", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    for cell in rows:
        name = _text(_name(cell, shared)).append("\n").append(_text(_protocol(cell)))
        errors = (f"{error:.2f}" if math.isfinite(error) else DASH for error in (cell.a, cell.b))
        d = cell.difference
        test = (f"{d.points:+.2f} ± {d.error:.2f}", shown(d.p)) if d else (DASH, DASH)
        table.add_row(_text(cell.word, STYLES.get(cell.word, "")), name, f"{len(cell.seeds)}", *errors, *test)
    return table


def _place(cell: "Cell") -> str:
    """A cell and its protocol in one line."""
    return f"{_name(cell, {})}, {_protocol(cell)}"


def _name(cell: "Cell", shared: Fields) -> str:
    """Data set, method, and the fields that differ from their defaults, without those that are told elsewhere."""
    from simclic.data import FACTS

    name = cell.run.dataset
    differ = _values({k: v for k, v in _fields(cell).items() if k not in shared})
    return ", ".join(filter(None, (FACTS[name].title if name in FACTS else name, cell.run.label, differ)))


def _fields(cell: "Cell") -> Fields:
    """What differs from the defaults and is not in the method's name."""
    run = cell.run
    said = {"dataset", "perturbation", "seed"} | ({"epochs"} if run.epochs == 0 else set())
    said |= {name for name in ("init", "backbone") if getattr(run, name) in run.label.lower()}
    return {name: value for name, value in run.differing.items() if name not in said}


def _protocol(cell: "Cell") -> str:
    differ = _values({k: v for k, v in cell.protocol.differing.items() if k != "solver"})  # the title says that
    return ", ".join(filter(None, (cell.protocol.title, differ)))


def _values(fields: Fields) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def _counts(found: "Comparison") -> list[str]:
    from simclic.report.compare import APART, COMPARED, ONLY_A, ONLY_B

    first, others = (
        ", ".join(f"{found.counts[word]:,} {word}" for word in words) for words in (COMPARED, (APART, ONLY_A, ONLY_B))
    )
    return [f"{count_noun(found.compared, 'cell')} compared: {first}", f"{others}; broken files: {len(found.broken):,}"]


def _listed(title: str, lines: list[str], style: str = "bold") -> "list[Text]":
    more = [_text(f"  and {len(lines) - MOST:,} more: --json")] if len(lines) > MOST else []
    return [_text(title, style), *(_text(f"  {line}") for line in lines[:MOST]), *more] if lines else []


def _text(text: str, style: str = "") -> "Text":
    """As it is, not as markup."""
    from rich.text import Text

    return Text(terminal_safe(text), style=style)
