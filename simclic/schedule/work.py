"""The work of one worker: all missing results of one Run, for `simclic run`, local launches and Slurm tasks alike."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from simclic import data, stop
from simclic.data.dataset import BICUBIC
from simclic.errors import Diverged, InputError
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions, Finetune, Job, Knn, OnFeatures, Run
from simclic.progress import Tell, show_progress
from simclic.schedule.cost import guess_seconds
from simclic.store.claim import Busy
from simclic.store.result_file import Scored
from simclic.store.run_folder import RunFolder
from simclic.text import terminal_safe


class Waits(InputError):
    """The encoder that this work needs is not there. That is not a failure of this work."""


@dataclass(frozen=True)
class WorkerOptions:
    """Where and how workers do their jobs. data: folder of the data sets. trains: train missing encoders; otherwise another
    process does. device, threads: of one worker. folder: the folder that paths of data sets are relative to. start_ranks: starts
    the other ranks of a pre-training (see simclic.train.pretrain). tasks: of a Slurm job, which have equal parts of its ranks."""

    runs: Path
    data: Path
    compute: ComputeOptions = DEFAULT_COMPUTE
    trains: bool = True
    device: str = "cpu"
    threads: int = 1
    folder: str = "."
    start_ranks: Callable[[int], bool] | None = None
    tasks: int = 1

    def count_local_ranks(self, jobs: Sequence[Job]) -> int:
        """Return how many processes of this machine the work on one Run begins with."""
        run = jobs[0].run
        trains = self.trains and run.epochs and not RunFolder(self.runs, run).has_encoder()
        return self.compute.ranks // self.tasks if trains else 1


def group_by_run(jobs: Iterable[Job]) -> list[list[Job]]:
    """Return the jobs in groups, one for each Run. One worker does a group, encoder first."""
    groups: dict[Run, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.run, []).append(job)
    return list(groups.values())


def price_jobs(jobs: Sequence[Job]) -> dict[Job, float]:
    """Return guessed seconds of the encoder and results of one Run, in the order of work. Only their ratios matter."""
    return {job: guess_seconds(job.run, job.protocol) for job in (jobs[0].encoder, *(job for job in jobs if job.protocol))}


def run_jobs(jobs: Sequence[Job], options: WorkerOptions, tell: Tell, prices: Mapping[Job, float]) -> dict[str, float]:
    """Run the missing jobs of one Run: its encoder, then each result. Return the error (percent) under each protocol.

    prices: from `price_jobs`, for the progress. Raise InputError or Diverged after recording the reason in the Run's folder,
    Busy if another process does the work, and Waits if the encoder is missing and is not trained here.
    """
    import torch

    from simclic.evaluate.finetune import FinetuneTask, GridProgress, finetune
    from simclic.train.pretrain import describe_device, pretrain, read_encoder

    run, results = jobs[0].run, [job for job in jobs if job.protocol]
    prices = dict(prices) if options.trains else {**prices, jobs[0].encoder: 0.0}
    folder, device = RunFolder(options.runs, run), torch.device(options.device)
    errors, seen = dict[str, float](), _SeenImages(options, device)
    with _record_failures(folder, "pretrain" if options.trains else jobs[0].failure_name):
        if folder.encoder_record() is None or any(job.dataset == run.dataset for job in results):
            dataset = seen.load_dataset(jobs[0].encoder)
            folder.create_folder(dataset.digest)
            if not options.trains and folder.encoder_record() is None:  # Slurm does not remember dependencies for ever
                why = folder.why_no_encoder()
                raise Waits(f"{run.name}: waits for its pre-training ({why}); run: simclic status --retry-failed EXHIBIT")
            share, watched = _share_of_job(tell, jobs[0].encoder, prices), None
            if options.compute.watch_on and run.epochs and folder.encoder_record() is None:
                watched = _load_data(Job(run, Knn(on=options.compute.watch_on)), options)
            f = pretrain(run, dataset, options.runs, device, share, options.compute, watched, options.start_ranks)
            del dataset, watched
        else:  # its own images need not be here any more
            folder.check_run_json()
            f = read_encoder(folder, run, device)
    encoder = folder.encoder_record() or {}
    for job in results:
        protocol = job.protocol
        assert protocol
        stop.raise_if_stopped()
        with _record_failures(folder, job.failure_name), folder.claim_work(protocol) as still_ours:
            record = folder.read_result(protocol)  # another process may have been faster
            if record is None:
                part = _share_of_job(tell, job, prices)
                dataset, images = seen.load_dataset(job), seen.prepare_images(job)
                if isinstance(protocol, Finetune):
                    whole = _load_whole_images(job, protocol, dataset, images, options)
                    source = f"{dataset.digest} {encoder.get('backbone_sha256')}"
                    unfinished = GridProgress(options.runs, run, protocol, source, still_ours)
                    scored = finetune(FinetuneTask(protocol, f, dataset, whole, run.seed, options.compute), unfinished, part)
                else:
                    unfinished, scored = None, _evaluate_features(protocol, run, f, dataset, images, options.runs, part)
                measured = {
                    "data": dataset.digest,
                    "seed": run.seed,
                    "collapsed": encoder.get("collapsed", ""),
                    **describe_device(device),
                }
                still_ours()
                folder.write_result(protocol, scored, **measured)
                if unfinished:
                    unfinished.delete_bundle()  # after a kill before this line, `simclic gc` deletes it
                record = scored[0]
            errors[f"{protocol.title.lower()}{protocol.on and f', on {data.title(protocol.on)}'}"] = record["error"]
    return errors


def train_rank(run: Run, options: WorkerOptions, place: tuple[int, str, int]) -> None:
    """Compute a part of the pre-training of a Run that rank 0 leads. place: the own rank, and host and port of rank 0's store."""
    import torch

    from simclic.train.pretrain import train_as_rank

    def load_dataset() -> data.Dataset:
        return _load_data(Job(run), options)

    train_as_rank(run, load_dataset, options.runs, torch.device(options.device), options.compute, place)


