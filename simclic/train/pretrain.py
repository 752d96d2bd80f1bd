"""The encoder of a Run: read, or trained with Algorithm 1, or, for the controls, built without training."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simclic import data, files, ranks, slurm
from simclic.data import Dataset
from simclic.data.dataset import BICUBIC
from simclic.data.images import Images, seeded_generator
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions, Run
from simclic.files import Broken
from simclic.methods.backbones import build_backbone
from simclic.progress import Tell
from simclic.store.run_folder import RunFolder
from simclic.train.loop import train
from simclic.weights import card, init_weights
from simclic.weights import load as weights

__all__ = [
    "OtherRanks", "build_untrained", "describe_device", "prepare_images", "pretrain", "read_backbone", "read_encoder", "train",
    "train_as_rank",
]  # fmt: skip


@dataclass(frozen=True)
class OtherRanks:
    """The ranks beside the first. are_local: whether all are on this machine. start: starts them, given the port of the store."""

    are_local: bool
    start: Callable[[int], None]


def pretrain(
    run: Run,
    dataset: Dataset,
    runs: Path,
    device: torch.device,
    on_progress: Tell = lambda share, note: None,
    options: ComputeOptions = DEFAULT_COMPUTE,
    watched: Dataset | None = None,
    other_ranks: OtherRanks | None = None,
) -> nn.Module:
    """Return the trained backbone of a Run, frozen, in eval mode. It is trained if it is not there yet, on splits.fit.

    watched: another labelled data set on which the error of kNN is logged. other_ranks: that train it together with
    this one. Raises InputError for a backbone that is damaged or that timm does not know, Diverged if the loss is not finite,
    RankLost if another rank ended.
    """
    folder = RunFolder(runs, run).create_folder(dataset.digest)
    record = folder.encoder_record()
    if record is None:
        with folder.claim_work() as check_claim:
            record = folder.encoder_record()  # another process may have finished in between
            if record is None:
                folder.delete_unfinished()
                record = _make_encoder(run, dataset, folder, device, on_progress, check_claim, options, watched, other_ranks)
    return read_encoder(folder, run, device)  # even if it was just trained, so that results cannot depend on that


def read_encoder(folder: RunFolder, run: Run, device: torch.device) -> nn.Module:
    """Return the trained backbone of a Run, frozen, in eval mode. Raise InputError if it or what it started from has changed."""
    init_weights.check_init_unchanged(run.init, folder.encoder_record() or {}, folder.path)
    return read_backbone(folder, run).to(device).eval().requires_grad_(False)


def _make_encoder(
    run: Run,
    dataset: Dataset,
    folder: RunFolder,
    device: torch.device,
    on_progress: Tell,
    check_claim: Callable[[], None],
    options: ComputeOptions,
    watched: Dataset | None,
    other_ranks: OtherRanks | None,
) -> dict[str, Any]:
    """Train or build the encoder, write its weights and its record; return the record."""
    images, fit = prepare_images(run, dataset, folder.runs, device), torch.from_numpy(dataset.splits.fit)
    if run.epochs == 0:
        f, record = build_untrained(run, images, fit, folder.runs)
    else:
        beside = (watched, prepare_images(run, watched, folder.runs, device)) if watched else None
        with _lead_ranks(options.ranks, device, other_ranks):
            f, record = train(run, dataset, images, folder, on_progress, check_claim, options, beside)
    payload = weights.serialise_backbone(f)
    check_claim()
    return folder.write_encoder(
        payload, record | describe_device(device) | {"deterministic": options.deterministic, "watch_on": options.watch_on}
    )


@contextmanager
def _lead_ranks(count: int, device: torch.device, other_ranks: OtherRanks | None) -> Iterator[None]:
    """Be the first of `count` ranks, once the others are there, or the only one."""
    if count == 1 or other_ranks is None:
        yield
        return
    store = ranks.serve_store(other_ranks.are_local)
    other_ranks.start(store.port)
    with ranks.join(store, 0, count, device, other_ranks.are_local):
        yield


def train_as_rank(
    run: Run,
    load_dataset: Callable[[], Dataset],
    runs: Path,
    device: torch.device,
    options: ComputeOptions,
    place: tuple[int, str, int],
) -> None:
    """Train together with rank 0, which writes what is to be written. place: the own rank, and host and port of rank 0's store.

    Raise as `pretrain` does.
    """
    rank, host, port = place
    store, folder = ranks.reach_store(host, port), RunFolder(runs, run)
    with ranks.tell_failure(store, rank):
        dataset = load_dataset()
        folder.check_run_json(dataset.digest)
        images = prepare_images(run, dataset, runs, device)
        with ranks.join(store, rank, options.ranks, device, host == ranks.LOOPBACK):
            train(run, dataset, images, folder, lambda share, note: None, options=options)


def prepare_images(run: Run, dataset: Dataset, runs: Path, device: torch.device, side: int | None = None) -> Images:
    """Return the images as the Run's backbone expects them. side: pixels before the centre is cut out; None: image_size."""
    expected = expected_input(run, runs)
    return Images(dataset, run.image_size, device, side=side, normal=expected and expected[:2])


