"""The training loop, the same for every method: from the first step or from a checkpoint to the last."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import tee
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from simclic import ranks, stop
from simclic.data import Dataset
from simclic.data.crops import DRAWS, CropRule, Cutter
from simclic.data.images import Images, seed_of, seeded_generator
from simclic.errors import Diverged, InputError
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions, Run
from simclic.methods import base
from simclic.methods.backbones import build_backbone
from simclic.progress import Tell
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint, numerics
from simclic.train.epoch_log import EpochLog
from simclic.train.neighbours import NeighbourLog
from simclic.train.watch import Watch, explain_collapse
from simclic.weights import card, init_weights
from simclic.weights import load as weights

T = TypeVar("T")


class Training:
    """The state of a training, which a checkpoint saves so that a resumed training ends bit-identically.

    Learning rate, order of the images and random draws are not part of it: they depend on the seed and the step alone.
    """

    def __init__(
        self, run: Run, images: int, device: torch.device, trained: int | None = None,
        load_backbone: Callable[[nn.Module], dict[str, Any]] = lambda f: {},
    ):  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            f = build_backbone(run)
            if ranks.count_ranks() > 1:
                f.register_forward_hook(ranks.gather_output)
            with torch.random.fork_rng(devices=[]):
                self.init = load_backbone(f)  # what is recorded of the weights it starts from, as does a momentum encoder
            model = base.build_method(run, images, trained, f)
        self.run, self.device = run, device
        self.model = model.to(device).to(memory_format=torch.channels_last).train()
        self.spread = ranks.Spread(self.model, run.batch_size)
        self.draws_whole = ranks.count_ranks() > 1 and type(model).views is not base.Method.views  # views of its own
        self.optimizer = build_optimizer(run, self.model.parameter_groups())
        self.watch = Watch(self.model.width, self.model.d, device, self.model.watched)
        self.step, self.seconds = 0, 0.0  # done so far
        self.resumed: list[int] = []  # steps at which it was resumed
        self.ranks = [ranks.count_ranks()]  # processes that computed it together, at first and after each of these

    def state_dict(self) -> dict[str, Any]:
        """Return the content of a checkpoint."""
        counts = {"step": self.step, "seconds": self.seconds, "resumed": self.resumed, "init": self.init}
        counts["ranks"] = self.ranks
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "watch": self.watch.state_dict()}
        return {"run": self.run.name, **counts, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from the content of a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.watch.load_state_dict(state["watch"])
        self.step, self.seconds, self.init = state["step"], state["seconds"], state["init"]
        self.resumed = [*state["resumed"], self.step]
        self.ranks = [*state.get("ranks", [1] * len(self.resumed)), *self.ranks]

    def prepare_views(self, pixels: Tensor, images: Images) -> Any:
        """Return the method's views of the own rows of a batch at this step. pixels: as `stream_batches` yields them."""
        generator = seeded_generator("cpu", self.run.seed, "views", self.step)
        if not self.draws_whole:
            return self.model.views(pixels, images, generator)
        with ranks.alone():
            views = self.model.views(pixels, images, generator)
        rows = ranks.own_rows(len(pixels))
        return tuple(view[rows] for view in views) if isinstance(views, tuple) else views[rows]

    def stream_batches(self, images: Images, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels, index) of each batch of indices, (B,): the whole index, and stored pixels of the own rows.

        pixels: (B / ranks, 3, H, W) uint8; (B, ...) for a method with views of its own, which draws these for all rows. With
        views_from='whole' a crop for each view, (B / ranks, views, 3, S, S).
        """
        if ranks.count_ranks() == 1 or self.draws_whole:
            yield from self._stream_pixels(images, batches)
            return
        whole, parts = tee(batches)
        own = self._stream_pixels(images, (index[ranks.own_rows(len(index))] for index in parts))
        for (pixels, _), index in zip(own, whole, strict=True):
            yield pixels, index.to(self.device, non_blocking=True)

    def _stream_pixels(self, images: Images, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pixels, index) of each batch, as `stream_batches` has them of the own rows."""
        if self.run.views_from == "square":
            return images.stream_pixels(batches)
        if not self.model.recipes:
            raise InputError(f"views_from='whole' with method={self.run.method!r}, which has no recipes to cut by; remove it")
        assert not isinstance(images.uint8, Tensor)
        rules = [CropRule(recipe.area, recipe.aspect, recipe.p_flip) for recipe in self.model.recipes]
        cutter = Cutter(images.uint8.read_image, rules, images, "bilinear")
        indices, steps = tee(batches)
        return cutter.stream(indices, (self._draw_crops(step) for step, _ in enumerate(steps, self.step)))

    def _draw_crops(self, step: int) -> Tensor:
        """Return the numbers that decide the crops of the own rows of a batch: (B / ranks, views, DRAWS) of [0, 1)."""
        size = self.run.batch_size
        draws = torch.rand(size, len(self.model.recipes), DRAWS, generator=seeded_generator("cpu", self.run.seed, "crops", step))
        return draws if self.draws_whole else draws[ranks.own_rows(size)]

    @torch.no_grad()
    def visit_images(self, images: Images, batches: Iterator[Tensor]) -> None:
        """Show the method all batches, without a step, for what it keeps of each image. batches: (B,) which images."""
        for pixels, index in self.stream_batches(images, batches):
            with numerics.autocast(self.device, self.run.precision):
                self.model(self.prepare_views(pixels, images), index, seeded_generator(self.device, self.run.seed, "visit"))

    def train_step(self, x: Any, index: Tensor, lr: float, share: float = 1.0) -> base.Step:
        """Take one step on a batch. x: what `prepare_views` returned. index: (B,) which images. share: done after this step."""
        # For backbones that draw, as in stochastic depth: further ranks draw others for their own rows.
        further = (ranks.own_rank(),) if ranks.own_rank() else ()
        numerics.seed_device(self.device, seed_of(self.run.seed, "model", self.step, *further))
        for group in self.optimizer.param_groups:
            group["lr"] = self.run.lr if group.get("fixed_lr") else lr
        with numerics.autocast(self.device, self.run.precision):
            out: base.Step = self.model(x, index, seeded_generator(self.device, self.run.seed, "g", self.step))
        self.optimizer.zero_grad()
        out.loss.backward()
        self.spread.finish_gradients()
        self.optimizer.step()
        self.model.after_step(share)
        return out


