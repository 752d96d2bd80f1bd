"""The time that results took, beside the time that a plan would have predicted without them."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from simclic import files
from simclic.errors import InputError
from simclic.experiment import PROTOCOLS, Job, Suite
from simclic.report.results import Results
from simclic.schedule.cost.prices import Prices, prices_on
from simclic.store.run_folder import RunFolder
from simclic.text import format_seconds

STAGES = {"pretrain": "Pre-training", **{stage: kind().title for stage, kind in PROTOCOLS.items()}}


@dataclass
class TimeSpent:
    """One stage on one kind of device. planned, took: total seconds, of a pre-training on as many ranks as it had. sources: of
    the plan's prices."""

    stage: str
    device: str
    jobs: int = 0
    planned: float = 0.0
    took: float = 0.0
    sources: set[str] = field(default_factory=set)

    @property
    def words(self) -> tuple[str, str, str, str]:
        """Planned time, its source, time taken, and their ratio, as text."""
        ratio = f"{self.planned / self.took:.2f}" if self.took else "–"
        return format_seconds(self.planned), ", ".join(sorted(self.sources)), format_seconds(self.took), ratio


def summarise_time_spent(suites: Iterable[Suite], results: Results) -> list[TimeSpent]:
    """Return a line per stage and device over all results of these exhibits. A probe's price excludes feature extraction."""
    lines: dict[tuple[str, str], TimeSpent] = {}
    prices: dict[str, Prices] = {}
    for job, record in _iter_records(dict.fromkeys(job for suite in suites for job in suite.jobs), results):
        device, seconds = str(record.get("device")), record.get("seconds")
        if seconds and device not in prices:
            prices[device] = prices_on(results.runs, device)
        with suppress(InputError):  # the size of a folder of images that lies elsewhere is unknown
            if seconds:
                price = prices[device].base_price(job.run, job.protocol)
                line = lines.setdefault((job.stage, device), TimeSpent(STAGES[job.stage], device))
                ranks = int((record.get("ranks") or [1])[-1])
                line.planned += price.seconds / prices[device].rates.speed_up(job.run, ranks)[0]
                line.took += float(seconds)
                line.jobs += 1
                line.sources.add(price.source)
    return [lines[key] for key in sorted(lines, key=lambda key: (list(STAGES).index(key[0]), key[1]))]


def sum_seconds(jobs: Iterable[Job], results: Results) -> float:
    """Return the measured seconds of those of these jobs that have a result, and of their encoders, each counted once."""
    return sum(float(record.get("seconds") or 0) for _, record in _iter_records(dict.fromkeys(jobs), results))


def _iter_records(jobs: Iterable[Job], results: Results) -> Iterable[tuple[Job, dict[str, Any]]]:
    """Yield the encoders, then the results, each with its record."""
    rows = [(job, row) for job in jobs for row in results.rows_of([job])]
    for encoder in dict.fromkeys(job.encoder for job, _ in rows if job.run.epochs):
        with suppress(files.Broken):
            yield encoder, RunFolder(results.runs, encoder.run).encoder_record(verify=False) or {}
    yield from rows
