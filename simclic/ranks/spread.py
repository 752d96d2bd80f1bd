"""A model spread over ranks: its backbones compute the own rows, its norms and gradients are those of the whole batch."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from simclic.errors import InputError
from simclic.ranks.group import count_ranks, own_rows

BUCKET = 4_000_000  # numbers of gradients that are sent together


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        whole = x.new_empty(len(x) * count_ranks(), *x.shape[1:])
        dist.all_gather_into_tensor(whole, x.contiguous())
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad[own_rows(len(grad))]  # every rank computes the same loss: nothing is to be summed


def gather_rows(x: Tensor) -> Tensor:
    """Return the rows of all ranks in their order, (B, ...). x: the own rows, to which their gradient goes back."""
    if count_ranks() == 1:
        return x
    whole: Tensor = _Gather.apply(x)
    return whole.contiguous(memory_format=torch.channels_last) if whole.ndim == 4 else whole


def gather_output(module: nn.Module, given: Any, y: Tensor) -> Tensor:
    """Return the vectors of all rows from those of the own rows, as a forward hook of a backbone. Copies of it have it, too."""
    return gather_rows(y)


class _SyncedNorm(torch.autograd.Function):
    """Batch norm by the mean and variance over the rows of all ranks: y, mean, variance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        means, variances = gather_rows(torch.cat([mean, variance])[None]).chunk(2, dim=1)  # (ranks, C)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale = ctx.saved_tensors
        g, centred = grad.float(), x.float() - mean[:, None, None]
        own = torch.stack([g.sum((0, 2, 3)), (g * centred).sum((0, 2, 3)) * scale])  # of the bias and of the weight
        total = own.clone()
        dist.all_reduce(total)
        of_bias, of_weight = total / (grad.numel() / len(mean) * count_ranks())
        dx = (
            g.sub(of_bias[:, None, None])
            .sub_(centred.mul_((scale * of_weight)[:, None, None]))
            .mul_((scale * weight)[:, None, None])
        )
        return dx.to(x.dtype), own[1], own[0], None


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the rows of all ranks. torch.nn.SyncBatchNorm is the same on GPUs alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, (B / ranks, C, H, W)."""
        if not self.training or count_ranks() == 1:
            return super().forward(x)
        y, mean, variance = _SyncedNorm.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            count = x.numel() // len(mean) * count_ranks()
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)  # type: ignore[union-attr, arg-type]
        return y


class Spread:
    """A model whose backbones compute the own rows alone: their batch norms see all rows, and gradients are those of the batch.

    model: with backbones that have `gather_output` as a hook. Raise InputError for a batch or norms that cannot be spread.
    """

    def __init__(self, model: nn.Module, batch: int):
        self.bucket: list[Tensor] = []  # parameters whose gradients are there and not yet on their way
        self.pending: list[tuple[dist.Work, Tensor, list[Tensor]]] = []
        self.parted: list[nn.Module] = []  # norms that see parts of a batch, whose statistics differ between ranks
        count = count_ranks()
        if count == 1:
            return
        if batch % count:
            raise InputError(f"batch_size={batch} is not a multiple of ranks={count}, as equal parts of a batch need; change one")
        backbones = [m for m in model.modules() if gather_output in m._forward_hooks.values()]
        for norm in dict.fromkeys(norm for f in backbones for norm in f.modules()):  # in the same order on every rank
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                self._spread_norm(norm)
        self.partial = {p for f in backbones for p in f.parameters()}
        for p in model.parameters():
            if p.requires_grad:
                p.register_post_accumulate_grad_hook(self._add_gradient)

    def _spread_norm(self, norm: nn.Module) -> None:
        count, groups = count_ranks(), getattr(norm, "groups", 1)
        if groups > 1:
            if groups % count:
                raise InputError(f"norm_groups={groups} is not a multiple of ranks={count}, as whole parts need; change one")
            norm.groups = groups // count  # type: ignore[assignment]
            self.parted.append(norm)
        elif type(norm) is nn.BatchNorm2d and norm.affine and norm.momentum is not None:
            norm.__class__ = nn.SyncBatchNorm if norm.weight.is_cuda else SyncedBatchNorm2d  # type: ignore[assignment]
            norm.process_group = None  # type: ignore[assignment]
        else:
            raise InputError(
                f"ranks={count}: a {type(norm).__name__} of this backbone cannot see all rows of a batch; set ranks=1"
            )

    def _add_gradient(self, p: Tensor) -> None:
        self.bucket.append(p)
        if sum(each.numel() for each in self.bucket) >= BUCKET:
            self._send_bucket()

    def _send_bucket(self) -> None:
        """Sum the gradients of backbones, in which each rank has the share of its rows, beside the rest of the backward pass.

        The others are the same on all ranks up to the last bits; they are averaged, so that ranks never drift apart.
        """
        flat = torch.cat([_flat_gradient(p) / (1 if p in self.partial else count_ranks()) for p in self.bucket])
        work = dist.all_reduce(flat, async_op=True)
        assert work
        self.pending.append((work, flat, self.bucket))
        self.bucket = []

    def finish_gradients(self) -> None:
        """Wait for the gradients of all ranks, and average the statistics of parted norms."""
        if self.bucket:
            self._send_bucket()
        for work, flat, params in self.pending:
            work.wait()
            torch._foreach_copy_([_flat_gradient(p) for p in params], list(flat.split([p.numel() for p in params])))
        self.pending.clear()
        if self.parted:
            statistics = [v for norm in self.parted for v in (norm.running_mean, norm.running_var) if isinstance(v, Tensor)]
            flat = torch.cat(statistics) / count_ranks()
            dist.all_reduce(flat)
            torch._foreach_copy_(statistics, list(flat.split([len(v) for v in statistics])))


def _flat_gradient(p: Tensor) -> Tensor:
    """Return a gradient as one row of numbers, in whatever order its weight lies in memory on every rank."""
    assert p.grad is not None
    return p.grad.as_strided((p.grad.numel(),), (1,))
