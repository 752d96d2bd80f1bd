"""The interface of a method: its networks, its views, its loss, and what is logged of a step.

A method is one file of this folder, named as in `Run(method=...)`. It holds one subclass of `Method`, declared by `@method(...)`,
which planning and reports read without importing torch.
"""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from simclic.data.images import Images
from simclic.experiment import Run
from simclic.methods.backbones import build_backbone, feature_width

Generator = torch.Generator | None


@dataclass(frozen=True)
class Step:
    """The result of one forward pass.

    loss: () to minimise. z: (B, d) vectors that the loss compares; their spread and rank are logged. features: (B, width) of the
    backbone, for the cheap probe. watched: further quantities to log, by name, () each.
    """

    loss: Tensor
    z: Tensor
    features: Tensor
    watched: dict[str, Tensor] = field(default_factory=dict)


class Method(nn.Module):
    """A method that any loop can train. Whatever it keeps between steps is in its state_dict.

    run: the settings. images: the number of images. f: any module with `num_features` in place of the Run's backbone.
    """

    watched: ClassVar[tuple[str, ...]] = ()  # names of Step.watched, in the order of the log

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None):
        super().__init__()
        self.run, self.images = run, images
        self.backbone = build_backbone(run) if f is None else f
        self.width, self.d = feature_width(self.backbone), run.projector_dim  # lengths of the backbone's vectors and of z

    def views(self, pixels: Tensor, images: Images, generator: torch.Generator) -> Any:
        """Return the input of `forward` for a batch: here the images as they are, (B, 3, S, S) normalised.

        pixels: (B, 3, H, W) uint8 as stored. images: their size S and normalisation. generator: of the CPU, for every draw.
        """
        return images.prepare(pixels)

    def forward(self, x: Any, index: Tensor | None = None, generator: Generator = None) -> Step:
        """Return the loss of a batch. x: what `views` returned. index: (B,) which images. generator: of the device of x."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters to train. A group with fixed_lr=True keeps the first learning rate, others follow the cosine."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "fixed_lr": False}]

    def before_epoch(self, epoch: int) -> None:
        """Prepare for an epoch, before its first step. epoch: 0 for the first."""

    def after_step(self, step: int) -> None:
        """Update after the optimiser's step, as a momentum encoder or a queue does. step: 0 for the first."""


def build_method(run: Run, images: int = 0) -> Method:
    """Return the Run's method with random weights. images: how many the data set has."""
    module = import_module(f"simclic.methods.{run.method}")
    classes = (v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__)
    (method_class,) = (c for c in classes if issubclass(c, Method))
    return method_class(run, images)
