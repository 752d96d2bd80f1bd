"""Clusters of the vectors of all images, for the methods that assign images to clusters between epochs."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from simclic.methods.parts import compute_exactly

SCORES = 2**26  # similarities of vectors with centroids that are in memory at a time


def compute_clusters(z: Tensor, centroids: Tensor, iterations: int, spherical: bool) -> tuple[Tensor, Tensor]:
    """Return centroids, (K, d), and the cluster of each row of z, (n,), by k-means. An empty cluster stays as it is.

    z: (n, d) unit vectors. centroids: (K, d) to start from. spherical: centroids have length 1, so that the nearest is the one
    of the largest cosine; else they are means.
    """
    for _ in range(iterations):
        clusters = assign_nearest(z, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, clusters, z)
        sizes = clusters.bincount(minlength=len(centroids))[:, None]
        means = F.normalize(sums, dim=1) if spherical else sums / sizes.clamp_min(1)
        centroids = torch.where(sizes > 0, means, centroids)
    return centroids, assign_nearest(z, centroids)


def assign_nearest(z: Tensor, centroids: Tensor) -> Tensor:
    """Return the index of the nearest centroid, (K, d), to each row of z, (n, d): (n,)."""
    half = centroids.square().sum(dim=1) / 2
    return torch.cat([(scores - half).argmax(dim=1) for scores in split_scores(z, centroids)])


def balance_prototypes(z: Tensor, prototypes: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Return b, (K,), by which softmax(z @ prototypes.T / epsilon + b) spreads the rows of z evenly: Sinkhorn's iterations.

    Over the rows, (n, d), each prototype, (K, d), then has n / K (SeLa, Eq. 6 and 7; SwAV, Eq. 3 and 4), as nearly as the
    iterations bring it.
    """
    b = z.new_zeros(len(prototypes))
    for _ in range(iterations):
        share = torch.full_like(b, -torch.inf)  # logarithm of what each prototype has
        for scores in split_scores(z, prototypes):
            p = (scores / epsilon + b).log_softmax(dim=1)
            share = torch.logaddexp(share, p.logsumexp(dim=0))
        b = b - share
        b = b - b.mean()
    return b


def split_scores(z: Tensor, centroids: Tensor) -> Iterator[Tensor]:
    """Yield z @ centroids.T, (n, K), in parts of the rows that fit into memory."""
    with compute_exactly(z.device):
        for part in z.split(max(1, SCORES // len(centroids))):
            yield part @ centroids.T
