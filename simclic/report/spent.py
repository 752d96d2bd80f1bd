"""What results took, beside what a plan would have said before any of them was there."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simclic import files
from simclic.errors import InputError
from simclic.experiment import Job, Suite
from simclic.report.results import Results
from simclic.schedule import cost
from simclic.schedule.cost.prices import dot, kind_of
from simclic.schedule.cost.rates import FOLDER
from simclic.store.run_folder import RunFolder
from simclic.text import format_seconds

STAGES = {"pretrain": "Pre-training", "linear": "Linear evaluation", "finetune": "Fine-tuning"}


@dataclass
class Spent:
    """One stage on one kind of device. planned, took: seconds of one process, all jobs together. source: of what was planned."""

    stage: str
    device: str
    jobs: int = 0
    planned: float = 0.0
    took: float = 0.0
    sources: set[str] = field(default_factory=set)

    @property
    def words(self) -> tuple[str, str, str, str]:
        """Planned, where that is from, what it took, and planned over that."""
        return (
            format_seconds(self.planned),
            ", ".join(sorted(self.sources)),
            format_seconds(self.took),
            f"{self.planned / self.took:.2f}" if self.took else "–",
        )


def spent(suites: Iterable[Suite], results: Results) -> list[Spent]:
    """By stage and device, everything that is there of what these exhibits ask for. Features are not in the price of a probe."""
    found: dict[tuple[str, str], Spent] = {}
    rates: dict[str, cost.Rates] = {}
    jobs = dict.fromkeys(job for suite in suites for job in suite.jobs)
    encoders = dict.fromkeys(job.encoder for job in jobs if job.run.epochs and results.rows([job]))
    for job, record in _records(jobs, encoders, results):
        run, protocol = job.run, job.protocol
        device, seconds = str(record.get("device")), record.get("seconds")
        if not seconds:
            continue
        if device not in rates:
            rates[device] = known(results.runs, device)
        try:
            amounts = cost.result(run, protocol) if protocol else cost.encoder(run)
        except InputError:  # a folder of images that is elsewhere: how many there are is not known here
            continue
        line = found.setdefault((job.stage, device), Spent(STAGES[job.stage], device))
        amounts.pop("start", None)
        coefficients, source = rates[device].of(run.backbone, run.image_size, kind_of(run, protocol).precision, amounts)
        line.planned += dot(coefficients, amounts)
        line.took += float(seconds)
        line.jobs += 1
        line.sources.add(source)
    return [found[key] for key in sorted(found, key=lambda key: (list(STAGES).index(key[0]), key[1]))]


def _records(jobs: Iterable[Job], encoders: Iterable[Job], results: Results) -> Iterable[tuple[Job, dict[str, Any]]]:
    for job in encoders:
        try:
            yield job, RunFolder(results.runs, job.run).encoder_record(verify=False) or {}
        except files.Broken:
            continue
    for job in jobs:
        for row in results.rows([job]):
            yield job, row


def known(runs: Path, device: str) -> cost.Rates:
    """What was calibrated on a device of this name, else guesses."""
    kind = "cpu" if device == "cpu" else cost.named(device)
    for path in sorted((runs / FOLDER).glob("*.json")):
        try:
            if (files.read_json(path, verify=False) or {}).get("device") == device:
                return cost.calibrated(runs, cost.Target(path.stem, kind))
        except InputError:
            continue
    return cost.Rates(cost.Target(kind=kind), [])
