"""Verbs that fill a module each."""

import argparse
from pathlib import Path


def places(parser: argparse.ArgumentParser) -> None:
    """Where things lie, for every verb that asks."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs and results lie (%(default)s)")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="where the data sets lie (%(default)s)")
