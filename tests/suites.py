"""Suites to report on: the paper's, and small ones."""

from conftest import ROOT

from simclic import Table, load
from simclic.experiment import Suite
from simclic.experiment.exhibit import PAPER_EXHIBITS


def full():
    return [load(ROOT / f"benchmarks/{name}.py") for name in sorted(PAPER_EXHIBITS)]


def small(*runs, **options):
    return Suite("small", "Small", (Table(paper="table2", caption="Small", runs=runs, **options),), "small.py")