def _evaluate_features(
    protocol: OnFeatures, run: Run, f: Any, dataset: data.Dataset, images: Any, runs: Path, tell: Tell
) -> Scored:
    from simclic.evaluate.knn import check_bank, evaluate_neighbours
    from simclic.evaluate.linear import frozen_features, linear_probe

    if isinstance(protocol, Knn):
        check_bank(protocol, len(dataset.splits.train))
    x = frozen_features(protocol, run, f, images, runs, lambda share, note: tell(share / 2, note), dataset.digest)

    def tell_second(share: float, note: str) -> None:
        tell((1 + share) / 2, note)

    if isinstance(protocol, Knn):
        return evaluate_neighbours(protocol, x, dataset, tell_second)
    return linear_probe(protocol, x, dataset, tell_second)


class _SeenImages:
    """The images that a job saw last, which the next one probably needs too."""

    def __init__(self, options: WorkerOptions, device: Any):
        self.options, self.device = options, device
        self.datasets, self.prepared = dict[Any, data.Dataset](), dict[Any, Any]()

    def load_dataset(self, job: Job) -> data.Dataset:
        """Return the data set that a job sees."""
        key = job.evaluated, job.image_sides[0]
        if key not in self.datasets:
            self.datasets.clear()  # before the next one fills the memory, too
            self.prepared.clear()
            self.datasets[key] = _load_data(job, self.options)
        return self.datasets[key]

    def prepare_images(self, job: Job) -> Any:
        """Return the images of that data set as the encoder takes them."""
        from simclic.train.pretrain import prepare_images

        dataset, key = self.load_dataset(job), (job.evaluated, job.image_sides[0])
        if key not in self.prepared:
            self.prepared[key] = prepare_images(job.run, dataset, self.options.runs, self.device)
        return self.prepared[key]


def _load_data(job: Job, options: WorkerOptions, at: int = 0) -> data.Dataset:
    """Return the data set that a job sees. at: which of its image_sides."""
    see, (size, whole) = job.evaluated, job.image_sides[at]
    return data.load(
        see.dataset, see.split, options.data, size, see.difficult, interpolation=_read_interpolation(job.run, options.runs),
        decode=options.compute.decode, whole=whole,
    )  # fmt: skip


def _read_interpolation(run: Run, runs: Path) -> str:
    """Return by which interpolation the Run's images are resized: as the weights that it starts from expect."""
    if run.init == "random":
        return BICUBIC  # without torch
    from simclic.train.pretrain import expected_input

    expected = expected_input(run, runs)
    return expected.interpolation if expected else BICUBIC


