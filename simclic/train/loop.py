"""The training of a Run, step by step, from the first or from wherever it was stopped; which method it is, it does not know."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simclic import files, stop
from simclic.data import Dataset
from simclic.data.images import Images, seed_of, seeded
from simclic.errors import Diverged, InputError
from simclic.experiment import USUAL, How, Run
from simclic.methods import base
from simclic.progress import Tell
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint, numerics
from simclic.train.watch import Watch, collapsed
from simclic.weights import card
from simclic.weights import init_weights as start
from simclic.weights import load as weights


class Training:
    """All that a stopped training needs to end bit-identically: it is what a checkpoint holds.

    Learning rate, order of the images and every draw are functions of the seed and the step, so they are not in it.
    """

    def __init__(self, run: Run, images: int, device: torch.device):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            model = base.build(run, images)
        self.run, self.device = run, device
        self.init: dict[str, Any] = {}  # what it started from
        self.model = model.to(device).to(memory_format=torch.channels_last).train()
        groups = self.model.parameter_groups()
        self.optimizer = torch.optim.SGD(groups, run.lr, momentum=run.momentum, weight_decay=run.weight_decay, fused=True)
        self.watch = Watch(self.model.width, self.model.d, device, self.model.watched)
        self.step, self.seconds = 0, 0.0  # steps done, and the time they took
        self.resumed: list[int] = []  # the steps at which it went on after a stop

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        counts = {"step": self.step, "seconds": self.seconds, "resumed": self.resumed, "init": self.init}
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "watch": self.watch.state()}
        return {"run": self.run.name, **counts, **parts}

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint's content."""
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.watch.restore(content["watch"])
        self.step, self.seconds, self.init = content["step"], content["seconds"], content["init"]
        self.resumed = [*content["resumed"], self.step]

    def views(self, pixels: Tensor, images: Images) -> Any:
        """What the method wants of a batch at this step. pixels: (B, 3, H, W) uint8."""
        return self.model.views(pixels, images, seeded("cpu", self.run.seed, "views", self.step))

    def forward_and_back(self, x: Any, index: Tensor, lr: float) -> base.Step:
        """One step on a batch. x: what `views` returned. index: (B,) which images."""
        number = seed_of(self.run.seed, "model", self.step)
        numerics.seed_device(self.device, number)  # for backbones that draw, as with stochastic depth
        for group in self.optimizer.param_groups:
            group["lr"] = self.run.lr if group.get("fixed_lr") else lr
        with numerics.autocast(self.device, self.run.precision):
            out: base.Step = self.model(x, index, seeded(self.device, self.run.seed, "g", self.step))
        self.optimizer.zero_grad()
        out.loss.backward()
        self.optimizer.step()
        self.model.after_step(self.step)
        return out


