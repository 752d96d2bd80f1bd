"""Every number by its place: exhibit, stage, data set and what stands at its row, column or point; printed and run here."""

import csv
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import NamedTuple

from simclic.data import FACTS, PAPER, title
from simclic.experiment import Exhibit, Figure, Job, Table
from simclic.report.noise import Measured
from simclic.report.results import Jobs, Results

ASSUMED_SIZES = "the paper does not give the number of images; taken: the makers' val where they define one, else a fifth of all"


class Key(NamedTuple):
    """Where a number stands. dataset: as printed. at: the method in Table 2, the column as printed in Tables 4-6, x in a figure;
    (line, x) in a figure whose lines are no data sets."""

    exhibit: str
    stage: str
    dataset: str
    at: Hashable


Cells = dict[Key, Measured]


def read_printed_cells(baselines: Path) -> Cells:
    """The errors of Tables 2 and 4-6 as the paper prints them. It prints none of its figures' numbers."""
    cells = {}
    for row in read_provenance(baselines):
        if row["metric"]:
            table = row["table"]
            dataset, at = (row["column"], row["row"]) if table == "2" else ("CIFAR10", row["row"])
            images = int(row["test_images"]) if row["test_images"].isdigit() else count_validation_images(dataset)
            cells[Key(f"table{table}", row["protocol"], dataset, at)] = Measured(float(row["printed"]), images)
    return cells


def read_provenance(baselines: Path) -> list[dict[str, str]]:
    """Where each stored number comes from: the rows of provenance.csv, or none if it is not there."""
    path = baselines / "provenance.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


def count_validation_images(dataset: str) -> int:
    """How many images the paper's validation set probably has, see ASSUMED. dataset: as printed."""
    return FACTS[{title(name): name for name in PAPER}[dataset]].paper[2]


def measure_cells(exhibits: Iterable[Exhibit], results: Results) -> Cells:
    """What was run here in the paper's exhibits, cell by cell; of several linear evaluations the first that one names."""
    cells = {}
    for exhibit in (exhibit for exhibit in exhibits if exhibit.paper):
        for place, jobs in group_by_key(exhibit, exhibit.judged).items():
            if measured := results.measure_jobs(jobs):
                cells[place] = measured
    return cells


def group_by_key(exhibit: Exhibit, jobs: Jobs) -> dict[Key, list[Job]]:
    """Jobs of an exhibit, those that share a place together: its seeds."""
    jobs_by_key: dict[Key, list[Job]] = {}
    for job in jobs:
        jobs_by_key.setdefault(job_key(exhibit, job), []).append(job)
    return jobs_by_key


def job_key(exhibit: Exhibit, job: Job) -> Key:
    """The place of a job's error in an exhibit."""
    run = job.run
    at: Hashable = run.label
    if isinstance(exhibit, Figure):
        x = getattr(run, exhibit.x)
        at = x if exhibit.lines == "dataset" else (getattr(run, exhibit.lines), x)
    elif isinstance(exhibit, Table) and isinstance(exhibit.columns, str) and exhibit.columns != "dataset":
        value = getattr(run, exhibit.columns)
        at = exhibit.labels.get(value, str(value))
    dataset = title(run.dataset) if run.dataset in FACTS else run.dataset  # a folder may be called like a data set, or another
    return Key(exhibit.name, job.stage, dataset, at)
