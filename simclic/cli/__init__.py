"""The verbs of the command line, a module each, and the arguments and output that they share."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.errors import InputError
from simclic.experiment import DECODE, DEFAULT_COMPUTE
from simclic.files import CACHE, DATA, RUNS
from simclic.store.run_files import RUN
from simclic.text import terminal_safe

if TYPE_CHECKING:
    from rich.console import Console


def add_runs_argument(parser: argparse.ArgumentParser) -> None:
    """Add --runs."""
    parser.add_argument("--runs", type=expand_path, default=RUNS, metavar="DIR", help="folder of runs and results (%(default)s)")


def expand_path(text: str) -> Path:
    """Return a path from the command line, with ~ expanded. This is the type of every such argument."""
    try:
        return Path(text).expanduser()
    except RuntimeError as e:
        raise argparse.ArgumentTypeError(f"{text}: {e}") from e


def add_exhibits_argument(parser: argparse.ArgumentParser) -> None:
    """Add one or more files of exhibits."""
    parser.add_argument("exhibits", nargs="+", type=expand_path, metavar="EXHIBIT", help="a file such as benchmarks/table2.py")


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --runs, --data and --cache."""
    add_runs_argument(parser)
    add_data_arguments(parser)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --data and --cache. The cache goes into the environment, where every process of the work finds it."""

    def set_cache(text: str) -> Path:
        path = expand_path(text).absolute()
        os.environ[CACHE] = str(path)
        return path

    parser.add_argument("--data", type=expand_path, default=DATA, metavar="DIR", help="folder of the data sets (%(default)s)")
    text = f"folder of decoded images, if not `prepared` in that of the data sets (or ${CACHE})"
    parser.add_argument("--cache", type=set_cache, metavar="DIR", help=text)


def add_out_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --out for a report or a picture."""
    text = f"folder for the {what} (%(default)s)"
    parser.add_argument("--out", type=expand_path, default=Path("reports/out"), metavar="DIR", help=text)


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an argument for each field of ComputeOptions."""
    parser.add_argument("--compile", action="store_true", help="use torch.compile for the backbone where it works")
    parser.add_argument("--deterministic", action="store_true", help="get the same bits every time on a GPU too; slower")
    parser.add_argument(
        "--minutes", type=float, default=DEFAULT_COMPUTE.minutes, metavar="N", help="minutes between checkpoints (%(default)g)"
    )
    text = "processes that share a GPU (%(default)s)"
    parser.add_argument("--per-gpu", type=int, default=DEFAULT_COMPUTE.per_gpu, metavar="N", help=text)
    text = "members of a fine-tuning grid trained together; no number depends on it (as many as fit)"
    parser.add_argument("--members", type=int, default=DEFAULT_COMPUTE.members, metavar="N", help=text)
    text = "decode images once into a shared file, or from their files in every epoch, to the same pixels (%(default)s)"
    parser.add_argument("--decode", choices=DECODE, default=DEFAULT_COMPUTE.decode, help=text)
    text = "a labelled data set on which pre-trainings log the error of kNN; nothing learns from it (the run's own)"
    parser.add_argument("--watch-on", default=DEFAULT_COMPUTE.watch_on, metavar="NAME", help=text)
    text = "GPUs, or cores without a GPU, that compute one pre-training together (%(default)s)"
    parser.add_argument("--ranks", type=int, default=DEFAULT_COMPUTE.ranks, metavar="N", help=text)


def print_line(console: "Console", text: str, style: str = "") -> None:
    """Print a line without markup or wrapping."""
    console.print(terminal_safe(text, keep="\n"), style=style or None, highlight=False, markup=False, soft_wrap=True)


def print_errors(problems: "list[str]") -> None:
    """Print each problem once, as a line on standard error."""
    for problem in dict.fromkeys(problems):
        print(terminal_safe(f"error: {problem}", keep="\n"), file=sys.stderr)


def find_run_folder(place: Path, name: str) -> Path:
    """Return the one Run folder whose name starts with `name`, or that `name` is the path of.

    Raise InputError if there is none or more than one.
    """
    if (path := Path(name)).is_dir() and ("/" in name.rstrip("/") or (path / RUN).exists()):
        return path
    name = name.rstrip("/")
    run_paths = sorted(p for p in place.glob("*") if p.is_dir() and p.name != "imported" and not p.name.startswith("."))
    folders = [p for p in run_paths if p.name.startswith(name)] if "/" not in name else []
    if len(folders) != 1:
        names = ", ".join(p.name for p in folders[:4]) or f"{len(run_paths)} others"
        raise InputError(f"{place / name}: {'no such run' if not folders else 'more than one run'}; there are {names}")
    return folders[0]


def report_stopped(signal: int) -> int:
    """Print that a signal stopped the work and that it can be continued. Return the exit code."""
    print("\nstopped; all finished work is saved: run the same command to continue", file=sys.stderr)
    return 128 + signal
