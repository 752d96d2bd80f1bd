"""One result of a Run: computed under its claim, and why it failed recorded."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simclic import data
from simclic.errors import Diverged, InputError
from simclic.experiment import Finetune, Job, Knn, OnFeatures, Run
from simclic.progress import Tell
from simclic.schedule.load_images import SeenImages, load_whole_images
from simclic.store.claim import Busy
from simclic.store.result_file import Scored
from simclic.store.run_folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    from simclic.schedule.work import WorkerOptions


class Waits(InputError):
    """The encoder that this work needs is not there. That is not a failure of this work."""


def compute_result(job: Job, options: "WorkerOptions", f: Any, seen: SeenImages, tell: Tell) -> dict[str, Any]:
    """Return the record of a result, which is computed if it is missing. f: the encoder. Raise as `run_jobs`."""
    from simclic.evaluate.finetune import GridProgress, finetune
    from simclic.train.pretrain import describe_device

    run, protocol = job.run, job.protocol
    assert protocol
    folder = RunFolder(options.runs, run)
    with record_failures(folder, job.failure_name), _explain_memory(options, job), folder.claim_work(protocol) as check_claim:
        if record := folder.read_result(protocol):  # another process may have been faster
            return record
        dataset, images = seen.load_dataset(job), seen.prepare_images(job)
        if isinstance(protocol, Finetune):
            task, source = _prepare_finetuning(job, protocol, f, seen)
            unfinished = GridProgress(options.runs, run, protocol, source, check_claim)
            scored = finetune(task, unfinished, tell, _offer_helpers(job, options))
        else:
            unfinished, scored = None, _evaluate_features(protocol, run, f, dataset, images, options.runs, tell)
        check_claim()
        collapsed = (folder.encoder_record() or {}).get("collapsed", "")
        measured = {"data": dataset.digest, "seed": run.seed, "collapsed": collapsed, **describe_device(seen.device)}
        folder.write_result(protocol, scored, **measured)
        if unfinished:
            unfinished.delete_bundle()  # after a kill before this line, `simclic gc` deletes it
        return scored[0]


def _prepare_finetuning(job: Job, protocol: Finetune, f: Any, seen: SeenImages) -> tuple[Any, str]:
    """Return what all members of a grid share, and what identifies its data and weights."""
    from simclic.evaluate.finetune import FinetuneTask

    dataset, images, run = seen.load_dataset(job), seen.prepare_images(job), job.run
    whole = load_whole_images(job, protocol, dataset, images, seen.options)
    encoder = RunFolder(seen.options.runs, run).encoder_record() or {}
    task = FinetuneTask(protocol, f, dataset, whole, run.seed, seen.options.compute)
    return task, f"{dataset.digest} {encoder.get('backbone_sha256')}"


def _offer_helpers(job: Job, options: "WorkerOptions") -> Any:
    """Return the processes that can train parts of the grid of a job, or None."""
    from simclic.evaluate.finetune.parts import Helpers

    start = options.start_helpers
    return Helpers(options.helpers, lambda port: start(port, job)) if start and options.helpers else None


def help_finetune(job: Job, options: "WorkerOptions", place: tuple[int, str, int]) -> None:
    """Train a part of the fine-tuning grid of a job. place: as for `train_rank`."""
    import torch

    from simclic.evaluate.finetune import GridProgress, train_part
    from simclic.train.pretrain import read_encoder

    assert isinstance(job.protocol, Finetune)
    device = torch.device(options.device)
    f = read_encoder(RunFolder(options.runs, job.run), job.run, device)
    task, source = _prepare_finetuning(job, job.protocol, f, SeenImages(options, device))
    train_part(task, GridProgress(options.runs, job.run, job.protocol, source, part=place[0]), place)


def _evaluate_features(
    protocol: OnFeatures, run: Run, f: Any, dataset: data.Dataset, images: Any, runs: "Path", tell: Tell
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


@contextlib.contextmanager
def record_failures(folder: RunFolder, stage: str) -> Iterator[None]:
    """Delete the recorded failure of a stage. If the stage fails again, record the reason."""
    folder.forget_failure(stage)
    try:
        yield
    except (Busy, Waits):
        raise  # not a failure of this stage
    except (InputError, Diverged) as e:
        folder.record_failure(stage, e)
        raise


@contextlib.contextmanager
def _explain_memory(options: "WorkerOptions", job: Job) -> Iterator[None]:
    """Raise InputError if memory runs out for a result."""
    from simclic.train.numerics import is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as e:
        if not is_out_of_memory(e):
            raise
        what = f"{job.protocol.title.lower() if job.protocol else job.stage} on {data.title(job.dataset)}"
        raise InputError(f"{options.device} has not enough memory for {what}; use a larger one, or fewer processes on it") from e