def expected_input(run: Run, runs: Path) -> weights.ExpectedInput | None:
    """Return the input that the Run's backbone expects; None if it is the data set's own.

    Raise Broken if an earlier version computed the Run with another input, and InputError if the file it starts from is gone.
    """
    record = RunFolder(runs, run).encoder_record()
    if record is None:
        return weights.read_expected_input(run.init, runs)
    normal, interpolation = record.get("normal"), record.get("interpolation", BICUBIC)  # the file itself may be gone by now
    if theirs := weights.describe_input(weights.timm_config(run.init)):
        mean, std = normal or data.mean_and_std(run.dataset)
        if weights.ExpectedInput(tuple(mean), tuple(std), interpolation) != theirs:
            raise Broken(
                f"{RunFolder(runs, run).path}: was computed by an earlier version with another mean, deviation or interpolation "
                f"of the input than {run.init} expects; move that folder away"
            )
    return weights.ExpectedInput(tuple(normal[0]), tuple(normal[1]), interpolation) if normal else None


def build_untrained(run: Run, images: Images, fit: Tensor, runs: Path = files.RUNS) -> tuple[nn.Module, dict[str, Any]]:
    """Return a backbone that is not trained here, and its record.

    With random weights its batch norms are calibrated on the training images, otherwise the control would be unfairly weak.
    Weights that were trained elsewhere stay as they are. fit: (n,) indices into images. runs: the folder of imported weights.
    """
    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        f = build_backbone(run)
    init = weights.load_init(run.init, run.backbone, f, runs) if run.init != "random" else {}
    f = f.to(images.device).train()
    norms = [] if init else [m for m in f.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average over all batches, not the last few
    order = torch.randperm(len(fit), generator=seeded_generator("cpu", run.seed, "calibrate"))
    with torch.no_grad():
        for index in fit[order].split(128) if norms else ():
            f(images(index.to(images.device)))
    return f, {"epochs": 0, "last": {}, "collapsed": "", "resumed": [], **init, "seconds": time.monotonic() - started}


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the device's name and the number of CPU threads, on which the last bits depend, the node and the Slurm job."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    where = {"node": platform.node(), "job": slurm.current_job(), "restarts": slurm.count_restarts()}
    return {"device": name, "threads": torch.get_num_threads(), **where}


def read_backbone(folder: RunFolder, run: Run) -> nn.Module:
    """Return the backbone of a Run from its folder. Raise InputError if the file was changed."""
    payload, record = folder.read_weights(), folder.encoder_record() or {}
    with torch.random.fork_rng(devices=[]):
        f = weights.deserialise_backbone(payload, build_backbone(run))
    card.pad(f, record.get("padding", "symmetric"))
    return f
