"""Watching it learn: what is averaged over an epoch, effective rank, a cheap probe, and whether the representation collapsed."""

from typing import Any

import torch
from torch import Tensor, nn

from simclic.data import Dataset
from simclic.data.metrics import METRICS
from simclic.methods.base import Step

PROBE_IMAGES = 1536  # images at the end of an epoch whose features are kept: two thirds to fit the probe, one third to score it
RANK_IMAGES = 512  # of these, so many for the rank


class Watch:
    """What an epoch shows, gathered on the device from the steps themselves: no further pass, no synchronisation.

    watched: names of what a method's steps show besides. sums: (3 + watched,) of loss, these, spread of z, and steps.
    features: (ROWS, width), z: (RANKED, d), index: (ROWS,) of the last images of the epoch, -1 where there is none yet.
    All of it belongs to the state of a training.
    """

    def __init__(self, width: int, d: int, device: torch.device, watched: tuple[str, ...] = ()):
        self.watched = watched
        self.sums = torch.zeros(3 + len(watched), device=device)
        self.features = torch.zeros(PROBE_IMAGES, width, device=device)
        self.z = torch.zeros(RANK_IMAGES, d, device=device)
        self.index = torch.full((PROBE_IMAGES,), -1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add_step(self, output: Step, index: Tensor, ahead: int) -> None:
        """One step. index: (B,) of its images. ahead: images that the epoch still brings after these."""
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
        """The epoch's figures; everything begins again."""
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
        """For a checkpoint."""
        return {"sums": self.sums, "features": self.features, "z": self.z, "index": self.index}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        for name, value in state.items():
            getattr(self, name).copy_(value)


def effective_rank(z: Tensor) -> float:
    """RankMe (Garrido et al., 2023): the exponential of the entropy of the normalised singular values. z: (n, d)."""
    gram = z.double() @ z.double().T if len(z) < z.shape[1] else z.double().T @ z.double()
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()  # the singular values, in a fraction of the time
    p = values / values.sum().clamp_min(1e-12) + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))


def ridge_probe_error(features: Tensor, index: Tensor, dataset: Dataset) -> float | None:
    """Error in percent, by the data set's metric, of ridge regression onto the labels: fitted in closed form on two thirds of
    these images, scored on the others. Only images of the train split have a say.

    features: (n, width), as they were when the image was trained on. index: (n,) which image. None if there are too few.
    """
    import numpy as np

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
    """Why the representation of an epoch counts as collapsed, or nothing.

    z are the vectors that the method's loss compares (Step.z). A loss of -1 is no evidence: SimCLIC has z_i = z_j, and two
    views may be easy. All images in one place (spread near 0) is, and so are a few dimensions of all that there could be: less
    than 5 %, a line drawn by us between 25 % of a healthy run and 3 % of one without stop-gradient.
    """
    if not row:
        return ""
    if row["spread"] < 0.1:
        return f"all images have nearly one representation: spread {row['spread']:.3f}, where 1 fills the sphere"
    if row["rank"] < 0.05 * row["rank_of"]:
        return f"the representations fill few dimensions: effective rank {row['rank']:.1f} of {row['rank_of']}"
    return ""
