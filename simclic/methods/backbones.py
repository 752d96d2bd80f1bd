"""The backbone f of a Run: from timm, or raw pixels in its place."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from simclic import data
from simclic.errors import InputError
from simclic.experiment import METHODS, Run


def build_backbone(run: Run) -> nn.Module:
    """Return the backbone that `run` names, randomly initialised from the global seed: (B, 3, S, S) images to (B, width).

    Raises InputError if timm does not know it.
    """
    if run.backbone == "pixels":
        return Pixels(run.image_size)
    import timm  # slow to import, and not needed with a backbone of one's own

    if "." in run.backbone:
        raise InputError(f"backbone={run.backbone!r}: a tag names trained weights; use {run.backbone.split('.')[0]!r}")
    if not timm.is_model(run.backbone):
        similar = " or ".join(get_close_matches(run.backbone, timm.list_models(), 3, 0.4))
        raise InputError(f"backbone={run.backbone!r} is not a timm model" + (f"; did you mean {similar}?" if similar else ""))
    config = timm.get_pretrained_cfg(run.backbone)
    options: dict[str, Any] = {"img_size": run.image_size} if config and config.fixed_input_size else {}  # which need the size

    def create(**more: Any) -> nn.Module:
        f: nn.Module = timm.create_model(run.backbone, pretrained=False, num_classes=0, **options, **more)
        return _with_small_stem(f, run.backbone) if run.stem == "small" else f

    return Halves(create, run) if METHODS[run.method].halves else create()


def _with_small_stem(f: nn.Module, name: str) -> nn.Module:
    """Return a ResNet whose first layer is one 3 x 3 convolution of stride 1, and which does not pool after it."""
    if not isinstance(getattr(f, "maxpool", None), nn.Module) or not isinstance(getattr(f, "bn1", None), nn.BatchNorm2d):
        raise InputError(f"stem='small' with backbone={name!r}: only ResNets have such a stem; remove it, or take resnet18")
    channels = f.bn1.num_features  # type: ignore[union-attr]
    f.conv1 = nn.Conv2d(_count_inputs(f), channels, 3, padding=1, bias=False)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(f.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm does the other convolutions
    f.maxpool = nn.Identity()
    return f


def _count_inputs(f: nn.Module) -> int:
    """Return the channels of the images that a backbone takes."""
    return next(layer.in_channels for layer in f.modules() if isinstance(layer, nn.Conv2d))


class Halves(nn.Module):
    """Two ResNets whose stages are half as wide as the Run's, joined: (B, 3, S, S) images to (B, width), CMC's encoder.

    The first takes the luminance of an image (1 channel), the second its colour, Cb and Cr (2 channels), both of the pixels in
    [0, 1] from which the images were normalised.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, create: Callable[..., nn.Module], run: Run):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            whole = create()
        stages: list[Any] = [getattr(whole, f"layer{n}", None) for n in (1, 2, 3, 4)]
        if not all(isinstance(stage, nn.Sequential) for stage in stages):
            raise InputError(f"method={run.method!r} with backbone={run.backbone!r}: only ResNets can be halved; take resnet50")
        channels = tuple(stage[0].conv1.out_channels // 2 for stage in stages)
        self.luminance, self.colour = (create(in_chans=inputs, channels=channels) for inputs in (1, 2))
        self.num_features = feature_width(self.luminance) + feature_width(self.colour)
        for name, values in zip(("mean", "std"), data.mean_and_std(run.dataset), strict=True):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        red, green, blue = (x * self.std + self.mean).split(1, dim=1)
        y = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601, as are the two below
        colour = torch.cat([(blue - y) * 0.564, (red - y) * 0.713], dim=1)
        return torch.cat([self.luminance(4 * y - 2), self.colour(4 * colour)], dim=1)  # of a deviation near 1


def feature_width(f: nn.Module) -> int:
    """Return the width of a backbone's output, (B, width), after timm's layer before the classifier if there is one."""
    return int(getattr(f, "head_hidden_size", None) or f.num_features)  # type: ignore[arg-type]


class Pixels(nn.Module):
    """The raw image as its own representation: (B, 3, S, S) to (B, 3 S S)."""

    def __init__(self, size: int):
        super().__init__()
        self.num_features = 3 * size * size

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
