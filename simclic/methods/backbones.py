"""The backbone f of a Run: from timm, or raw pixels in its place."""

from difflib import get_close_matches

from torch import Tensor, nn

from simclic.errors import InputError
from simclic.experiment import Run


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
    options = {"img_size": run.image_size} if config and config.fixed_input_size else {}  # such models need the size
    f: nn.Module = timm.create_model(run.backbone, pretrained=False, num_classes=0, **options)  # type: ignore[arg-type]
    return _with_small_stem(f, run.backbone) if run.stem == "small" else f


def _with_small_stem(f: nn.Module, name: str) -> nn.Module:
    """Return a ResNet whose first layer is one 3 x 3 convolution of stride 1, and which does not pool after it."""
    if not isinstance(getattr(f, "maxpool", None), nn.Module) or not isinstance(getattr(f, "bn1", None), nn.BatchNorm2d):
        raise InputError(f"stem='small' with backbone={name!r}: only ResNets have such a stem; remove it, or take resnet18")
    channels = f.bn1.num_features  # type: ignore[union-attr]
    f.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(f.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm does the other convolutions
    f.maxpool = nn.Identity()
    return f


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
