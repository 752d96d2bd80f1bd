"""The interface of a method: its networks, its views, its loss, and what is logged of a step.

A method is one file of this folder, named as in `Run(method=...)`. It holds one subclass of `Method`, declared by `@method(...)`,
which planning and reports read without importing torch.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from simclic.data.images import Images
from simclic.errors import InputError
from simclic.experiment import METHODS, Run
from simclic.experiment.declared import MethodFacts
from simclic.methods.backbones import build_backbone, feature_width
from simclic.methods.views import ViewRecipe, alter_crops, augment_images

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

    run: the settings. images: the number of images. f: any module with `num_features` in place of the Run's backbone. trained:
    the number of images that are trained on, from which the sizes of a queue and the like follow; all of them if None.
    """

    watched: ClassVar[tuple[str, ...]] = ()  # names of Step.watched, in the order of the log
    recipes: ClassVar[Sequence[ViewRecipe]] = ()  # of the augmented views of each image, one each
    visits_first: ClassVar[bool] = False  # whether `forward` sees all images once, untrained, before the first epoch

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__()
        self.run, self.images, self.trained = run, images, images if trained is None else trained
        self.backbone = build_backbone(run) if f is None else f
        self.width, self.d = feature_width(self.backbone), run.projector_dim  # lengths of the backbone's vectors and of z

    def views(self, pixels: Tensor, images: Images, generator: torch.Generator) -> Any:
        """Return the input of `forward` for a batch: a view by each of `recipes`, or without any the images as they are.

        pixels: (B, 3, H, W) uint8 as stored. images: their size S and normalisation. generator: of the CPU, for every draw.
        Each is (B, 3, S, S), normalised.
        """
        if not self.recipes:
            return images.prepare(pixels)
        if pixels.ndim == 5:  # cut already
            crops = (pixels[:, n].float().div_(255) for n in range(len(self.recipes)))
            views = (alter_crops(x, recipe, generator) for x, recipe in zip(crops, self.recipes, strict=True))
        else:
            views = (augment_images(pixels, images.size, recipe, generator) for recipe in self.recipes)
        return tuple(map(images.normalise, views))

    def forward(self, x: Any, index: Tensor | None = None, generator: Generator = None) -> Step:
        """Return the loss of a batch. x: what `views` returned. index: (B,) which images. generator: of the device of x."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters to train. A group with fixed_lr=True keeps the first learning rate, others follow the cosine."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "fixed_lr": False}]

    def before_epoch(self, epoch: int) -> None:
        """Prepare for an epoch, before its first step. epoch: 0 for the first."""

    def after_step(self, share: float) -> None:
        """Update after the optimiser's step, as a momentum encoder does. share: of the training that is done, in (0, 1]."""


def build_method(run: Run, images: int = 0, trained: int | None = None, f: nn.Module | None = None) -> Method:
    """Return the Run's method with random weights. images: how many the data set has. trained: how many are trained on.

    f: the backbone, with random weights if None.

    Raise InputError if its file cannot be imported, or if these images do not suffice for it.
    """
    facts = METHODS[run.method]
    method: Method = getattr(_import_method(facts), facts.class_name)(run, images, f, trained)
    return method


def _import_method(facts: MethodFacts) -> ModuleType:
    """Return the module of a method, of this package or of one's own. Raise InputError if Python cannot import it."""
    own = facts.path.parent != Path(__file__).parent
    name = f"simclic{'_own' if own else ''}.methods.{facts.path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    try:
        if not own:
            return import_module(name)
        spec = util.spec_from_file_location(name, facts.path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except Exception as e:
        sys.modules.pop(name, None)
        if isinstance(e, ModuleNotFoundError) and (e.name or "").split(".")[0] == "lightly":
            raise InputError(f"method={facts.name!r} takes its loss or heads from lightly; pip install 'simclic[methods]'") from e
        if not own or isinstance(e, InputError):
            raise
        raise InputError(f"{facts.path}: {type(e).__name__}: {e}") from e