def build_optimizer(run: Run, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the Run's optimiser. groups: of parameters. LARS neither scales nor decays biases and norms, as SimCLR and BYOL."""
    settings: dict[str, Any] = {"lr": run.lr, "momentum": run.momentum, "weight_decay": run.weight_decay}
    if run.optimizer == "sgd":
        return torch.optim.SGD(groups, **settings, fused=True)
    from timm.optim.lars import Lars

    scaled = [group | {"params": [p for p in group["params"] if p.ndim > 1]} for group in groups]
    plain = [group | {"params": [p for p in group["params"] if p.ndim < 2], "weight_decay": 0.0} for group in groups]
    if run.optimizer == "larc":
        settings |= {"trust_coeff": 0.02, "trust_clip": True}
    optimizer: torch.optim.Optimizer = Lars([group for group in (*scaled, *plain) if group["params"]], **settings)
    return optimizer


def scheduled_lr(run: Run, step: int, steps: int, per_epoch: int) -> float:
    """Return the learning rate of a step: a cosine to 0, after a linear rise if warm-up is asked for."""
    rise = run.warmup_epochs * per_epoch
    if step < rise:
        return run.lr * (step + 1) / rise
    return run.lr * (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2


@numerics.exact_float32()
def train(
    run: Run, dataset: Dataset, images: Images, folder: RunFolder, on_progress: Tell,
    check_claim: Callable[[], None] = lambda: None, options: ComputeOptions = DEFAULT_COMPUTE,
    watched: tuple[Dataset, Images] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:  # fmt: skip
    """Run Algorithm 1 on the images of splits.fit; return the backbone and the record of the training.

    folder: for the log and checkpoints. check_claim: called before each write; raises if another process has taken over.
    watched: another labelled data set, for the error of kNN. Raises InputError if there are fewer images than a batch or
    gradients would be wrong, Diverged if the loss or a weight is not finite, Stopped, after saving, if a stop was requested.
    """
    device, size, fit = images.device, run.batch_size, torch.from_numpy(dataset.splits.fit)
    per_epoch = len(fit) // size  # the last incomplete batch of an epoch is left out, as SimSiam does
    if per_epoch == 0:
        raise InputError(f"batch_size={size} is more than the {len(fit)} training images; use batch_size={len(fit)} or less")
    with ranks.first_alone() as is_first:  # a damaged checkpoint is renamed once
        content = checkpoint.load(folder.checkpoint_path(), run.name) if is_first else None
    if not is_first:
        content = checkpoint.load(folder.checkpoint_path(), run.name)
    steps = run.epochs * per_epoch
    load_backbone = partial(_load_backbone, run, folder, content["init"] if content else None)
    training = Training(run, len(images), device, len(fit), load_backbone)
    numerics.check_gradients_supported(training.model.backbone, device, run.precision, run.image_size)
    if content:
        training.load_state_dict(content)
    ranks.check_same(training.step, "the step of the checkpoint")
    del content  # as large as the model and its history
    compiled = numerics.try_compile(training.model.backbone, images(fit[:size]), run.precision) if options.compile else "no"
    log, neighbours = (
        EpochLog(folder, training.step // per_epoch, ranks.own_rank() == 0),
        NeighbourLog(run, watched[0] if watched else dataset, per_epoch * size),
    )
    started, last_save, first_bad_step = time.monotonic() - training.seconds, time.monotonic(), torch.tensor(-1, device=device)

    if training.model.visits_first and training.step == 0:
        training.visit_images(images, shuffled_batches(fit, size, range(per_epoch), run.seed, "visit"))

    def save() -> None:
        training.seconds = time.monotonic() - started
        check_claim()
        checkpoint.save(folder.checkpoint_path(), training.state_dict())

    def save_if_finite() -> None:
        if ranks.own_rank() == 0 and training.step and numerics.is_finite(training.model):
            save()

    order = shuffled_batches(fit, size, range(training.step, steps), run.seed, "order")
    batches = _until_unreadable(training.stream_batches(images, order), save_if_finite)
    with stop.delay_stop() as stop_requested:
        for step, (pixels, index) in enumerate(batches, training.step):
            epoch, position = divmod(step, per_epoch)
            lr = scheduled_lr(run, step, steps, per_epoch)
            if position == 0:
                training.model.before_epoch(epoch)
            out = training.train_step(training.prepare_views(pixels, images), index, lr, (step + 1) / steps)
            training.watch.add_step(out, index, (per_epoch - 1 - position) * size)
            first_bad_step = numerics.first_nonfinite(out.loss, step, first_bad_step)
            training.step = step + 1
            save_due, epoch_ends = time.monotonic() - last_save > 60 * options.minutes, position == per_epoch - 1
            stopping, save_due = ranks.agree(stop_requested(), save_due)
            save_due |= stopping
            if save_due or epoch_ends or numerics.should_check_loss(device, step):
                _raise_if_diverged(int(first_bad_step), run, per_epoch, steps)
            if epoch_ends:
                training.seconds = time.monotonic() - started
                with ranks.first_alone() as is_first:
                    if is_first:
                        check_claim()
                        speed = (epoch + 1) * per_epoch * size / training.seconds
                        row = training.watch.finish_epoch(dataset)
                        row |= neighbours.measure_epoch(epoch + 1, training.model.backbone, watched[1] if watched else images)
                        log.write_epoch({"epoch": epoch + 1, **row, "lr": lr, "images/s": speed})
            if epoch_ends or training.step % numerics.CHECK_EVERY == 0:
                on_progress(training.step / steps, f"epoch {epoch + 1}/{run.epochs}")
            if save_due and training.step < steps:
                if not numerics.is_finite(training.model):
                    _raise_if_diverged(step, run, per_epoch, steps, "a weight")
                with ranks.first_alone() as is_first:
                    if is_first:
                        save()
                last_save = time.monotonic()
                if stopping:
                    raise stop.Stopped
    if not numerics.is_finite(training.model):
        _raise_if_diverged(steps - 1, run, per_epoch, steps, "a weight")
    seconds = time.monotonic() - started
    record = {
        "epochs": run.epochs,
        "last": log.last_row,
        "collapsed": explain_collapse(log.last_row),
        "resumed": training.resumed,
        "ranks": training.ranks,
    }
    return training.model.backbone, {**record, **training.init, "compiled": compiled, "seconds": seconds}


def _until_unreadable(batches: Iterator[T], save: Callable[[], None]) -> Iterator[T]:
    """Yield the batches. If an image cannot be read, call `save` before InputError is raised."""
    try:
        yield from batches
    except InputError:
        save()
        raise


def _load_backbone(run: Run, folder: RunFolder, resumed: dict[str, Any] | None, f: nn.Module) -> dict[str, Any]:
    """Load the Run's first weights into a new backbone, or give it their padding if it is resumed; return their record."""
    if resumed is None:
        return {} if run.init == "random" else weights.load_init(run.init, run.backbone, f, folder.runs)
    init_weights.check_init_unchanged(run.init, resumed, folder.path)
    card.pad(f, resumed.get("padding", "symmetric"))
    return resumed


def shuffled_batches(index: Tensor, size: int, steps: range, seed: int, purpose: str) -> Iterator[Tensor]:
    """Yield the images of each step, (size,) of index (n,): a new permutation every epoch, its incomplete last batch left out.

    The order depends on the seed, the purpose (a word for the seed's stream) and the epoch alone. If n < size, batches have n.
    """
    per_epoch = max(1, len(index) // size)
    for step in steps:
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == steps.start:
            shuffled = index[torch.randperm(len(index), generator=seeded_generator("cpu", seed, purpose, epoch))]
        yield shuffled[position * size : (position + 1) * size]


def _raise_if_diverged(bad_step: int, run: Run, per_epoch: int, steps: int, what: str = "the loss") -> None:
    """Raise Diverged if bad_step is a step; -1 is none."""
    if bad_step >= 0:
        lr = scheduled_lr(run, bad_step, steps, per_epoch)
        where = f"step {bad_step + 1} of {steps:,}, epoch {bad_step // per_epoch + 1}, learning rate {lr:.3g}"
        raise Diverged(f"{what} is not finite at {where}; the last checkpoint is kept")