def _load_whole_images(job: Job, protocol: Finetune, dataset: data.Dataset, images: Any, options: WorkerOptions) -> Any:
    """Return the images for fine-tuning: `images`, or others if the protocol resizes to a larger side first."""
    from simclic.train.pretrain import prepare_images

    run, side = job.run, protocol.resize_side(job.run.image_size)
    if side == run.image_size:
        return images
    if dataset.files:
        dataset = _load_data(job, options, at=1)
    return prepare_images(run, dataset, options.runs, images.device, side)


@contextlib.contextmanager
def _record_failures(folder: RunFolder, stage: str) -> Iterator[None]:
    """Delete the recorded failure of a stage. If the stage fails again, record the reason."""
    folder.forget_failure(stage)
    try:
        yield
    except (Busy, Waits):
        raise  # not a failure of this stage
    except (InputError, Diverged) as e:
        folder.record_failure(stage, e)
        raise


def open_stage(jobs: Sequence[Job], runs: Path) -> str:
    """Return the failure_name of the first unfinished job of one Run."""
    folder = RunFolder(runs, jobs[0].run)
    if not folder.has_encoder():
        return "pretrain"
    return next((job.failure_name for job in jobs if job.protocol and not folder.has_result(job.protocol)), "pretrain")


def fail_jobs(jobs: Sequence[Job], runs: Path, why: str) -> None:
    """Record why jobs of one Run were not finished, as a failure of the first of them."""
    RunFolder(runs, jobs[0].run).record_failure(open_stage(jobs, runs), why)


def decode_data(
    groups: list[list[Job]], options: WorkerOptions, console: Console, failures: dict[str, str], is_stopped: Callable[[], bool]
) -> list[list[Job]]:
    """Decode each data set once, on all cores, before many processes need it. Return the groups whose data could be read.

    Raise Stopped when `is_stopped` returns true.
    """

    problems: dict[tuple[str, str, int, bool, str], str] = {}
    remarks: dict[str, None] = {}

    def load_once(name: str, split: str, size: int, whole: bool, interpolation: str) -> str:
        """Return what is wrong with the images of a data set; "" if nothing is."""
        key = name, split, size, whole, interpolation
        if key not in problems:
            problems[key] = ""
            try:
                with show_progress(console) as show:

                    def tell(share: float, note: str) -> None:
                        if is_stopped():
                            raise stop.Stopped
                        show(share, note)

                    dataset = data.load(
                        name, split, options.data, size, tell=tell, interpolation=interpolation, decode=options.compute.decode,
                        whole=whole,
                    )  # fmt: skip
                remarks.update(dict.fromkeys(dataset.remarks))
            except InputError as e:
                first, *more = str(e).splitlines()
                problems[key] = first + (f" (and {len(more):,} more: simclic data check {name})" if more else "")
        return problems[key]

    whole = []
    for jobs in groups:
        run, interpolation = jobs[0].run, BICUBIC
        with contextlib.suppress(InputError):  # whoever reads the weights says what is wrong with them
            interpolation = _read_interpolation(run, options.runs)
        is_trained = RunFolder(options.runs, run).has_encoder()
        wrong = {}
        for job in (job for job in (jobs[0].encoder, *jobs) if job.protocol or not is_trained):
            if why := next(filter(None, (load_once(job.dataset, run.split, *see, interpolation) for see in job.image_sides)), ""):
                wrong[job] = why
        for job, why in wrong.items():
            fail_jobs([job], options.runs, why)
            failures[run.name] = why
        if jobs[0].encoder not in wrong and (good := [job for job in jobs if job not in wrong]):
            whole.append(good)
    for remark in remarks:
        console.print(terminal_safe(f"note: {remark}"), highlight=False, markup=False, soft_wrap=True)
    return whole


def _share_of_job(tell: Tell, job: Job, prices: Mapping[Job, float]) -> Callable[[float, str], None]:
    """Return a function that reports the progress of one job as progress of its whole Run."""
    total, jobs = sum(prices.values()) or 1.0, list(prices)
    before = sum(prices[earlier] for earlier in jobs[: jobs.index(job)])
    return lambda share, note: tell((before + share * prices[job]) / total, note)
