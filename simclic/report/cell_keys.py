"""The key of every number: exhibit, stage, data set, and its row, column or point. Printed cells and ours by key."""

import csv
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import NamedTuple

from simclic.data import FACTS, PAPER, distinct_title, title
from simclic.experiment import Exhibit, Figure, Job, Table
from simclic.experiment.baselines import AS_STORED, METHODS
from simclic.report.noise import Measured
from simclic.report.results import Jobs, Results
from simclic.report.search import select_shown

SOURCE = Path(__file__).parents[2]  # where baselines/ and reports/ lie beside the package
ASSUMED_SIZES = "the paper does not give the number of images; assumed: the official val set if there is one, else a fifth of all"
PRINTED_ROWS = {stored: METHODS[name.removesuffix("-as-stored")] for name, stored in AS_STORED.items()}  # our row -> printed row


def printed_row_of(label: str) -> str:
    """Return the printed row of Table 2 that a row of ours measures again; its own label if there is none."""
    return PRINTED_ROWS.get(label, label)


class Key(NamedTuple):
    """Where a number stands. dataset: as printed. at: the method in Table 2, the printed column in Tables 4-6, x in a figure,
    or (line, x) in a figure whose lines are not data sets."""

    exhibit: str
    stage: str
    dataset: str
    at: Hashable


Cells = dict[Key, Measured]


def read_printed_cells(baselines: Path) -> Cells:
    """Return the errors that the paper prints, in Tables 2 and 4-6. It prints no numbers for its figures."""
    cells = {}
    for row in read_provenance(baselines):
        if row["metric"]:
            table = row["table"]
            dataset, at = (row["column"], row["row"]) if table == "2" else ("CIFAR10", row["row"])
            # Of SimCLIC's validation sets the sizes are assumed, see ASSUMED_SIZES.
            name = next((name for name in PAPER if title(name) == dataset), "")
            images = int(row["test_images"]) if row["test_images"].isdigit() else FACTS[name].paper[2]
            cells[Key(f"table{table}", row["protocol"], dataset, at)] = Measured(float(row["printed"]), images)
    return cells


def read_provenance(baselines: Path) -> list[dict[str, str]]:
    """Return the rows of provenance.csv, which say where each stored number comes from; none without the file."""
    path = baselines / "provenance.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []


def measure_cells(exhibits: Iterable[Exhibit], results: Results) -> Cells:
    """Return our cells of the exhibits that claims read; of several linear evaluations the first that an exhibit names."""
    cells = {}
    for exhibit in (exhibit for exhibit in exhibits if exhibit.claimed_name):
        for place, jobs in group_by_key(exhibit, select_shown(exhibit, results, exhibit.judged)).items():
            if measured := results.measure_jobs(jobs):
                cells[place] = measured
    return cells


def group_by_key(exhibit: Exhibit, jobs: Jobs) -> dict[Key, list[Job]]:
    """Group jobs of an exhibit by their key: the seeds of a cell together."""
    jobs_by_key: dict[Key, list[Job]] = {}
    for job in jobs:
        jobs_by_key.setdefault(job_key(exhibit, job), []).append(job)
    return jobs_by_key


def job_key(exhibit: Exhibit, job: Job) -> Key:
    """Return the key of a job's error in an exhibit."""
    run = job.evaluated
    at: Hashable = run.label
    if isinstance(exhibit, Figure):
        x = getattr(run, exhibit.x)
        at = x if exhibit.lines == "dataset" else (getattr(run, exhibit.lines), x)
    elif isinstance(exhibit, Table) and isinstance(exhibit.columns, str) and exhibit.columns != "dataset":
        value = getattr(run, exhibit.columns)
        at = exhibit.labels.get(value, str(value))
    return Key(exhibit.claimed_name or exhibit.name, job.stage, distinct_title(run.dataset), at)
