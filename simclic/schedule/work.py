"""The work of one worker: all missing results of one Run, for `simclic run`, local launches and Slurm tasks alike."""

import contextlib
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from simclic import data, stop
from simclic.data.dataset import BICUBIC
from simclic.errors import Diverged, InputError
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions, Finetune, Job, Knn, Run
from simclic.progress import Tell, show_progress
from simclic.schedule.cost import guess_seconds
from simclic.schedule.load_images import SeenImages, load_data, read_interpolation
from simclic.schedule.one_result import Waits, compute_result, record_failures
from simclic.store.claim import Busy
from simclic.store.run_folder import RunFolder
from simclic.text import format_data_command, terminal_safe


@dataclass(frozen=True)
class WorkerOptions:
    """Where and how workers do their jobs. data: folder of the data sets. trains: train missing encoders; otherwise another
    process does. device, threads: of one worker. folder: the folder that paths of data sets are relative to. start_ranks: starts
    the other ranks of a pre-training (see simclic.train.pretrain). tasks: of a Slurm job, which have equal parts of its ranks.
    helpers: further processes that can train parts of a grid. start_helpers: starts them, given the port of the store."""

    runs: Path
    data: Path
    compute: ComputeOptions = DEFAULT_COMPUTE
    trains: bool = True
    device: str = "cpu"
    threads: int = 1
    folder: str = "."
    start_ranks: Callable[[int], None] | None = None
    tasks: int = 1
    helpers: int = 0
    start_helpers: Callable[[int, Job], None] | None = None

    def count_local_ranks(self, jobs: Sequence[Job]) -> int:
        """Return how many processes of this machine the work on one Run begins with."""
        run = jobs[0].run
        trains = self.trains and run.epochs and not RunFolder(self.runs, run).has_encoder()
        return self.compute.ranks // self.tasks if trains else 1

    def count_devices(self, jobs: Sequence[Job], spare: int) -> int:
        """Return how many devices the work on one Run uses at most. spare: as many as each Run can have."""
        count = self.count_local_ranks(jobs)
        return max(count, min(self.compute.ranks, spare)) if self.tasks == 1 and tunes(jobs) else count


def group_by_run(jobs: Iterable[Job]) -> list[list[Job]]:
    """Return the jobs in groups, one for each Run. One worker does a group, encoder first."""
    groups: dict[Run, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.run, []).append(job)
    return list(groups.values())


def tunes(jobs: Iterable[Job]) -> bool:
    """Return whether any of these jobs is a fine-tuning grid, of which several processes can train parts."""
    return any(isinstance(job.protocol, Finetune) for job in jobs)


def price_jobs(jobs: Sequence[Job], runs: Path) -> dict[Job, float]:
    """Return guessed seconds of the encoder and results of one Run, in the order of work. Only their ratios matter.

    An encoder that is done costs nothing; its images may be gone.
    """
    encoder = jobs[0].encoder
    first = 0.0 if RunFolder(runs, encoder.run).has_encoder() else guess_seconds(encoder.run, None)
    return {encoder: first} | {job: guess_seconds(job.run, job.protocol) for job in jobs if job.protocol}


def run_jobs(jobs: Sequence[Job], options: WorkerOptions, tell: Tell, prices: Mapping[Job, float]) -> dict[str, float]:
    """Run the missing jobs of one Run: its encoder, then each result. Return the error (percent) under each protocol.

    prices: from `price_jobs`, for the progress. Raise InputError or Diverged after recording the reason in the Run's folder, for
    a result once the others are done; Busy if another process does the work; Waits if the encoder is missing and not trained
    here.
    """
    import torch

    from simclic.train.pretrain import OtherRanks, pretrain, read_encoder

    run, results = jobs[0].run, [job for job in jobs if job.protocol]
    prices = dict(prices) if options.trains else {**prices, jobs[0].encoder: 0.0}
    folder, device = RunFolder(options.runs, run), torch.device(options.device)
    errors, seen = dict[str, float](), SeenImages(options, device)
    with record_failures(folder, "pretrain" if options.trains else jobs[0].failure_name):
        if folder.encoder_record() is None or any(job.dataset == run.dataset for job in results):
            dataset = seen.load_dataset(jobs[0].encoder)
            folder.create_folder(dataset.digest)
            if not options.trains and folder.encoder_record() is None:  # Slurm does not remember dependencies for ever
                why = folder.why_no_encoder()
                raise Waits(f"{run.name}: waits for its pre-training ({why}); run: simclic status --retry-failed EXHIBIT")
            share, watched = _share_of_job(tell, jobs[0].encoder, prices), None
            if options.compute.watch_on and run.epochs and folder.encoder_record() is None:
                try:
                    watched = load_data(Job(run, Knn(on=options.compute.watch_on)), options)
                except InputError as e:
                    raise InputError(f"watch_on={options.compute.watch_on!r}: {e}") from e
            others = OtherRanks(options.tasks == 1, options.start_ranks) if options.start_ranks else None
            f = pretrain(run, dataset, options.runs, device, share, options.compute, watched, others)
            del dataset, watched
        else:  # its own images need not be here any more
            folder.check_run_json()
            f = read_encoder(folder, run, device)
    failed: InputError | Diverged | None = None
    for job in results:
        stop.raise_if_stopped()
        try:
            record = compute_result(job, options, f, seen, _share_of_job(tell, job, prices))
        except (Busy, Waits):
            raise
        except (InputError, Diverged) as e:  # the others need not wait for this one
            failed = failed or type(e)(*e.args)  # without its traceback, which holds tensors
            gc.collect()
            continue
        protocol = job.protocol
        assert protocol
        errors[f"{protocol.title.lower()}{protocol.on and f', on {data.title(protocol.on)}'}"] = record["error"]
    if failed:
        raise failed
    return errors


def train_rank(run: Run, options: WorkerOptions, place: tuple[int, str, int]) -> None:
    """Compute a part of the pre-training of a Run that rank 0 leads. place: the own rank, and host and port of rank 0's store."""
    import torch

    from simclic.train.pretrain import train_as_rank

    def load_dataset() -> data.Dataset:
        return load_data(Job(run), options)

    train_as_rank(run, load_dataset, options.runs, torch.device(options.device), options.compute, place)


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
                check = format_data_command("check", name, options.data)
                problems[key] = first + (f" (and {len(more):,} more: {check})" if more else "")
        return problems[key]

    whole = []
    for jobs in groups:
        run, interpolation = jobs[0].run, BICUBIC
        with contextlib.suppress(InputError):  # whoever reads the weights says what is wrong with them
            interpolation = read_interpolation(run, options.runs)
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
