"""The group of ranks that this process belongs to, and what they decide together."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store  # torch.distributed has it, unknown to mypy

from simclic.errors import InputError

WAITING = timedelta(hours=6)  # for the first rank, while it alone evaluates or saves


class Group:
    """The store of this group of ranks, which the first one serves; None in a single process."""

    store: Store | None = None
    waits = 0


def count_ranks() -> int:
    """Return how many processes compute this pre-training together."""
    return dist.get_world_size() if Group.store else 1


def own_rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if Group.store else 0


def own_rows(count: int) -> slice:
    """Return which rows of a batch of `count` belong to this process."""
    each = count // count_ranks()
    return slice(own_rank() * each, (own_rank() + 1) * each)


@contextmanager
def alone() -> Iterator[None]:
    """Make this process count as the only one in this block, to do something for the whole batch."""
    store, Group.store = Group.store, None
    try:
        yield
    finally:
        Group.store = store


def agree(*flags: bool) -> list[bool]:
    """Return each flag as true if it is true on any rank. A rank that another waits for in vain is noticed here."""
    if count_ranks() == 1:
        return list(flags)
    votes = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return [bool(vote) for vote in votes]


def check_same(number: int, what: str) -> None:
    """Raise InputError if a number is not the same on all ranks. what: the number, for the message."""
    if count_ranks() > 1:
        ends = torch.tensor([number, -number])
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        if ends.sum():
            raise InputError(f"{what} is {int(ends[0])} on one rank and {-int(ends[1])} on another; do all see the same folder?")


@contextmanager
def first_alone() -> Iterator[bool]:
    """Yield whether this is the first rank, which alone evaluates or saves in this block. The others wait for its end."""
    if count_ranks() == 1:
        yield True
        return
    assert Group.store
    Group.waits += 1
    key = f"done {Group.waits}"
    if own_rank():
        yield False
        Group.store.wait([key], WAITING)
    else:
        yield True
        Group.store.set(key, "")
