"""How long things take on a device: as `simclic calibrate` measured it there, else a stated guess."""

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from simclic import files
from simclic.errors import InputError
from simclic.experiment import Run, cores
from simclic.provenance import provenance
from simclic.schedule.cost.work_amounts import Amounts

SCHEMA = 1
FOLDER = ".calibrated"  # under runs/

# Images per second in training ResNet-50 at 224 pixels in bf16, decoded images at hand: guesses, rounded from what is commonly
# reported for a device, to stand until something is measured.
PRIORS = {
    "h200": 2500, "h100": 2300, "a100": 1100, "l40": 900, "4090": 900, "a40": 500, "a10": 450, "3090": 500, "v100": 600,
    "t4": 180, "gpu": 600, "cpu": 1.5,
}  # fmt: skip
# The work of a pass relative to ResNet-50's.
RELATIVE = {"resnet18": 0.45, "resnet34": 0.9, "resnet50": 1.0, "resnet101": 1.9, "test_resnet": 0.04, "pixels": 0.0}
AS_PUBLISHED = 8e5 / 2048 / 5e10  # seconds per cell and feature: 100 iterations of four products, at 5e10 a second on a core
CONVERGED = {"cpu": 1.4e-10, "gpu": 1.4e-11}  # likewise; measured on two cores at SUN397's size, a tenth of it guessed on a GPU


@dataclass(frozen=True)
class Target:
    """Where jobs are to run. name: of its profile, or "here". kind: what a device is called, "cpu" or a key of PRIORS.

    gpus: whether it has any. atonce: how many jobs run at a time. share: processes that share a device. speed: images per
    second as the profile guesses them; 0 for PRIORS. together: one process does all that is left of a Run.
    """

    name: str = "here"
    kind: str = "cpu"
    jobs_at_once: int = 1
    processes_per_device: int = 1
    guessed_speed: float = 0.0
    one_process_per_run: bool = False

    @property
    def has_gpus(self) -> bool:
        """Does it compute on GPUs?"""
        return self.kind != "cpu"

    @property
    def unit(self) -> str:
        """What a device's hour is called."""
        return "GPU-h" if self.has_gpus else "core-h"

    @property
    def images_per_second(self) -> float:
        """How fast a device trains ResNet-50, by the profile's guess or by that of its kind."""
        return self.guessed_speed or PRIORS.get(self.kind, PRIORS["gpu"])

    def is_same_kind(self, device: str) -> bool:
        """Is a result that was computed on `device` one of this kind?"""
        if not self.has_gpus or device == "cpu":
            return self.has_gpus == (device != "cpu")
        return self.kind in ("gpu", gpu_kind(device))


def gpu_kind(device: str) -> str:
    """The kind of a GPU by what it is called: "NVIDIA A100-SXM4-80GB" is an a100; "gpu" if PRIORS has none such."""
    words = re.findall(r"[a-z]*\d+[a-z]*", device.lower())
    return next((kind for kind in PRIORS if kind in words or f"{kind}s" in words), "gpu")


def this_machine(share: int = 1) -> Target:
    """This machine: `share` processes on each GPU, or one per core."""
    folder = Path("/proc/driver/nvidia/gpus")
    gpus = sorted(folder.iterdir()) if folder.is_dir() else []
    if not gpus:
        return Target(jobs_at_once=cores(), one_process_per_run=True)
    model = re.search(r"^Model:.*", (gpus[0] / "information").read_text(), re.M) if (gpus[0] / "information").is_file() else None
    return Target(
        kind=gpu_kind(model[0] if model else ""),
        jobs_at_once=share * len(gpus),
        processes_per_device=share,
        one_process_per_run=True,
    )


class Price(NamedTuple):
    """Seconds of one process, and where that is from. besides: what of it no record will tell, starting and keeping features."""

    seconds: float
    source: str
    besides: float = 0.0


@dataclass(frozen=True)
class Rates:
    """What takes how long on one target. measured: by backbone, image size and precision, what was calibrated there. begin:
    seconds until the first process works."""

    target: Target
    measured: list[dict[str, Any]]
    begin: float = 5.0

    def price_amounts(self, run: Run, precision: str, amounts: Amounts) -> Price:
        """Return what amounts take: by what was calibrated at the nearest image size, and for the rest by guesses."""
        seconds, speed = self.guess_rates(run.backbone, run.image_size), self.target.images_per_second
        what = run.backbone if run.backbone in RELATIVE else f"{run.backbone} taken for resnet50"
        source = guess = f"guessed: {what} on {self.target.kind}, ResNet-50 at {speed:g} images/s"
        if near := [m for m in self.measured if (m["backbone"], m["precision"]) == (run.backbone, precision)]:
            nearest = min(near, key=lambda m: abs(math.log(m["image_size"] / run.image_size)))
            scale = (run.image_size / nearest["image_size"]) ** 2
            seconds |= {k: v * scale if k.endswith("image") else v for k, v in nearest["seconds"].items()}
            guessed = amounts.keys() - nearest["seconds"].keys()
            if guessed != amounts.keys() or not amounts:
                source = "calibrated" + ("" if scale == 1 else f" at {nearest['image_size']} pixels")
                source += f", in part {guess}" if guessed else ""
        return Price(sum(seconds[name] * amount for name, amount in amounts.items()), source)

    def guess_rates(self, backbone: str, size: int) -> dict[str, float]:
        """Return guesses of the seconds that each of the amounts takes."""
        known = RELATIVE.get(backbone, 1.0) * (size / 224) ** 2 / self.target.images_per_second
        known *= self.target.processes_per_device  # processes slow each other down
        width = 3 * size**2 if backbone == "pixels" else 2048
        return {
            "train.step": 32 * known, "train.image": known, "epoch": 0.2, "image": known / 3, "tune.step": 32 * known,
            "tune.image": known, "member": 0.2, "converged.value": 0.01, "as-published.value": 0.02,
            "converged.cell": CONVERGED["gpu" if self.target.has_gpus else "cpu"] * width,
            "as-published.cell": AS_PUBLISHED * width, "start": 8.0 if self.target.has_gpus else 0.5,
        }  # fmt: skip


def read_rates(runs: Path, target: Target) -> Rates:
    """What was measured on a target, if anything was. Raises Broken if the file cannot be trusted."""
    values = files.read_json(calibration_path(runs, target)) or {"rates": []}
    if values.get("schema", SCHEMA) != SCHEMA or not isinstance(values.get("rates"), list):
        raise InputError(f"{calibration_path(runs, target)}: written by another version; run: simclic calibrate")
    return Rates(target, values["rates"], float(values.get("begin", 5.0)))


def write_rates(runs: Path, target: Target, rates: list[dict[str, Any]], where: dict[str, Any]) -> Path:
    """Keep what was measured on a target; earlier measurements of other kinds stay. Returns the file."""
    path = calibration_path(runs, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    with suppress(InputError):  # a damaged calibration is written anew
        rates = read_rates(runs, target).measured + rates
    for rate in rates:
        kind = rate["backbone"], rate["image_size"], rate["precision"]
        merged[kind] = {**rate, "seconds": merged.get(kind, rate)["seconds"] | rate["seconds"]}
    values = {"schema": SCHEMA, "target": target.name, **where, "rates": list(merged.values())}
    files.write_json(path, values | provenance())
    return path


def calibration_path(runs: Path, target: Target) -> Path:
    """The file of a target's calibration."""
    return runs / FOLDER / f"{target.name}.json"
