"""What methods have beside the encoder: momentum encoder, queue, memory bank, prototypes, batch norm over parts of a batch."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclic.errors import InputError
from simclic.experiment import Run


def compute_exactly(device: torch.device) -> torch.autocast:
    """Return a context without autocast, for a loss: products of vectors stay in float32, whatever the encoder computes in."""
    return torch.autocast(device.type, enabled=False)


def copy_as_target(online: nn.Module) -> nn.Module:
    """Return a momentum encoder: a copy that no gradient reaches. It stays in training mode, with statistics of its own."""
    return copy.deepcopy(online).requires_grad_(False)


@torch.no_grad()
def update_target(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """Move each weight of a momentum encoder towards the online one's: momentum * target + (1 - momentum) * online."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1 - momentum)


def scheduled_momentum(run: Run, share: float) -> float:
    """Return the momentum of the momentum encoder (BYOL, Section 3.3, "tau"). share: of the training that is done."""
    if run.target_schedule == "constant":
        return run.target_momentum
    return 1 - (1 - run.target_momentum) * (1 + math.cos(math.pi * share)) / 2


class KeyQueue(nn.Module):
    """The newest keys of earlier batches, as negatives (MoCo, Section 3.2). Its two tensors are in the state_dict.

    keys: (K, d) unit vectors, of which the first min(K, pushed) are filled. pushed: () how many keys there were so far.
    """

    keys: Tensor
    pushed: Tensor

    def __init__(self, size: int, d: int):
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, d))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def compare_keys(self, q: Tensor) -> Tensor:
        """Return the similarities of unit vectors, (B, d), with the keys: (B, K); -inf where there is none yet.

        The official code begins with random keys. An encoder separates itself from these by making all its vectors alike, from
        which a training of few steps does not recover.
        """
        empty = torch.arange(len(self.keys), device=q.device) >= self.pushed
        return (q @ self.keys.clone().T).masked_fill(empty, -torch.inf)

    @torch.no_grad()
    def push_keys(self, keys: Tensor) -> None:
        """Put keys, (n, d), in place of the oldest; of more than K keys, the last K."""
        size, skipped = len(self.keys), max(0, len(keys) - len(self.keys))
        at = (self.pushed + torch.arange(skipped, len(keys), device=keys.device)) % size
        self.keys[at] = keys[skipped:].to(self.keys.dtype)
        self.pushed += len(keys)


