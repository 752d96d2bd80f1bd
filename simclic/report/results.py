"""All results under a folder, found by their job; and what several seeds of one cell measured together."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simclic.experiment import Job
from simclic.report.noise import Measured, contributions
from simclic.store import results as store
from simclic.store.run_folder import RunFolder

Jobs = Iterable[Job]
Row = dict[str, Any]


class Results:
    """All results that lie under `runs`, with an index. frame, rows: see simclic.store.results and rows."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.all = store.rows(runs)
        self.frame = store.results(runs, self.all)
        self._at = {f"{row['name']}/{row['protocol']}": i for i, row in enumerate(self.all)}
        self._contributions = cache(self._read_contributions)

    @property
    def good_rows(self) -> list[Row]:
        """The rows of files that can be trusted."""
        return [row for row in self.all if not row["problem"]]

    def frame_of(self, jobs: Jobs) -> pd.DataFrame:
        """The rows that these jobs ask for, in the order of the table."""
        asked = {self._at.get(job.name) for job in jobs}
        return self.frame.iloc[sorted(i for i in asked if i is not None)]

    def rows_of(self, jobs: Jobs) -> list[Row]:
        """The same as dictionaries, in the order of the jobs; without those whose file cannot be trusted."""
        indices = (self._at.get(job.name) for job in dict.fromkeys(jobs))
        return [self.all[i] for i in indices if i is not None and not self.all[i]["problem"]]

    def measure_jobs(self, jobs: Jobs) -> Measured | None:
        """The mean error over the seeds of one cell; None if there is none. Only what most were measured on counts."""
        return self.measure_rows(self.rows_of(jobs))

    def measure_rows(self, rows: Sequence[Row]) -> Measured | None:
        """The same of rows."""
        if not (rows := keep_same_data(rows)):
            return None
        seeds = {
            None if row["backbone"] == "pixels" else int(row["seed"]): self._contributions(
                row["name"], row["protocol"], row["metric"]
            )
            for row in rows
        }
        value = float(np.mean([row["error"] for row in rows]))
        return Measured(value, int(rows[0]["sizes"]["test"]), seeds, str(rows[0]["data"]))

    def _read_contributions(self, name: str, protocol: str, metric: str) -> np.ndarray:
        return contributions(*RunFolder(self.runs, name).read_predictions(protocol), metric)


def keep_same_data(rows: Sequence[Row]) -> Sequence[Row]:
    """Those rows that were measured on the same data as most of them: numbers from different data are never averaged.

    Where two are as many, that of the lowest seed.
    """
    digests = [row["data"] for row in sorted(rows, key=lambda row: (row["seed"], row["name"]))]
    return [row for row in rows if row["data"] == max(digests, key=digests.count)]
