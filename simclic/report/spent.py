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
    """One stage on one kind of device. planned, took: seconds of one process, all jobs together. sources: of what was planned."""

    stage: str
    device: str
    jobs: int = 0
    planned: float = 0.0
    took: float = 0.0
    sources: set[str] = field(default_factory=set)

    @property
    def words(self) -> tuple[str, str, str, str]:
        """Planned, where that is from, what it took, and planned over that."""
        ratio = f"{self.planned / self.took:.2f}" if self.took else "–"
        return format_seconds(self.planned), ", ".join(sorted(self.sources)), format_seconds(self.took), ratio


def spent(suites: Iterable[Suite], results: Results) -> list[Spent]:
    """By stage and device, everything that is there of what these exhibits ask for. Features are not in the price of a probe."""
    lines: dict[tuple[str, str], Spent] = {}
    rates: dict[str, cost.Rates] = {}
    jobs = dict.fromkeys(job for suite in suites for job in suite.jobs)
    measured = [(job, row) for job in jobs for row in results.rows([job])]
    encoders = dict.fromkeys(job.encoder for job, _ in measured if job.run.epochs)
    for job, record in [*((encoder, _pretraining(results.runs, encoder)) for encoder in encoders), *measured]:
        device, seconds = str(record.get("device")), record.get("seconds")
        try:
            amounts = cost.result(job.run, job.protocol) if job.protocol else cost.encoder(job.run)
        except InputError:  # a folder of images that is elsewhere: how many there are is not known here
            continue
        if seconds:
            line = lines.setdefault((job.stage, device), Spent(STAGES[job.stage], device))
            if device not in rates:
                rates[device] = _rates_on(results.runs, device)
            amounts.pop("start", None)
            kind = kind_of(job.run, job.protocol).precision
            coefficients, source = rates[device].of(job.run.backbone, job.run.image_size, kind, amounts)
            line.planned += dot(coefficients, amounts)
            line.took += float(seconds)
            line.jobs += 1
            line.sources.add(source)
    return [lines[key] for key in sorted(lines, key=lambda key: (list(STAGES).index(key[0]), key[1]))]


def _pretraining(runs: Path, job: Job) -> dict[str, Any]:
    try:
        return RunFolder(runs, job.run).encoder_record(verify=False) or {}
    except files.Broken:
        return {}


def _rates_on(runs: Path, device: str) -> cost.Rates:
    """What was calibrated on a device of this name, else guesses."""
    kind = "cpu" if device == "cpu" else cost.named(device)
    for path in sorted((runs / FOLDER).glob("*.json")):
        try:
            if (files.read_json(path, verify=False) or {}).get("device") == device:
                return cost.calibrated(runs, cost.Target(path.stem, kind))
        except InputError:
            continue
    return cost.Rates(cost.Target(kind=kind), [])
