"""Measure how long work takes on a device: the real stages, shortened, on scikit-learn's digits at the size of a Run."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from simclic import data
from simclic.experiment import Finetune, Job, Knn, Linear, Run
from simclic.progress import Tell
from simclic.schedule.cost.prices import kind_of
from simclic.schedule.state import State
from simclic.store.run_folder import RunFolder

MEASURED_SECONDS = 1.5  # that one measurement should last
JUDGED_IMAGES = 100  # on which a member is evaluated
MAX_SETTINGS = 8  # members of a grid that are measured; each further one costs the same


@dataclass(frozen=True)
class Workload:
    """What to measure of one backbone at one image size and precision.

    run: an example. batches: sizes in pre-training. grid: of fine-tuning. solvers: of linear evaluation.
    neighbours: whether kNN is measured.
    """

    run: Run
    precision: str
    batches: tuple[int, ...] = ()
    grid: Finetune | None = None
    solvers: tuple[str, ...] = ()
    neighbours: bool = False


def list_workloads(jobs: Iterable[Job | State]) -> list[Workload]:
    """Return the kinds of work in these jobs, each once."""
    groups: dict[tuple[str, int, str], list[Job | State]] = {}
    for job in jobs:
        groups.setdefault((job.run.network, job.run.image_size, kind_of(job.run, job.protocol).precision), []).append(job)
    kinds = []
    for (_, _, precision), group in groups.items():
        trained = [job.run for job in group if job.protocol is None and job.run.epochs]
        grid = next((job.protocol for job in group if isinstance(job.protocol, Finetune)), None)
        solvers = dict.fromkeys(job.protocol.solver for job in group if isinstance(job.protocol, Linear))
        batches = tuple(sorted({run.batch_size for run in trained}))
        neighbours = any(isinstance(job.protocol, Knn) for job in group)
        kinds.append(Workload((trained or [group[0].run])[0], precision, batches, grid, tuple(solvers), neighbours))
    return [kind for kind in kinds if kind.batches or kind.grid or kind.solvers or kind.neighbours]


def measure_workloads(workloads: Sequence[Workload], device: str, folder: Path, tell: Tell) -> list[dict[str, Any]]:
    """Return the rates of each workload, in seconds. device: as torch names it. folder: for temporary run folders."""

    def tell_part(i: int, share: float, what: str) -> None:
        run, precision = workloads[i].run, workloads[i].precision
        tell((i + share) / len(workloads), f"{run.network} at {run.image_size} pixels, {precision}: {what}")

    return [
        _Benchmark(workload, device, folder / str(i)).measure_rates(partial(tell_part, i)) for i, workload in enumerate(workloads)
    ]


def choose_step(batch: int, ranks: int, seconds: Mapping[str, float]) -> tuple[int, int]:
    """Return the images of a step, a multiple of `ranks`, and the number of steps by which to measure it.

    batch: of the pre-training; a slow one, or one larger than the digits allow, is measured in part.
    seconds: of a step and of an image in it, on one device.
    """
    fit = len(data.load("digits", "ericsson", Path()).splits.fit)
    size, each = min(batch, fit // 3), max(1e-6, seconds["train.step"] / batch + seconds["train.image"])
    while size > 2 * ranks and size * each > MEASURED_SECONDS:
        size //= 2
    size = max(ranks, size - size % ranks)
    return size, max(1, min(fit // (3 * size), int(MEASURED_SECONDS / (2 * size * each))))


def time_step(workload: Workload, device: str, folder: Path, size: int, steps: int) -> float:
    """Return the seconds of a step with `size` images, of a pre-training on the ranks that this process is one of."""
    benchmark = _Benchmark(workload, device, folder)
    benchmark.time_pretraining(size, 1, 1)  # the first time is slower
    short = benchmark.time_pretraining(size, steps, 1)
    return max(1e-6, (benchmark.time_pretraining(size, 3 * steps, 1) - short) / (2 * steps))


class _Benchmark:
    """The measurements of one workload on one device."""

    def __init__(self, workload: Workload, device: str, folder: Path) -> None:
        import torch

        from simclic.methods.backbones import build_backbone

        self.workload, self.device, self.folder, self.count = workload, torch.device(device), folder, 0
        self.digits = data.load("digits", "ericsson", Path())
        # SimCLIC has one pass of each image, and what is measured is the price of a pass.
        (self.run,) = workload.run.moved(
            method="simclic", dataset="digits", split="ericsson", difficult="negative", init="random"
        )
        self.f = build_backbone(self.run).to(self.device).eval().requires_grad_(False)

    def measure_rates(self, tell: Callable[[float, str], None]) -> dict[str, Any]:
        """Return all rates of the workload. A pass over the images is always measured: the others need it."""
        tell(0.0, "features")
        image, x = self.measure_pass()
        seconds = {"image": image}
        if self.workload.batches:
            tell(0.2, "pre-training")
            seconds |= self.measure_pretraining()
        if self.workload.grid:
            tell(0.5, "fine-tuning")
            seconds |= self.measure_finetuning(self.workload.grid, image)
        for i, solver in enumerate(self.workload.solvers):
            tell(0.8 + 0.1 * i, f"linear evaluation, {solver}")
            seconds |= self.measure_probe(solver, x)
        if self.workload.neighbours:
            seconds |= self.measure_neighbours(x)
        kind = {"backbone": self.run.network, "image_size": self.run.image_size, "precision": self.workload.precision}
        return kind | {"seconds": seconds, "width": x.shape[1]}

    def measure_pass(self) -> tuple[float, Any]:
        """Return the seconds per image of a forward pass, and features of all digits, made up if slow."""
        import torch

        from simclic.evaluate.linear import frozen

        every, protocol = len(self.digits.images), Linear(features=self.workload.precision)

        def extract_timed(count: int) -> tuple[float, Any]:
            few = replace(self.digits, images=self.digits.images[:count])
            started = time.monotonic()
            x = frozen.extract_features(protocol, self.f, self._make_images(few)).float().cpu()  # so that the device has done it
            return time.monotonic() - started, x.to(self.device)

        count, (took, x) = 32, extract_timed(32)
        while count < every and took < MEASURED_SECONDS:
            count = min(every, max(2 * count, int(count * MEASURED_SECONDS / max(took, 1e-3))))
            took, x = extract_timed(count)
        if count < every:  # the same classes, as far apart
            labels = torch.from_numpy(self.digits.labels)
            means = torch.stack([x[labels[:count] == k].mean(dim=0) for k in range(10)])
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(every, x.shape[1], generator=generator).to(x.device) * x.std(dim=0)
            x = means[labels] + noise
        return took / count, x

    def measure_pretraining(self) -> dict[str, float]:
        """Return the seconds of a step, of an image in it and of the end of an epoch, from short pre-trainings."""
        small, large = self.workload.batches[0], self.workload.batches[-1]
        step, epoch = self.time_step_and_epoch(large)
        if small == large:
            each = step / (large + 32)
            return {"train.step": 32 * each, "train.image": each, "epoch": epoch}
        each = min(max(0.0, (step - self.time_step_and_epoch(small)[0]) / (large - small)), step / large)
        return {"train.step": max(0.0, step - each * large), "train.image": each, "epoch": epoch}

    def time_step_and_epoch(self, size: int) -> tuple[float, float]:
        """Return the seconds of a step with `size` images and of the end of an epoch; a slow batch is measured in part."""
        pilot = min(size, 8)
        self.time_pretraining(pilot, 1, 1)
        scale, took = size, self.time_pretraining(pilot, 2, 1) / 2 / pilot  # of an image
        while scale > pilot and scale * took > 4 * MEASURED_SECONDS:
            scale //= 2
        fit = len(self.digits.splits.fit)
        count = max(1, min(fit // (3 * scale), int(MEASURED_SECONDS / max(scale * took, 1e-4) / 3)))
        if 3 * scale > fit:
            scale, count = fit // 3, 1
        short = self.time_pretraining(scale, count, 1)
        step = max(1e-6, (self.time_pretraining(scale, 3 * count, 1) - short) / (2 * count))
        epoch = max(0.0, (self.time_pretraining(scale, count, 3) - short - 2 * count * step) / 2)
        return step * size / scale, epoch

    def time_pretraining(self, size: int, steps: int, epochs: int) -> float:
        """Return the seconds that a pre-training takes."""
        from simclic.train.pretrain import train

        run = replace(self.run, batch_size=size, epochs=epochs, base_lr=1e-3)
        fit = self.digits.splits.fit[: size * steps]
        few = replace(self.digits, splits=replace(self.digits.splits, train=fit, val=fit[:0]))
        _, record = train(run, few, self._make_images(few), self._run_folder(run), lambda share, note: None)
        return float(record["seconds"])

    def measure_finetuning(self, protocol: Finetune, image: float) -> dict[str, float]:
        """Return the seconds of a step of a member and what else a member takes; slow batches and grids are cut."""
        single = replace(protocol, lr_count=1, decay_count=0, batch_size=8)  # and its refit
        self.time_grid(single, 1)
        short, long = self.time_grid(single, 1), self.time_grid(single, 9)
        pilot = max(1e-6, (long - short) / 8 / 2 / 8)  # seconds of an image
        size, grid = protocol.batch_size, protocol
        if len(protocol.settings) > MAX_SETTINGS:
            grid = replace(protocol, lr_count=2, decay_count=MAX_SETTINGS // 2 - 1)
        while size > 8 and 4 * (len(grid.settings) + 1) * size * pilot > 8 * MEASURED_SECONDS:
            size, grid = size // 2, replace(grid, lr_count=1, decay_count=min(grid.decay_count, 1))
        grid = replace(grid, batch_size=size)
        members, few = len(grid.settings) + 1, 1
        short = self.time_grid(grid, few)
        many = few + max(2, min(30, int(MEASURED_SECONDS / max(members * size * pilot, 1e-4))))
        took = self.time_grid(grid, many)
        step = max(1e-7, (took - short) / (many - few) / members)
        member = max(0.0, (took - members * JUDGED_IMAGES * image) / members - many * step)
        return {"tune.step": 0.0, "tune.image": step / size, "member": member}

    def time_grid(self, protocol: Finetune, steps: int) -> float:
        """Return the seconds that a grid takes with few validation and test images."""
        from simclic.evaluate.finetune import FinetuneTask, GridProgress, finetune

        short = replace(protocol, steps=steps, lr_high=1e-3, lr_low=1e-4)
        splits = self.digits.splits
        few = replace(self.digits, splits=replace(splits, val=splits.val[:JUDGED_IMAGES], test=splits.test[:JUDGED_IMAGES]))
        images = self._make_images(few, short.resize_side(self.run.image_size))
        record, *_ = finetune(
            FinetuneTask(short, self.f, few, images, 0), GridProgress(self._run_folder(self.run).runs, self.run, short)
        )
        return float(record["seconds"])

    def measure_probe(self, solver: str, x: Any) -> dict[str, float]:
        """Return the seconds of a value of l2 and of each image x class, from probes on all images and on a third."""
        from simclic.evaluate.linear import linear_probe

        splits, times = self.digits.splits, list[tuple[float, float]]()
        protocol = Linear(solver=solver)
        for part in (3, 1):
            few = replace(splits, train=splits.train[::part], val=splits.val[::part])
            record, *_ = linear_probe(protocol, x, replace(self.digits, splits=few))
            times.append((float(record["seconds"]), float(len(few.fit))))
            if part > 1 and times[0][0] * part > 8 * MEASURED_SECONDS:
                break
        values, (took, count) = protocol.l2_count + 1, times[-1]
        cell = took / values / count / 10
        if len(times) > 1:
            cell = min(cell, max(0.0, (took - times[0][0]) / values / (count - times[0][1]) / 10))
        return {f"{solver}.value": took / values - cell * count * 10, f"{solver}.cell": cell}

    def measure_neighbours(self, x: Any) -> dict[str, float]:
        """Return the seconds of a pair of an image and one of its bank."""
        from simclic.evaluate.knn import evaluate_neighbours

        splits, pairs = self.digits.splits, 0
        for bank, queries in ((splits.train, splits.val), (splits.fit, splits.test)):
            pairs += len(bank) * len(queries)
        evaluate_neighbours(Knn(), x, self.digits)  # the first time is slower
        return {"pair": evaluate_neighbours(Knn(), x, self.digits)[0]["seconds"] / pairs}

    def _make_images(self, dataset: data.Dataset, side: int | None = None) -> Any:
        from simclic.data.images import Images

        return Images(dataset, self.run.image_size, self.device, side=side)

    def _run_folder(self, run: Run) -> RunFolder:
        """Return a new, empty run folder."""
        self.count += 1
        return RunFolder(self.folder / str(self.count), run).create_folder(self.digits.digest)
