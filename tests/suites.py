"""Suites to report on: the paper's, and small ones."""

from conftest import ROOT

from simclic import Table, load
from simclic.experiment import Suite


def full():
    return [load(p) for p in sorted(ROOT.glob("benchmarks/[tf]*.py"))]


def small(*runs, **options):
    return Suite("small", "Small", (Table(paper="table2", caption="Small", runs=runs, **options),), "small.py")
