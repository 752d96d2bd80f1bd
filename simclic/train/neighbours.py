"""k nearest neighbours (Wu et al., 2018, Section 3.4): their votes, and the error on val that a pre-training logs."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclic.data import Dataset
from simclic.data.images import Images, seeded_generator
from simclic.data.metrics import METRICS
from simclic.experiment import Knn, Run
from simclic.experiment.knn_log import count_sample, list_logged_epochs
from simclic.train import numerics

CELLS = 2**24  # similarities, or votes, that are in memory at a time
BATCH = 256


@torch.no_grad()
def sum_votes(bank: Tensor, shown: Tensor, queries: Tensor, k: int, temperature: float) -> Tensor:
    """Return the votes for each class: the sum of exp((s - 1) / T) over those of the k nearest that show it, (Q, C) float32.

    s: cosine of two features; without the constant factor exp(1 / T) no vote overflows. bank: (N, d) features, N >= k. shown:
    (N, C) float32, 1 where an image of the bank shows a class, else 0. queries: (Q, d) features.
    """
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    rows = max(1, CELLS // max(len(bank), k * shown.shape[1]))
    votes = []
    for part in queries.split(rows):
        s, nearest = (part @ bank.T).topk(k)
        weights = ((s - 1) / temperature).exp()
        votes.append((weights[:, None] @ shown[nearest])[:, 0])  # (B, 1, k) @ (B, k, C): no atomic additions, so deterministic
    return torch.cat(votes)


def one_hot(y: np.ndarray, classes: int) -> Tensor:
    """Return (n, classes) float32, 1 where an image shows a class. y: (n,) class indices, or (n, K) with 1, 0 or -1."""
    return torch.from_numpy((np.eye(classes)[y] if y.ndim == 1 else y == 1).astype(np.float32))


class NeighbourLog:
    """The error on val of k nearest neighbours, after some epochs of a training (see experiment/knn_log.py).

    It is measured on the same images for all Runs of a data set: those of val are the queries, those of train the bank, and
    k = 200 or, of a bank of fewer than 2,000, a tenth of it. per_epoch: images that are trained on.
    """

    def __init__(self, run: Run, dataset: Dataset, per_epoch: int):
        splits = dataset.splits
        sizes = count_sample(len(splits.train), len(splits.val))
        self.epochs, self.dataset, self.precision = list_logged_epochs(run.epochs, per_epoch, sum(sizes)), dataset, run.precision
        self.bank, self.queries = (_draw(*each) for each in zip((splits.train, splits.val), sizes, strict=True))
        self.k, self.temperature = max(1, min(Knn().k, len(self.bank) // 10)), Knn().temperature

    @torch.no_grad()
    def measure_epoch(self, epoch: int, f: nn.Module, images: Images) -> dict[str, float]:
        """Return {"knn": the error in percent}; {} if it is not logged after this epoch, or is undefined. epoch: from 1.

        f: the backbone, which is in eval mode for a moment; nothing of it changes, and it is not compiled a second time.
        """
        if epoch not in self.epochs:
            return {}
        modes, features = {m: m.training for m in f.modules()}, []
        f.eval()
        try:
            with numerics.autocast(images.device, self.precision):
                for x, _ in images.stream(torch.from_numpy(np.concatenate([self.bank, self.queries])).split(BATCH)):
                    features.append(f.forward(x).float())  # not f(x), which would be compiled anew for eval mode
        finally:
            for m, mode in modes.items():
                m.training = mode
        x, labels = torch.cat(features), self.dataset.labels
        if not bool(x.isfinite().all()) or (labels.ndim == 2 and not (labels[self.queries] == 1).any()):
            return {}
        shown = one_hot(labels[self.bank], self.dataset.facts.classes).to(x.device)
        votes = sum_votes(x[: len(self.bank)], shown, x[len(self.bank) :], self.k, self.temperature)
        return {"knn": METRICS[self.dataset.facts.metric](labels[self.queries], votes.cpu().numpy())}


def _draw(index: np.ndarray, count: int) -> np.ndarray:
    """Return `count` of these images, in their order, drawn by a seed of their own."""
    order = torch.randperm(len(index), generator=seeded_generator("cpu", "knn"))
    return index[np.sort(order[:count].numpy())]
