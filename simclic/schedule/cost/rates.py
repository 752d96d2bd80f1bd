"""How long each piece of work takes on a device: as `simclic calibrate` measured it, else a stated guess."""

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from simclic import files
from simclic.errors import InputError
from simclic.experiment import DEFAULT_COMPUTE, Run, count_cores
from simclic.provenance import collect_provenance
from simclic.schedule.cost.work_amounts import Amounts

SCHEMA = 1
FOLDER = ".calibrated"  # under runs/

# Images per second in training ResNet-50 at 224 pixels in bf16 from decoded images: guesses until a device is calibrated, rounded
# from commonly reported numbers.
PRIORS = {
    "h200": 2500, "h100": 2300, "a100": 1100, "l40": 900, "4090": 900, "a40": 500, "a10": 450, "3090": 500, "v100": 600,
    "t4": 180, "gpu": 600, "cpu": 1.5,
}  # fmt: skip
# Work of a pass, relative to ResNet-50.
RELATIVE = {"resnet18": 0.45, "resnet34": 0.9, "resnet50": 1.0, "resnet101": 1.9, "test_resnet": 0.04, "pixels": 0.0}
AS_PUBLISHED = 8e5 / 2048 / 5e10  # seconds per cell and feature: 100 iterations of four products, at 5e10 a second on a core
CONVERGED = {
    "cpu": 1.4e-10,
    "gpu": 1.4e-11,
}  # likewise; measured on two cores at the size of SUN397; on a GPU a tenth of it, a guess
# Seconds per pair of images and feature, and per pair: a product of matrices, and the choice of the nearest.
PAIR = {"cpu": (4e-11, 5e-9), "gpu": (1e-13, 1e-10)}  # guesses of the order of magnitude


@dataclass(frozen=True)
class Target:
    """Where jobs are to run. name: of its profile, or "here". kind: what a device is called, "cpu" or a key of PRIORS.

    guessed_speed: images per second as the profile guesses them; 0 for PRIORS. one_process_per_run: whether one process does all
    that is left of a Run.
    ranks: devices that compute one pre-training together. grid_devices: that train parts of one fine-tuning grid side by side.
    decode, watch_on: as in ComputeOptions.
    """

    name: str = "here"
    kind: str = "cpu"
    jobs_at_once: int = 1
    processes_per_device: int = 1
    guessed_speed: float = 0.0
    one_process_per_run: bool = False
    ranks: int = 1
    grid_devices: int = 1
    decode: str = DEFAULT_COMPUTE.decode
    watch_on: str = DEFAULT_COMPUTE.watch_on

    @property
    def has_gpus(self) -> bool:
        """Return whether jobs compute on GPUs."""
        return self.kind != "cpu"

    @property
    def unit(self) -> str:
        """Return the unit of device time."""
        return "GPU-h" if self.has_gpus else "core-h"

    @property
    def images_per_second(self) -> float:
        """Return how fast a device trains ResNet-50, as the profile says or as guessed for its kind."""
        return self.guessed_speed or PRIORS.get(self.kind, PRIORS["gpu"])

    def is_same_kind(self, device: str) -> bool:
        """Return whether a device of this name is of the target's kind."""
        if not self.has_gpus or device == "cpu":
            return self.has_gpus == (device != "cpu")
        return self.kind in ("gpu", gpu_kind(device))


def guess_speedup(ranks: int) -> float:
    """Return how many times as fast `ranks` devices train as one: a guess, by which each doubling loses a tenth."""
    return float(ranks * 0.9 ** math.log2(ranks))


def gpu_kind(device: str) -> str:
    """Return the key of PRIORS for a GPU's name: "a100" for "NVIDIA A100-SXM4-80GB", "gpu" for an unknown one."""
    words = re.findall(r"[a-z]*\d+[a-z]*", device.lower())
    return next((kind for kind in PRIORS if kind in words or f"{kind}s" in words), "gpu")


def this_machine(share: int = 1) -> Target:
    """Return this machine as a target, with `share` processes on each GPU, or one per core."""
    folder = Path("/proc/driver/nvidia/gpus")
    gpus = sorted(folder.iterdir()) if folder.is_dir() else []
    if not gpus:
        return Target(jobs_at_once=count_cores(), one_process_per_run=True)
    model = re.search(r"^Model:.*", (gpus[0] / "information").read_text(), re.M) if (gpus[0] / "information").is_file() else None
    return Target(
        kind=gpu_kind(model[0] if model else ""),
        jobs_at_once=share * len(gpus),
        processes_per_device=share,
        one_process_per_run=True,
    )


class Price(NamedTuple):
    """Seconds from begin to end and their source. besides: the part that records leave out, for the start and for features.
    devices: that are in use, on average."""

    seconds: float
    source: str
    besides: float = 0.0
    devices: float = 1

    @property
    def device_seconds(self) -> float:
        """Return the seconds of all its devices."""
        return self.seconds * self.devices


