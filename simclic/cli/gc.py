"""simclic gc: what can be deleted, why, and how much that frees; asks first."""

import argparse
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from simclic.cli import add_place_arguments, expand_path, print_errors, print_line
from simclic.errors import InputError
from simclic.experiment import load
from simclic.schedule.deletable import REASONS, Garbage, Item, Kind, bytes_on_disk, count_files
from simclic.text import count_noun, format_bytes

if TYPE_CHECKING:
    from rich.console import Console

MAX_ITEMS, MAX_LINES = 3, 12  # that are listed


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `simclic gc`."""
    parser.set_defaults(verb=gc)
    text = "whose runs and data are kept, a file such as benchmarks/table2.py; without one, all runs and data are kept"
    parser.add_argument("exhibits", nargs="*", type=expand_path, metavar="EXHIBIT", help=text)
    add_place_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="delete everything with which no result is lost, without asking")
    text = "delete runs and imported weights that no EXHIBIT asks for, too; their results are lost (asks unless --yes is given)"
    parser.add_argument("--runs-too", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="for programs: list, delete nothing")


def gc(arguments: argparse.Namespace) -> int:
    """List, ask, delete. Return 1 if something could not be deleted, 130 after Ctrl-C in a question."""
    from rich.console import Console

    from simclic.schedule.gc import delete_items, find_garbage
    from simclic.store.record import check_no_record

    if arguments.runs_too and not arguments.exhibits:
        raise InputError("--runs-too: name the exhibits whose runs are to stay")
    check_no_record(arguments.runs)
    suites, console = [load(path) for path in arguments.exhibits], Console()
    garbage = find_garbage(suites, arguments.runs, arguments.data)
    if arguments.json:
        print(json.dumps(as_json(garbage), indent=1))
        return 0
    _print_garbage(console, garbage, arguments)
    try:
        chosen = _choose_items(arguments, garbage, may_ask=sys.stdin.isatty() and console.is_terminal)
    except KeyboardInterrupt:
        print("\nnothing was deleted", file=sys.stderr)
        return 130
    if not chosen:
        return 0
    deletion = delete_items(chosen, suites, arguments.runs, arguments.data)
    for line in deletion.skipped[:MAX_LINES]:
        print_line(console, f"kept: {line}")
    if len(deletion.skipped) > MAX_LINES:
        print_line(console, f"and {len(deletion.skipped) - MAX_LINES:,} more were kept")
    files = deletion.files
    print_line(console, f"deleted {count_noun(len(files), 'file')}: {format_bytes(bytes_on_disk(files.values()))} freed")
    print_errors(deletion.problems)
    return int(bool(deletion.problems))


def _choose_items(arguments: argparse.Namespace, garbage: Garbage, may_ask: bool) -> list[Item]:
    """Return the items that the user wants deleted."""
    safe, runs = garbage.safe_items, garbage.items_of_kind(Kind.RUNS) if arguments.runs_too else []
    if arguments.yes or not (safe or runs):
        return [*safe, *runs]
    if not may_ask:
        print("nothing was deleted: there is no terminal to ask on; add --yes")
        return []
    count, size = count_files(safe)
    chosen = safe if safe and _confirm(f"delete {count_noun(count, 'file')} ({format_bytes(size)})? No result is lost.") else []
    size = count_files(runs)[1]
    if runs and _confirm(f"delete {_describe_losses(runs)} and their files ({format_bytes(size)})? Their results are LOST."):
        chosen = [*chosen, *runs]
    if not chosen:
        print("nothing was deleted")
    return chosen


def _confirm(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _describe_losses(items: list[Item]) -> str:
    """Return the numbers of runs, results and imported weights in words."""
    runs = sum(item.path == item.place for item in items)
    counts = ((runs, "run"), (sum(item.results for item in items), "result"), (len(items) - runs, "file"))
    return ", ".join(count_noun(n, noun) + " of imported weights" * (noun == "file") for n, noun in counts if n)


def as_json(garbage: Garbage) -> dict[str, object]:
    """Return everything that may be deleted, for programs."""

    def count_as_json(items: Iterable[Item]) -> dict[str, int]:
        return dict(zip(("files", "bytes"), count_files(items), strict=True))

    kinds = []
    for kind, reason in REASONS.items():
        items = garbage.items_of_kind(kind)
        listed = [{"path": str(item.path), **count_as_json([item])} for item in items]
        flag = "--runs-too" if kind == Kind.RUNS else "--yes"
        kinds.append({"kind": kind, "why": reason, "flag": flag, **count_as_json(items), "items": listed})
    left = {reason: [str(path) for path in paths] for reason, paths in garbage.left_alone.items()}
    total, safe = count_as_json(garbage.items), count_as_json(garbage.safe_items)
    return {"kinds": kinds, "total": total, "safe": safe, "images": garbage.feature_images, "left": left}


def _print_garbage(console: "Console", garbage: Garbage, arguments: argparse.Namespace) -> None:
    """Print a table of kinds, the largest items of each, and what is left alone."""
    from rich.table import Column, Table

    numbers = (Column(word, justify="right", no_wrap=True) for word in ("files", "frees"))
    table, safe, runs = Table("what", "why", *numbers), garbage.safe_items, garbage.items_of_kind(Kind.RUNS)

    def add_row(what: str, why: str, items: list[Item], end_section: bool = False) -> None:
        count, size = count_files(items)
        table.add_row(what, why, f"{count:,}", format_bytes(size), end_section=end_section)

    for kind, reason in REASONS.items():
        if kind == Kind.RUNS and safe:
            table.add_section()
            add_row("all of that", "no result is lost", safe, end_section=True)
        if items := garbage.items_of_kind(kind):
            add_row(kind, reason + (f", {garbage.feature_images:,} in all" if kind == Kind.FEATURES else ""), items)
    if safe and runs:
        add_row("together", "", garbage.items)
    console.print(table if garbage.items else "nothing can be deleted", soft_wrap=True)
    for kind in Kind:
        items = garbage.items_of_kind(kind)
        if items:
            console.print(f"\n{kind}", style="bold")
        for item in items[:MAX_ITEMS]:
            print_line(console, f"  {item.path}: {format_bytes(count_files([item])[1])}")
        if len(items) > MAX_ITEMS:
            print_line(console, f"  and {len(items) - MAX_ITEMS:,} more: --json")
    for reason, paths in garbage.left_alone.items():
        more = f" and {len(paths) - MAX_ITEMS:,} more" if len(paths) > MAX_ITEMS else ""
        text = f"\nleft alone: {', '.join(map(str, paths[:MAX_ITEMS]))}{more}: {reason}"
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if not arguments.exhibits:
        print_line(console, "\nno exhibit is named: all features, decoded data and runs are kept")
    elif not arguments.runs_too and runs:
        print_line(console, "\nruns go only with --runs-too")
