"""Verbs that fill a module each."""

import argparse
import sys
from pathlib import Path


def places(parser: argparse.ArgumentParser) -> None:
    """Where things lie, for every verb that asks."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs and results lie (%(default)s)")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="where the data sets lie (%(default)s)")


def stopped(signal: int) -> int:
    """Say that work was stopped by a signal and can go on. Returns the exit code."""
    print("\nstopped; what is done is kept, and the same command goes on from there", file=sys.stderr)
    return 128 + signal