@dataclass(frozen=True)
class Rates:
    """How long work takes on a target. measured: calibrated rates by backbone, image size and precision.

    begin: seconds until the first process works.
    """

    target: Target
    measured: list[dict[str, Any]]
    begin: float = 5.0

    def price_amounts(self, run: Run, precision: str, amounts: Amounts) -> Price:
        """Return the price of amounts of work: by calibration at the nearest image size, and for the rest by guesses."""
        seconds, speed = self.guess_rates(run), self.target.images_per_second
        what = run.backbone if run.backbone in RELATIVE else f"{run.backbone} taken for resnet50"
        source = guess = f"guessed: {what} on {self.target.kind}, ResNet-50 at {speed:g} images/s"
        if nearest := self._find_nearest(run, precision):
            scale = (run.image_size / nearest["image_size"]) ** 2
            seconds |= {k: v * scale if k.endswith("image") else v for k, v in nearest["seconds"].items()}
            guessed = amounts.keys() - nearest["seconds"].keys()
            if guessed != amounts.keys() or not amounts:
                source = "calibrated" + ("" if scale == 1 else f" at {nearest['image_size']} pixels")
                source += f", in part {guess}" if guessed else ""
        return Price(sum(seconds[name] * amount for name, amount in amounts.items()), source)

    def speed_up(self, run: Run, ranks: int) -> tuple[float, str]:
        """Return how many times as fast `ranks` devices pre-train as one, and by what: measured, or guessed from fewer ranks."""
        measured = {1: 1.0}
        if nearest := self._find_nearest(run, run.precision):
            measured |= {int(count): times for count, times in nearest.get("speedups", {}).items()}
        most = max(count for count in measured if count <= ranks)
        times = measured[most] * guess_speedup(ranks) / guess_speedup(most)
        word = "measured" if most == ranks else "guessed"
        basis = f", from {most} measured" if 1 < most < ranks else ""
        return times, f"{ranks} ranks {word} {times:.2g} times as fast{basis}"

    def _find_nearest(self, run: Run, precision: str) -> dict[str, Any] | None:
        """Return the calibration of a network and precision at the nearest image size."""
        near = [m for m in self.measured if (m["backbone"], m["precision"]) == (run.network, precision)]
        return min(near, key=lambda m: abs(math.log(m["image_size"] / run.image_size)), default=None)

    def guess_rates(self, run: Run) -> dict[str, float]:
        """Return a guess of the seconds that one of each amount takes. Behind the small stem an image is four times as wide."""
        size = 4 * run.image_size if run.stem == "small" else run.image_size
        known = RELATIVE.get(run.backbone, 1.0) * (size / 224) ** 2 / self.target.images_per_second
        known *= self.target.processes_per_device  # processes slow each other down
        width = 3 * size**2 if run.backbone == "pixels" else 2048
        product, nearest = PAIR["gpu" if self.target.has_gpus else "cpu"]
        return {
            "train.step": 32 * known, "train.image": known, "epoch": 0.2, "image": known / 3, "tune.step": 32 * known,
            "tune.image": known, "member": 0.2, "converged.value": 0.01, "as-published.value": 0.02,
            "converged.cell": CONVERGED["gpu" if self.target.has_gpus else "cpu"] * width,
            "as-published.cell": AS_PUBLISHED * width, "pair": product * width + nearest,
            "start": 8.0 if self.target.has_gpus else 0.5,
        }  # fmt: skip


def read_rates(runs: Path, target: Target) -> Rates:
    """Return the calibration of a target, if there is one. Raise Broken if its file is damaged."""
    values = files.read_json(calibration_path(runs, target)) or {"rates": []}
    if values.get("schema", SCHEMA) != SCHEMA or not isinstance(values.get("rates"), list):
        raise InputError(f"{calibration_path(runs, target)}: written by another version; run: simclic calibrate")
    return Rates(target, values["rates"], float(values.get("begin", 5.0)))


def write_rates(runs: Path, target: Target, rates: list[dict[str, Any]], where: dict[str, Any]) -> Path:
    """Add rates to the calibration of a target and return its file. Rates of other workloads stay."""
    path = calibration_path(runs, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    with suppress(InputError):  # a damaged calibration is replaced
        rates = read_rates(runs, target).measured + rates
    for rate in rates:
        kind = rate["backbone"], rate["image_size"], rate["precision"]
        merged[kind] = {**merged.get(kind, {}), **rate, "seconds": merged.get(kind, rate)["seconds"] | rate["seconds"]}
    values = {"schema": SCHEMA, "target": target.name, **where, "rates": list(merged.values())}
    files.write_json(path, values | collect_provenance())
    return path


def calibration_path(runs: Path, target: Target) -> Path:
    """Return the path of a target's calibration."""
    return runs / FOLDER / f"{target.name}.json"
