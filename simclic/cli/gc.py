"""simclic gc: what can be deleted, why, and how much that frees; asks first."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.cli import places
from simclic.errors import InputError
from simclic.experiment import load

if TYPE_CHECKING:
    from rich.console import Console, Group

    from simclic.schedule.garbage import Entry, Garbage, Gone

LARGEST, MOST = 3, 12  # of a kind; lines of one sort


def add(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic gc`."""
    parser.set_defaults(verb=gc)
    text = "what is to stay, a file such as benchmarks/table2.py; with none, only what no exhibit could need goes"
    parser.add_argument("exhibits", nargs="*", type=Path, metavar="EXHIBIT", help=text)
    places(parser)
    parser.add_argument("--yes", action="store_true", help="delete all that loses nothing, without asking")
    text = "runs and imported weights that no EXHIBIT asks for, too: their results are lost; asks unless --yes is given"
    parser.add_argument("--runs-too", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="for programs: list, delete nothing")


def gc(arguments: argparse.Namespace) -> int:
    """List, ask, delete. Exit code 1 if something could not be deleted, 130 after Ctrl-C in a question."""
    from rich.console import Console

    from simclic.schedule.garbage import delete, find, freed

    if arguments.runs_too and not arguments.exhibits:
        raise InputError("--runs-too: name the exhibits whose runs are to stay")
    suites, console = [load(path) for path in arguments.exhibits], Console()
    found = find(suites, arguments.runs, arguments.data)
    if arguments.json:
        print(json.dumps(as_json(found), indent=1))
        return 0
    console.print(drawn(found, arguments), soft_wrap=True)
    try:
        chosen = _chosen(arguments, found, console)
    except KeyboardInterrupt:
        print("\nnothing was deleted", file=sys.stderr)
        return 130
    if not chosen:
        return 0
    gone = delete(chosen, suites, arguments.runs, arguments.data)
    _tell(console, gone)
    console.print(f"deleted {_count(gone.entries)}: {_size(freed(gone.entries))} freed", highlight=False)
    return int(bool(gone.problems))


def _chosen(arguments: argparse.Namespace, found: "Garbage", console: "Console") -> "list[Entry]":
    """What the user wants deleted."""
    from simclic.schedule.garbage import freed

    safe, lost = _split(found)
    lost = lost if arguments.runs_too else []
    if arguments.yes:
        return [*safe, *lost]
    if not (sys.stdin.isatty() and console.is_terminal):
        if safe or lost:
            console.print("nothing was deleted: this is no terminal to ask on; say --yes", highlight=False)
        return []
    chosen = safe if safe and _asked(f"delete {_count(safe)} ({_size(freed(safe))}), of which nothing is lost?") else []
    if lost and _asked(f"delete {_results(lost)} with all that belongs to them ({_size(freed(lost))})? They are LOST."):
        chosen = [*chosen, *lost]
    if (safe or lost) and not chosen:
        console.print("nothing was deleted")
    return chosen


def _asked(question: str) -> bool:
    """Does the user say yes?"""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def as_json(found: "Garbage") -> dict[str, object]:
    """For programs."""
    from simclic.schedule.garbage import KINDS, RUNS

    kinds = []
    for kind, why in KINDS.items():
        those = [one for one in found.entries if one.kind == kind]
        items = [{"path": str(path), **_numbers(part)} for path, part in _parts(those)]
        kinds.append(
            {"kind": kind, "why": why, "flag": "--runs-too" if kind == RUNS else "--yes", **_numbers(those), "items": items}
        )
    safe, _ = _split(found)
    return {
        "kinds": kinds, "total": _numbers(found.entries), "safe": _numbers(safe), "images": found.images,
        "left": {why: [str(path) for path in paths] for why, paths in found.left.items()},
    }  # fmt: skip


def _numbers(those: "list[Entry]") -> dict[str, int]:
    from simclic.schedule.garbage import freed

    return {"files": sum(not one.folder for one in those), "bytes": freed(those)}


