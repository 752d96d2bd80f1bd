"""Verbs that fill a module each, and the words and lines that they share."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.errors import InputError
from simclic.experiment import DEFAULT_COMPUTE
from simclic.files import RUNS

if TYPE_CHECKING:
    from rich.console import Console


def add_runs_argument(parser: argparse.ArgumentParser) -> None:
    """Where runs lie."""
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where runs and results lie (%(default)s)")


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Where runs and data lie, for every verb that asks."""
    add_runs_argument(parser)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="where the data sets lie (%(default)s)")


def add_out_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Where a report or a picture goes."""
    text = f"where the {what} goes (%(default)s)"
    parser.add_argument("--out", type=Path, default=Path("reports/out"), metavar="DIR", help=text)


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """How this machine computes, for every verb that trains here: the fields of ComputeOptions."""
    parser.add_argument("--compile", action="store_true", help="let torch.compile fuse the backbone, if it can here")
    parser.add_argument("--deterministic", action="store_true", help="the same bits every time on a GPU too, at a cost")
    parser.add_argument(
        "--minutes", type=float, default=DEFAULT_COMPUTE.minutes, metavar="N", help="between checkpoints (%(default)g)"
    )
    text = "processes that share a GPU (%(default)s)"
    parser.add_argument("--per-gpu", type=int, default=DEFAULT_COMPUTE.per_gpu, metavar="N", help=text)
    text = "of a fine-tuning grid, trained at a time; numbers do not depend on it (as many as fit)"
    parser.add_argument("--members", type=int, default=DEFAULT_COMPUTE.members, metavar="N", help=text)


def print_line(console: "Console", text: str) -> None:
    """Print a line as it is, however long."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_errors(problems: "list[str]") -> None:
    """Print each problem once, as a line on standard error."""
    for problem in dict.fromkeys(problems):
        print(f"error: {problem}", file=sys.stderr)


def find_run_folder(place: Path, name: str) -> Path:
    """The folder of the Run that `name` begins. Raises InputError if there is none, or more than one."""
    if Path(name).is_dir():
        return Path(name)
    run_paths = sorted(p for p in place.glob("*") if p.is_dir() and p.name != "imported" and not p.name.startswith("."))
    folders = [p for p in run_paths if p.name.startswith(name)] if "/" not in name else []
    if len(folders) != 1:
        names = ", ".join(p.name for p in folders[:4]) or f"{len(run_paths)} others"
        raise InputError(f"{place / name}: {'no such run' if not folders else 'more than one run'}; there are {names}")
    return folders[0]


def report_stopped(signal: int) -> int:
    """Say that work was stopped by a signal and can go on. Returns the exit code."""
    print("\nstopped; what is done is kept, and the same command goes on from there", file=sys.stderr)
    return 128 + signal
