"""What the log says of each epoch: averages over its steps, effective rank, a cheap probe; and whether the encoder collapsed."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simclic.data import Dataset
from simclic.data.metrics import METRICS
from simclic.methods.base import Step

PROBE_IMAGES = 1536  # the last images of an epoch: two thirds to fit the probe, one third to score it
RANK_IMAGES = 512  # the last of these, for the rank


class Watch:
    """The quantities of an epoch, collected on the device during its steps: no extra pass, no synchronisation.

    watched: names of the method's own quantities. sums: (3 + watched,) over steps of the loss, these, spread of z, and 1.
    features: (PROBE_IMAGES, width), z: (RANK_IMAGES, d), index: (PROBE_IMAGES,) of the last images of the epoch, -1 for none.
    """

    def __init__(self, width: int, d: int, device: torch.device, watched: tuple[str, ...] = ()):
        self.watched = watched
        self.sums = torch.zeros(3 + len(watched), device=device)
        self.features = torch.zeros(PROBE_IMAGES, width, device=device)
        self.z = torch.zeros(RANK_IMAGES, d, device=device)
        self.index = torch.full((PROBE_IMAGES,), -1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add_step(self, output: Step, index: Tensor, ahead: int) -> None:
        """Add a step. index: (B,) of its images. ahead: how many images of the epoch come after these."""
        unit = nn.functional.normalize(output.z.float(), dim=1)
        spread = unit.std(dim=0).mean() * output.z.shape[1] ** 0.5
        named = [output.watched[name] for name in self.watched]
        self.sums += torch.stack([output.loss.detach().float(), *named, spread, torch.ones_like(spread)])
        for buffer, new in ((self.features, output.features), (self.z, output.z), (self.index, index)):
            start = len(buffer) - ahead - len(new)  # so that the last image of the epoch is in the last row
            if start + len(new) > 0:
                cut = max(0, -start)
                buffer[start + cut : start + len(new)] = new[cut:].detach().to(buffer.dtype)

    def finish_epoch(self, dataset: Dataset) -> dict[str, Any]:
        """Return the row of the epoch for the log, and reset."""
        *totals, count = self.sums.tolist()
        seen = self.index >= 0
        shown: dict[str, Any] = {n: v / count for n, v in zip(("loss", *self.watched, "spread"), totals, strict=True)}
        z = self.z[seen[-len(self.z) :]]
        shown |= {"rank": effective_rank(z), "rank_of": min(z.shape)}
        shown["probe"] = ridge_probe_error(self.features[seen], self.index[seen], dataset)
        self.sums.zero_()
        self.index.fill_(-1)
        return shown

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors for a checkpoint."""
        return {"sums": self.sums, "features": self.features, "z": self.z, "index": self.index}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the tensors of a checkpoint."""
        for name, value in state.items():
            getattr(self, name).copy_(value)


def effective_rank(z: Tensor) -> float:
    """Return RankMe (Garrido et al., 2023): the exponential of the entropy of the normalised singular values. z: (n, d)."""
    gram = z.double() @ z.double().T if len(z) < z.shape[1] else z.double().T @ z.double()
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()  # singular values, faster than svdvals
    p = values / values.sum().clamp_min(1e-12) + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))


def ridge_probe_error(features: Tensor, index: Tensor, dataset: Dataset) -> float | None:
    """Return the error of a ridge regression on the labels, by the data set's metric in percent, or None for too few images or
    without labels.

    It is fitted in closed form on two thirds of those images that are in the train split, and scored on the others.
    features: (n, width), as they were when the image was trained on. index: (n,) which image.
    """
    if not dataset.facts.classes:
        return None
    train = np.isin(index.cpu().numpy(), dataset.splits.train)
    labels = dataset.labels[index.cpu().numpy()[train]]
    x = features[torch.from_numpy(train).to(features.device)].double()
    n = 2 * len(x) // 3
    if n < 8 or not bool(x.isfinite().all()):
        return None
    x = (x - x[:n].mean(dim=0)) / (x[:n].std(dim=0) + 1e-6)
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype, device=x.device)], dim=1)
    target = np.eye(dataset.facts.classes)[labels] if labels.ndim == 1 else np.maximum(labels, 0)
    y = torch.from_numpy(target[:n]).to(x)
    gram = x[:n] @ x[:n].T + 0.1 * n * torch.eye(n, dtype=x.dtype, device=x.device)
    scores = x[n:] @ (x[:n].T @ torch.linalg.solve(gram, y))
    if labels.ndim == 2 and not (labels[n:] == 1).any():
        return None
    return METRICS[dataset.facts.metric](labels[n:], scores.cpu().numpy())


def explain_collapse(row: dict[str, Any]) -> str:
    """Return why the representation counts as collapsed after this epoch, or an empty text. row: of the log.

    A loss of -1 is no evidence: SimCLIC has z_i = z_j. Evidence is a spread near 0 (all images in one place), or a rank below
    5 % of what is possible: our threshold, between 25 % of a healthy run and 3 % of one without stop-gradient. Where vectors
    gather at prototypes, the evidence is that these do not tell images apart: whatever the vectors share, SwAV's assignment
    and DINO's centre take away.
    """
    if not row:
        return ""
    if "prototypes in use" in row:
        used = row["prototypes in use"]
        return f"all images have nearly the same prototypes: {used:.3f} in use, where 1 tells no two apart" if used < 1.01 else ""
    if row["spread"] < 0.1:
        return f"all images have nearly one representation: spread {row['spread']:.3f}, where 1 fills the sphere"
    if row["rank"] < 0.05 * row["rank_of"]:
        return f"the representations fill few dimensions: effective rank {row['rank']:.1f} of {row['rank_of']}"
    return ""
