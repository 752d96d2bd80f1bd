"""All results under a folder by job, and the mean error over the seeds of a cell."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simclic.experiment import Job
from simclic.report.noise import Measured, compute_contributions
from simclic.store import results as store
from simclic.store.result_file import CLASSES
from simclic.store.run_folder import RunFolder

Jobs = Iterable[Job]
Row = dict[str, Any]


class Results:
    """All results under `runs`. all, frame: see rows and results of simclic.store.results."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.all = store.list_result_rows(runs)
        self.frame = store.results(runs, self.all)
        self._at = {f"{row['name']}/{row['protocol']}": i for i, row in enumerate(self.all)}
        self._predictions = cache(self._read_predictions)

    @property
    def good_rows(self) -> list[Row]:
        """The rows whose file is intact."""
        return [row for row in self.all if not row["problem"]]

    def frame_of(self, jobs: Jobs) -> pd.DataFrame:
        """Return the rows of these jobs, in the order of the frame."""
        return self.frame.iloc[sorted({self._at[job.name] for job in jobs if job.name in self._at})]

    def rows_of(self, jobs: Jobs) -> list[Row]:
        """Return the rows of these jobs as dictionaries, in the order of the jobs, without those whose file is damaged."""
        rows = [self.all[self._at[job.name]] for job in dict.fromkeys(jobs) if job.name in self._at]
        return [row for row in rows if not row["problem"]]

    def measure_jobs(self, jobs: Jobs) -> Measured | None:
        """Return the mean error over the seeds of one cell, or None without results. See keep_comparable."""
        return self.measure_rows(self.rows_of(jobs))

    def measure_rows(self, rows: Sequence[Row]) -> Measured | None:
        """Return the mean error over these rows, or None if there are none. See keep_comparable."""
        if not (rows := keep_comparable(rows)):
            return None
        seeds, classes = {}, 0
        for row in rows:
            seed = None if row["backbone"] == "pixels" else int(row["seed"])
            seeds[seed], scored = self._predictions(row["name"], row["protocol"], row["metric"])
            classes = scored or row[CLASSES] or classes  # rows of one digest have the same number
        value = float(np.mean([row["error"] for row in rows]))
        return Measured(value, int(rows[0]["sizes"]["test"]), seeds, str(rows[0]["data"]), classes)

    def _read_predictions(self, name: str, protocol: str, metric: str) -> tuple[np.ndarray, int]:
        """Return what each image contributes to the error, and how many classes are scored; 0 if there are no scores."""
        truth, scores = RunFolder(self.runs, name).read_predictions(protocol)
        return compute_contributions(truth, scores, metric), scores.shape[1] if scores.ndim > 1 else 0


def keep_comparable(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows measured and pre-trained on the same data, and by the same version of the solver, as most of them.

    Other numbers are never averaged. Of two equally frequent groups the one of the lowest seed is taken.
    """

    def basis(row: Row) -> tuple[Any, ...]:
        return row["data"], row["trained_data"], row["superseded"]

    groups = [basis(row) for row in sorted(rows, key=lambda row: (row["seed"], row["name"]))]
    return [row for row in rows if basis(row) == max(groups, key=groups.count)]
