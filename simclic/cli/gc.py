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
from simclic.schedule.deletable import FEATURES, KINDS, RUNS, Garbage, Item, bytes_on_disk, count_files
from simclic.text import count_noun, format_bytes

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

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

    from simclic.schedule.gc import delete_items, find_garbage

    if arguments.runs_too and not arguments.exhibits:
        raise InputError("--runs-too: name the exhibits whose runs are to stay")
    suites, console = [load(path) for path in arguments.exhibits], Console()
    garbage = find_garbage(suites, arguments.runs, arguments.data)
    if arguments.json:
        print(json.dumps(as_json(garbage), indent=1))
        return 0
    console.print(draw_garbage(garbage, arguments), soft_wrap=True)
    try:
        chosen = _choose_items(arguments, garbage, may_ask=sys.stdin.isatty() and console.is_terminal)
    except KeyboardInterrupt:
        print("\nnothing was deleted", file=sys.stderr)
        return 130
    if not chosen:
        return 0
    deletion = delete_items(chosen, suites, arguments.runs, arguments.data)
    lines = [f"stays: {line}" for line in deletion.skipped[:MOST]]
    lines += [f"and {len(deletion.skipped) - MOST:,} more stay"] * (len(deletion.skipped) > MOST)
    lines.append(
        f"deleted {count_noun(len(deletion.files), 'file')}: {format_bytes(bytes_on_disk(deletion.files.values()))} freed"
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for line in deletion.problems:
        print(f"error: {line}", file=sys.stderr)
    return int(bool(deletion.problems))


def _choose_items(arguments: argparse.Namespace, garbage: Garbage, may_ask: bool) -> list[Item]:
    """Return what the user wants deleted."""
    safe, lost = garbage.safe_items, garbage.lossy_items
    lost = lost if arguments.runs_too else []
    if arguments.yes:
        return [*safe, *lost]
    if not may_ask:
        if safe or lost:
            print("nothing was deleted: this is no terminal to ask on; say --yes")
        return []
    files, size = count_files(safe)
    chosen = (
        safe if safe and _confirm(f"delete {count_noun(files, 'file')} ({format_bytes(size)}), of which nothing is lost?") else []
    )
    size = count_files(lost)[1]
    if lost and _confirm(f"delete {_describe_losses(lost)} with all that belongs to them ({format_bytes(size)})? They are LOST."):
        chosen = [*chosen, *lost]
    if (safe or lost) and not chosen:
        print("nothing was deleted")
    return chosen


def _confirm(question: str) -> bool:
    """Return whether the user says yes."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _describe_losses(lost: list[Item]) -> str:
    """Return the Runs, results and imported weights among what is lost, in words."""
    runs = sum(item.path == item.place for item in lost)
    counts = ((runs, "run"), (sum(item.results for item in lost), "result"), (len(lost) - runs, "file"))
    return ", ".join(count_noun(n, noun) + " of imported weights" * (noun == "file") for n, noun in counts if n)


def as_json(garbage: Garbage) -> dict[str, object]:
    """For programs."""

    def count_as_json(items: Iterable[Item]) -> dict[str, int]:
        return dict(zip(("files", "bytes"), count_files(items), strict=True))

    kinds = []
    for kind, why in KINDS.items():
        items = garbage.items_of_kind(kind)
        listed = [{"path": str(item.path), **count_as_json([item])} for item in items]
        kinds.append(
            {"kind": kind, "why": why, "flag": "--runs-too" if kind == RUNS else "--yes", **count_as_json(items), "items": listed}
        )
    return {
        "kinds": kinds, "total": count_as_json(garbage.items), "safe": count_as_json(garbage.safe_items),
        "images": garbage.feature_images,
        "left": {why: [str(path) for path in paths] for why, paths in garbage.left_alone.items()},
    }  # fmt: skip


def draw_garbage(garbage: Garbage, arguments: argparse.Namespace) -> "Group":
    """Return a table of kinds, the largest of each, and what is left alone."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Text | Table] = [_kinds_table(garbage)] if garbage.items else [Text("nothing can be deleted")]
    for kind in KINDS:
        items = garbage.items_of_kind(kind)
        lines = [f"  {item.path}: {format_bytes(count_files([item])[1])}" for item in items[:LARGEST]]
        parts += [Text(f"\n{kind}", style="bold")] * bool(lines) + [Text(line) for line in lines]
        parts += [Text(f"  and {len(items) - LARGEST:,} more: --json")] * (len(items) > LARGEST)
    for why, paths in garbage.left_alone.items():
        more = f" and {len(paths) - LARGEST:,} more" if len(paths) > LARGEST else ""
        parts.append(Text(f"\nleft alone: {', '.join(map(str, paths[:LARGEST]))}{more}: {why}", style="yellow"))
    if not arguments.exhibits:
        parts.append(Text("\nno exhibit is named: features, decoded data and runs are all taken to be needed"))
    elif not arguments.runs_too and garbage.lossy_items:
        parts.append(Text("\nruns go only with --runs-too"))
    return Group(*parts)


def _kinds_table(garbage: Garbage) -> "Table":
    from rich.table import Table

    def format_counts(items: list[Item]) -> tuple[str, str]:
        files, size = count_files(items)
        return f"{files:,}", format_bytes(size)

    table, safe = Table("what", "why it can go", "files", "frees"), garbage.safe_items
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    for kind, why in KINDS.items():
        items = garbage.items_of_kind(kind)
        if kind == RUNS and safe:
            table.add_section()
            table.add_row("all of that", "nothing is lost", *format_counts(safe), end_section=True)
        if items:
            table.add_row(kind, why + (f", {garbage.feature_images:,} in all" if kind == FEATURES else ""), *format_counts(items))
    if safe and garbage.lossy_items:
        table.add_row("together", "", *format_counts(garbage.items))
    return table