class MemoryBank(nn.Module):
    """A vector of each trained image, the moving average of what its visits gave (InsDis, Section 3.2; PIRL, Section 3.2).

    vectors: (N, d) unit vectors, random ones at first. row: (images,) an image's row of them; -1 before its first visit, at
    which it takes the next one, so that no row is an image's that is not trained on. Both are in the state_dict.
    """

    vectors: Tensor
    row: Tensor

    def __init__(self, images: int, trained: int, d: int, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("vectors", F.normalize(torch.randn(trained, d), dim=1))
        self.register_buffer("row", torch.full((images,), -1))

    @torch.no_grad()
    def find_rows(self, index: Tensor | None) -> Tensor:
        """Return the rows of the images of a batch, each of which is there once: (B,) to (B,). Raise InputError for None."""
        if index is None:
            raise InputError("index=None: a memory bank has a row for each image; pass the image of each row of the batch")
        row = self.row[index]
        following = self.row.max() + (row < 0).cumsum(dim=0)
        self.row[index] = torch.where(row < 0, following, row)
        return self.row[index]

    def count_visited(self) -> int:
        """Return how many images have a row: the first ones, in the order of their first visits."""
        return int(self.row.max()) + 1 if len(self.row) else 0

    @torch.no_grad()
    def update_rows(self, rows: Tensor, z: Tensor) -> None:
        """Move these rows, (B,), towards unit vectors z, (B, d): momentum * old + (1 - momentum) * z, of length 1 again."""
        self.vectors[rows] = F.normalize(self.vectors[rows].lerp(z.to(self.vectors.dtype), 1 - self.momentum), dim=1)

    def compare_rows(self, z: Tensor, temperature: float) -> Tensor:
        """Return similarities of z, (B, d), with all vectors over the temperature: (B, N). An update may follow at once."""
        return z @ self.vectors.clone().T / temperature


def queue_size(run: Run, trained: int) -> int:
    """Return the Run's length of a queue, or the one that follows from the number of images that are trained on.

    That is the largest power of two up to half of the images beyond a batch, and up to the larger of 4,096 (MoCo's authors, on
    CIFAR) and a sixteenth of the images (their 65,536 on ImageNet). Raise InputError if keys of a batch's own images, of the
    epoch before, would be among the negatives.
    """
    beyond = trained - run.batch_size
    size = run.queue_size or 2 ** int(math.log2(max(1, min(beyond / 2, max(4096, trained / 16)))))
    if size > beyond:
        rule = f"must be at most {max(0, beyond):,}, the {trained:,} training images less a batch of {run.batch_size}"
        remedy = "use a smaller one, or queue_size=0 for one that fits" if run.queue_size else "use a smaller batch_size"
        raise InputError(f"queue_size={size}: {rule}; {remedy}")
    return size


def count_prototypes(run: Run, trained: int, most: int) -> int:
    """Return the Run's number of prototypes, or the one that follows from the number of images that are trained on.

    That is `most`, the method's, up to a tenth of the images. Raise InputError for more prototypes than images.
    """
    count = run.prototypes or max(2, min(most, trained // 10))
    if count > trained:
        raise InputError(
            f"prototypes={count} is more than the {trained:,} training images; use fewer, or 0 for a number that fits"
        )
    return count


@torch.no_grad()
def prototypes_in_use(p: Tensor) -> Tensor:
    """Return how many prototypes tell images apart: (). p: (B, K) probability of each prototype for each image.

    It is the exponential of the mutual information of image and prototype, between 1 and the smaller of B and K: 1 if all images
    have the same probabilities, be they on one prototype or equal on all, which are the two ways to collapse (DINO, Section 5.3).
    """
    mean = p.mean(dim=0)
    return (torch.xlogy(p, p).sum(dim=1).mean() - torch.xlogy(mean, mean).sum()).exp()


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that sees `groups` equal parts of a batch apart, as on as many GPUs; in evaluation, plain batch norm."""

    groups = 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, (B, C, H, W), each part by its own mean and deviation."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(x)
        batch, channels, height, width = x.shape
        mean, var = (v.repeat(self.groups) for v in (self.running_mean, self.running_var))
        weight, bias = (None if v is None else v.repeat(self.groups) for v in (self.weight, self.bias))
        parts = x.reshape(self.groups, batch // self.groups, channels, height, width).transpose(0, 1)
        y = F.batch_norm(
            parts.reshape(batch // self.groups, -1, height, width), mean, var, weight, bias, True, self.momentum or 0.0, self.eps
        )
        with torch.no_grad():
            self.running_mean.copy_(mean.view(self.groups, channels).mean(dim=0))
            self.running_var.copy_(var.view(self.groups, channels).mean(dim=0))
        return y.reshape(batch // self.groups, self.groups, channels, height, width).transpose(0, 1).reshape(x.shape)


def group_batch_norms(f: nn.Module, run: Run) -> None:
    """Make the batch norms of a backbone see parts of a batch apart, against the leak that MoCo's shuffled batch norm prevents.

    Raise InputError if a batch cannot be parted so, or if the backbone has norms that cannot.
    """
    if run.norm_groups == 1:
        return
    if run.batch_size % run.norm_groups or run.batch_size < 2 * run.norm_groups:
        rule = f"a batch must be so many parts of equal size, of two images or more, and batch_size={run.batch_size} is not"
        raise InputError(f"norm_groups={run.norm_groups}: {rule}; change one of the two, or set norm_groups=1")
    for norm in f.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = GroupedBatchNorm2d
            norm.groups = run.norm_groups  # type: ignore[assignment]
        elif isinstance(norm, nn.modules.batchnorm._BatchNorm) and not isinstance(norm, GroupedBatchNorm2d):
            raise InputError(
                f"norm_groups={run.norm_groups} with backbone={run.backbone!r}: its {type(norm).__name__} cannot be parted; "
                "set norm_groups=1"
            )


def rank_positives(logits: Tensor, positive: Tensor | int = 0) -> Tensor:
    """Return the share of rows of logits, (B, C), whose largest is the positive pair: (). positive: its column, (B,) or one."""
    return (logits.argmax(dim=1) == positive).float().mean()