@numerics.exact_float32()
def train(
    run: Run, dataset: Dataset, images: Images, folder: RunFolder, tell: Tell, still_ours: Callable[[], None] = lambda: None,
    how: How = USUAL,
) -> tuple[nn.Module, dict[str, Any]]:  # fmt: skip
    """Algorithm 1 on the images of splits.fit; returns the backbone and what is recorded of it.

    folder: where the log goes and now and then a checkpoint. still_ours: called before each of these, raises if another
    process has taken over. Raises InputError if the images are less than a batch or gradients would be wrong, Diverged if the
    loss stops being finite, Stopped once it is saved if that was asked for.
    """
    device, size, fit = images.device, run.batch_size, torch.from_numpy(dataset.splits.fit)
    per_epoch = len(fit) // size  # the last incomplete batch of an epoch is left out, as SimSiam does
    if per_epoch == 0:
        raise InputError(
            f"batch_size={size} with {len(fit)} training images: not one whole batch; say batch_size={len(fit)} or less"
        )
    training, steps = Training(run, len(images), device), run.epochs * per_epoch
    numerics.check_gradients_supported(training.model.backbone, device, run.precision, run.image_size)
    if content := checkpoint.load(folder.checkpoint_path(), run.name):
        training.restore(content)
        del content  # as large as the model and its history
        start.unchanged(run.init, training.init, folder.path)
        card.pad(training.model.backbone, training.init.get("padding", "symmetric"))
    elif run.init != "random":
        training.init = weights.start(run.init, run.backbone, training.model.backbone, folder.runs)
    compiled = numerics.try_compile(training.model.backbone, images(fit[:size]), run.precision) if how.compile else "no"
    log = Log(folder, before=training.step // per_epoch)
    started, saved, bad = time.monotonic() - training.seconds, time.monotonic(), torch.tensor(-1, device=device)

    batches = images.stream_pixels(order(run, fit, range(training.step, steps), per_epoch))
    with stop.boundaries() as asked:
        for step, (pixels, index) in enumerate(batches, training.step):
            epoch, position = divmod(step, per_epoch)
            lr = run.lr * (1 + math.cos(math.pi * step / steps)) / 2
            if position == 0:
                training.model.before_epoch(epoch)
            out = training.forward_and_back(training.views(pixels, images), index, lr)
            training.watch.add(out, index, (per_epoch - 1 - position) * size)
            bad = numerics.first_nonfinite(out.loss, step, bad)
            training.step = step + 1
            stopping, last = asked(), position == per_epoch - 1
            due = stopping or time.monotonic() - saved > 60 * how.minutes
            if due or last or numerics.should_check_loss(device, step):
                _stop_if(int(bad), run, per_epoch, steps)
            if last:
                training.seconds = time.monotonic() - started
                still_ours()
                speed = (epoch + 1) * per_epoch * size / training.seconds
                log.write({"epoch": epoch + 1, **training.watch.row(dataset), "lr": lr, "images/s": speed})
            if last or training.step % numerics.CHECK_EVERY == 0:
                tell(training.step / steps, f"epoch {epoch + 1}/{run.epochs}")
            if due and training.step < steps:
                if not numerics.is_finite(training.model):
                    _stop_if(step, run, per_epoch, steps, "a weight")
                training.seconds = time.monotonic() - started
                still_ours()
                checkpoint.save(folder.checkpoint_path(), training.content())
                saved = time.monotonic()
                if stopping:
                    raise stop.Stopped
    if not numerics.is_finite(training.model):
        _stop_if(steps - 1, run, per_epoch, steps, "a weight")
    seconds = time.monotonic() - started
    record = {"epochs": run.epochs, "last": log.last, "collapsed": collapsed(log.last), "resumed": training.resumed}
    return training.model.backbone, {**record, **training.init, "compiled": compiled, "seconds": seconds}


def order(run: Run, fit: Tensor, steps: range, per_epoch: int) -> Iterator[Tensor]:
    """The images of each step, (B,): another permutation in every epoch, from the seed and the epoch alone. fit: (n,)."""
    for step in steps:
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == steps.start:
            shuffled = fit[torch.randperm(len(fit), generator=seeded("cpu", run.seed, "order", epoch))]
        yield shuffled[position * run.batch_size : (position + 1) * run.batch_size]


def _stop_if(bad: int, run: Run, per_epoch: int, steps: int, what: str = "the loss") -> None:
    """Raise Diverged if a step is named."""
    if bad >= 0:
        lr = run.lr * (1 + math.cos(math.pi * bad / steps)) / 2
        where = f"step {bad + 1} of {steps:,}, epoch {bad // per_epoch + 1}, learning rate {lr:.3g}"
        raise Diverged(f"{what} is not finite at {where}; the last checkpoint is kept")


class Log:
    """The log, one row per epoch, cut back to where training resumes; TensorBoard too, if it is installed."""

    def __init__(self, folder: RunFolder, before: int):
        self.path, self.last, self.board = folder.log_path, dict[str, Any](), _board(folder.path, before)
        lines = self.path.read_text().splitlines()[:before] if self.path.is_file() else []
        files.write_bytes(self.path, "".join(line + "\n" for line in lines).encode())
        if lines:
            self.last = json.loads(lines[-1])

    def write(self, row: dict[str, Any]) -> None:
        """Append one epoch."""
        self.last = row
        with open(self.path, "a") as f:
            f.write(json.dumps(row) + "\n")
            f.flush()
            os.fsync(f.fileno())  # a later checkpoint must not outlive this row
        if self.board:
            for name in (n for n, value in row.items() if n != "epoch" and value is not None):
                self.board.add_scalar(name, row[name], row["epoch"])
            self.board.flush()


def _board(folder: Path, before: int) -> Any:
    """A TensorBoard writer that goes on after `before` epochs, or None if TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=before + 1)
