"""The backbone f that a Run names, from timm, or raw pixels in its place."""

from difflib import get_close_matches

from torch import Tensor, nn

from simclic.errors import InputError
from simclic.experiment import Run


def build_backbone(run: Run) -> nn.Module:
    """The backbone that `run` names, randomly initialised from the global seed: (B, 3, S, S) images to (B, width).

    Raises InputError if timm does not know it.
    """
    if run.backbone == "pixels":
        return Pixels(run.image_size)
    import timm  # slow to import, and not needed by whoever brings a backbone of their own

    if "." in run.backbone:
        raise InputError(f"backbone={run.backbone!r}: a tag names trained weights; say {run.backbone.split('.')[0]!r}")
    if not timm.is_model(run.backbone):
        similar_names = get_close_matches(run.backbone, timm.list_models(), 3, 0.4)
        raise InputError(
            f"backbone={run.backbone!r} is no timm model"
            + (f"; did you mean {' or '.join(similar_names)}?" if similar_names else "")
        )
    config = timm.get_pretrained_cfg(run.backbone)
    options = {"img_size": run.image_size} if config and config.fixed_input_size else {}  # such a model must be told
    return timm.create_model(run.backbone, pretrained=False, num_classes=0, **options)  # type: ignore[arg-type]


def feature_width(f: nn.Module) -> int:
    """The length d of what a backbone returns, (B, d). Where timm has a layer before the classifier, it is that one's."""
    return int(getattr(f, "head_hidden_size", None) or f.num_features)  # type: ignore[arg-type]


class Pixels(nn.Module):
    """The raw image as its own representation: (B, 3, S, S) to (B, 3 S S)."""

    def __init__(self, size: int):
        super().__init__()
        self.num_features = 3 * size * size

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
