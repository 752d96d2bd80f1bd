"""The state dict of a backbone inside whatever a training script saved around it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from simclic.errors import InputError
from simclic.text import quote_text

HEADS = ("fc.", "head.", "classifier.")  # layers of a classifier, which are left out
DEPTH = 3  # dictionaries inside one another, and parts of a prefix, that are searched

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Reading:
    """One way to read a file as a backbone. label: dictionary and prefix, such as "teacher.backbone", "" for neither.

    tensors: under the backbone's own names. dropped: keys of the same dictionary that belong to no backbone.
    """

    label: str
    tensors: dict[str, Tensor]
    dropped: tuple[str, ...]


def read_backbone(content: Mapping[Any, Any], name: str, wanted: State, part: str = "") -> Reading:
    """Return the only reading of a file's content that fits a backbone, tensor by tensor.

    name, wanted: the backbone's name in timm, and its state dict. part: words of the label, where several readings fit. Raise
    InputError if none fits, or if several do that differ.
    """
    candidates = [(reading, list_misfits(reading.tensors, wanted)) for reading in _list_candidates(content, wanted)]
    fitting = [reading for reading, misfits in candidates if not misfits]
    distinct: list[Reading] = []
    for reading in fitting:
        known = any(all(torch.equal(reading.tensors[k], other.tensors[k]) for k in other.tensors) for other in distinct)
        if _matches(reading.label, part) and not known:
            distinct.append(reading)
    if len(distinct) == 1:
        return distinct[0]
    labels = ", ".join(sorted(quote_text(reading.label or "(top)") for reading in distinct or fitting))
    if distinct:
        raise InputError(
            f"holds {len(distinct)} backbones: {labels}; name one as FILE::{quote_text(distinct[0].label or 'NAME')}"
        )
    if part and fitting:
        raise InputError(f"has no backbone under {part!r}; it has {labels}")
    if not candidates:
        raise InputError("is not a dict of tensors under torchvision's or timm's keys")
    nearest, misfits = min(candidates, key=lambda candidate: len(candidate[1]))
    inside = f" (under {quote_text(nearest.label)!r})" if nearest.label else ""
    raise InputError(f"does not fit backbone={name!r}{inside}: {format_first(misfits)}")


def fitting_labels(content: Mapping[Any, Any], wanted: State) -> list[str]:
    """Return the label of every reading of a file's content that fits a backbone."""
    return [reading.label for reading in _list_candidates(content, wanted) if not list_misfits(reading.tensors, wanted)]


def list_misfits(loaded: State, wanted: State) -> list[str]:
    """Return in which keys and shapes a state dict differs from the wanted one; a norm's count of batches may be missing."""
    problems = [f"{quote_text(k)} is left over" for k in sorted(loaded.keys() - wanted.keys())]
    problems += [f"{k} is missing" for k in sorted(wanted.keys() - loaded.keys()) if not k.endswith("num_batches_tracked")]
    misshapen = [k for k in sorted(loaded.keys() & wanted.keys()) if loaded[k].shape != wanted[k].shape]
    return problems + [f"{k} is {tuple(loaded[k].shape)}, not {tuple(wanted[k].shape)}" for k in misshapen]


def format_first(problems: list[str], separator: str = "; ") -> str:
    """Return the first three problems, and how many more there are."""
    return separator.join(problems[:3]) + (f" and {len(problems) - 3:,} more" if len(problems) > 3 else "")


def _list_candidates(content: Mapping[Any, Any], wanted: State) -> Iterator[Reading]:
    """Yield each dictionary of tensors, read below each prefix that its keys may have."""
    for name, state in _list_states(content, ""):
        for prefix in _list_prefixes(state, wanted):
            below = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            heads = {k for k in below if k not in wanted and k.startswith(HEADS)}
            outside = [k for k in state if not k.startswith(prefix)]
            dropped = sorted([f"{prefix}{k}" for k in heads] + outside)
            label = ".".join(part for part in (name, prefix.rstrip(".")) if part)
            yield Reading(label, {k: v for k, v in below.items() if k not in heads}, tuple(dropped))


def _list_prefixes(state: State, wanted: State) -> list[str]:
    """Return the prefixes below which at least half as many wanted keys lie as below any other; "" if there is none."""
    shapes = {(k.rpartition(".")[2], v.shape) for k, v in wanted.items()}
    counts: Counter[str] = Counter()
    for key in (k for k, v in state.items() if (k.rpartition(".")[2], v.shape) in shapes):
        parts = key.split(".")
        endings = ((".".join(parts[:i]), ".".join(parts[i:])) for i in range(min(len(parts), DEPTH + 2)))
        counts.update(f"{start}." if start else "" for start, end in endings if end in wanted)
    return [prefix for prefix, count in counts.items() if 2 * count >= max(counts.values())] or [""]


def _list_states(content: Mapping[Any, Any], name: str, depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every dictionary of tensors by its name: the content itself, or one inside it."""
    state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if state:
        yield name, state
    for key, value in content.items():
        if isinstance(value, Mapping) and depth < DEPTH:
            yield from _list_states(value, f"{name}.{key}" if name else str(key), depth + 1)


def _matches(label: str, part: str) -> bool:
    """Return whether `part` is the whole label, or whole words of it."""
    return not part or f".{part}." in f".{label}."
