"""The card in a file of weights: where they come from, which input they expect, how their network pads."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from simclic.data.dataset import BICUBIC
from simclic.errors import InputError
from simclic.text import quote_text

KEY = "simclic.card"
INTERPOLATIONS = (BICUBIC, "bilinear")
PADDINGS = ("symmetric", "same", "same-pool")


@dataclass(frozen=True)
class Card:
    """The origin and the input of imported weights.

    method: its name in Table 2. source: where its authors publish the file. sha256: of that file. mean, std: of the input, per
    channel. padding: "symmetric" as in torchvision, "same" as TensorFlow's SAME in every strided layer, "same-pool" in the
    max-pool alone. top_1: linear accuracy on ImageNet in percent, reported by its authors. dropped: keys that were left out.
    stated: what the file says about itself, one sentence each. interpolation: by which the input was resized.
    """

    method: str
    source: str
    sha256: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    padding: str
    top_1: float
    dropped: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()
    interpolation: str = BICUBIC

    @property
    def metadata(self) -> dict[str, str]:
        """The card as metadata of a safetensors file."""
        values = asdict(self)
        if self.interpolation == BICUBIC:
            del values["interpolation"]  # as before there was a choice: an imported file keeps its SHA-256
        return {KEY: json.dumps(values)}


def read_card(path: Path) -> Card | None:
    """Return the card in a safetensors file, or None if it has none. Raises InputError if the file or card is damaged."""
    try:
        with open(path, "rb") as payload:
            if payload.read(9)[8:] != b"{":  # not of safetensors' format, which alone has room for a card
                return None
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
        return None if text is None else parse_card(json.loads(text))
    except (SafetensorError, OSError) as e:
        raise InputError(f"{path}: is not a file of weights ({quote_text(e)})") from e
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as e:
        raise InputError(f"{path}: its card cannot be read ({quote_text(e)}); import it again") from e


def parse_card(values: dict[str, Any]) -> Card:
    """Return the card of these JSON values. Raises ValueError, TypeError or KeyError if they are not a card."""
    mean, std = (tuple(float(v) for v in values[name]) for name in ("mean", "std"))
    numbers = all(math.isfinite(v) for v in (*mean, *std)) and all(v > 0 for v in std)
    if len(mean) != 3 or len(std) != 3 or not numbers or values["padding"] not in PADDINGS:
        raise ValueError("mean, std or padding")
    if values.get("interpolation", BICUBIC) not in INTERPOLATIONS:
        raise ValueError("interpolation")
    texts = {"dropped": tuple(values["dropped"]), "stated": tuple(values.get("stated", ()))}
    return Card(**{**values, "mean": mean, "std": std, **texts})


def pad(f: nn.Module, padding: str) -> None:
    """Replace the padding layers of a timm ResNet, keeping its parameters. Raises InputError for another network."""
    if padding == "symmetric":
        return
    from timm.layers import Conv2dSame  # type: ignore[attr-defined]
    from timm.layers.pool2d_same import MaxPool2dSame

    if not isinstance(getattr(f, "maxpool", None), nn.MaxPool2d):
        raise InputError(f"padding={padding!r} needs a ResNet, which this backbone is not")
    f.maxpool = MaxPool2dSame(3, 2)
    if padding == "same-pool":
        return
    for holder in list(f.modules()):
        for name, layer in list(holder.named_children()):
            if type(layer) is nn.Conv2d and layer.stride[0] > 1 and layer.kernel_size[0] > 1:
                same = Conv2dSame(layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0], device="meta")
                same.weight, same.bias = layer.weight, layer.bias
                setattr(holder, name, same)