def drawn(found: "Garbage", arguments: argparse.Namespace) -> "Group":
    """A table of kinds, the largest of each, and what is left alone."""
    from rich.console import Group
    from rich.text import Text

    from simclic.schedule.garbage import KINDS, RUNS

    parts: list[object] = [_table(found)] if found.entries else [Text("nothing can be deleted")]
    for kind in KINDS:
        those = _parts(one for one in found.entries if one.kind == kind)
        lines = [f"  {path}: {_size(_numbers(part)['bytes'])}" for path, part in those[:LARGEST]]
        parts += [Text(f"\n{kind}", style="bold")] * bool(lines) + [Text(line) for line in lines]
        parts += [Text(f"  and {len(those) - LARGEST:,} more: --json")] * (len(those) > LARGEST)
    for why, paths in found.left.items():
        more = f" and {len(paths) - LARGEST:,} more" if len(paths) > LARGEST else ""
        parts.append(Text(f"\nleft alone: {', '.join(map(str, paths[:LARGEST]))}{more}: {why}", style="yellow"))
    if not arguments.exhibits:
        parts.append(Text("\nno exhibit is named: features, decoded data and runs are all taken to be needed"))
    elif not arguments.runs_too and any(one.kind == RUNS for one in found.entries):
        parts.append(Text("\nruns go only with --runs-too"))
    return Group(*parts)  # type: ignore[arg-type]


def _table(found: "Garbage") -> object:
    from rich.table import Table

    from simclic.schedule.garbage import FEATURES, KINDS, RUNS

    table = Table("what", "why it can go", "files", "frees")
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    safe, lost = _split(found)
    for kind, why in KINDS.items():
        those = [one for one in found.entries if one.kind == kind]
        if kind == RUNS and safe:
            table.add_section()
            table.add_row("all of that", "nothing is lost", *_shown(safe))
            table.add_section()
        if those:
            table.add_row(kind, why + (f", {found.images:,} in all" if kind == FEATURES else ""), *_shown(those))
    if safe and lost:
        table.add_row("together", "", *_shown(found.entries))
    return table


def _shown(those: "list[Entry]") -> tuple[str, str]:
    numbers = _numbers(those)
    return f"{numbers['files']:,}", _size(numbers["bytes"])


def _split(found: "Garbage") -> "tuple[list[Entry], list[Entry]]":
    """What can be had again, or nobody would want to; and what is lost."""
    from simclic.schedule.garbage import RUNS

    return [one for one in found.entries if one.kind != RUNS], [one for one in found.entries if one.kind == RUNS]


def _parts(those: "Iterable[Entry]") -> "list[tuple[Path, list[Entry]]]":
    """Entries by the file or folder that they are part of, the largest first."""
    found: dict[Path, list[Entry]] = {}
    for one in those:
        found.setdefault(one.of, []).append(one)
    return sorted(found.items(), key=lambda part: -_numbers(part[1])["bytes"])


def _results(lost: "list[Entry]") -> str:
    """Runs, weights and results among what is lost, in words."""
    runs = len({one.of for one in lost if one.of != one.path or one.folder})
    results = sum(one.path.name.startswith(("linear-", "finetune-")) and one.path.suffix == ".json" for one in lost)
    weights = sum(one.of == one.path and not one.folder for one in lost)
    told = [(runs, "run"), (results, "result"), (weights, "file of imported weights")]
    return ", ".join(f"{n:,} {_many(word, n)}" for n, word in told if n)


def _many(word: str, n: int) -> str:
    first, *rest = word.split(" ", 1)
    return " ".join([first + "s" * (n != 1), *rest])


def _count(those: "list[Entry]") -> str:
    files = _numbers(those)["files"]
    return f"{files:,} {_many('file', files)}"


def _size(count: float) -> str:
    """Bytes for people."""
    for unit, word in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {word}"
    return f"{count:.0f} B"


def _tell(console: "Console", gone: "Gone") -> None:
    """What stayed, and what could not be deleted."""
    for line in gone.stayed[:MOST]:
        console.print(f"stays: {line}", highlight=False, soft_wrap=True, markup=False)
    if len(gone.stayed) > MOST:
        console.print(f"and {len(gone.stayed) - MOST:,} more stay", highlight=False)
    for line in gone.problems:
        print(f"error: {line}", file=sys.stderr)
