"""Become one of some ranks, and name those that are lost."""

import json
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore  # torch.distributed has them, unknown to mypy

from simclic import stop
from simclic.errors import InputError, RankLost
from simclic.ranks.group import Group

SILENCE = timedelta(seconds=45)  # after which a rank that takes no part in a step counts as lost
LOOPBACK = "127.0.0.1"
LEAVING = timedelta(seconds=10)  # for all ranks to read what the first one said last
JOINING = timedelta(minutes=10)  # for all ranks to start, and to read their data


def reach_store(host: str, port: int) -> TCPStore:
    """Return the store that rank 0 serves. Raise RankLost if it does not answer."""
    try:
        return TCPStore(host, port, is_master=False, timeout=SILENCE)
    except RuntimeError as e:
        raise RankLost(f"rank 0 does not answer on {host}:{port}") from e


@contextmanager
def tell_failure(store: Store, rank: int) -> Iterator[None]:
    """Let rank 0 know why this rank fails before it has joined, as while it reads its data."""
    try:
        yield
    except Exception as e:
        with suppress(Exception):  # the first rank has ended
            if not store.check([f"why {rank}"]):
                store.set(f"why {rank}", _describe_error(e))
        raise


def tell_end(rank: int, host: str, port: int, why: str) -> None:
    """Let rank 0 know why a rank cannot join, for one that can no longer say so itself, in one line."""
    with suppress(Exception):  # the first rank has ended
        TCPStore(host, port, is_master=False, timeout=SILENCE).set(f"end {rank}", why)


def serve_store(is_local: bool = True) -> TCPStore:
    """Return the store of a new group of ranks, of which this process is the first; its port is free.

    is_local: whether all ranks are on this machine; no other can reach the store then.
    """
    if not is_local:
        return TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False)
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    return TCPStore(LOOPBACK, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


@contextmanager
def join(store: Store, rank: int, count: int, device: torch.device, is_local: bool) -> Iterator[None]:
    """Be one of `count` ranks for a while. is_local: whether all are on this machine.

    Raise InputError if the ranks have different devices, and RankLost, on the first rank, if another ends or does not answer.
    """
    where = {"host": os.uname().nodename, "device": str(device), "kind": _name_device(device)}
    Group.waits = 0
    try:
        store.set(f"rank {rank}", json.dumps(where))
        if rank == 0:
            _wait_for_ranks(store, count)
        store.wait(["start"], JOINING)
        if is_local:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the name of this machine may lead nowhere
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=count, timeout=SILENCE)
        Group.store = store
        yield
    except stop.Stopped:
        _leave_together(store, rank, count)
        raise
    except Exception as e:
        lost = isinstance(e, dist.DistError) or any(word in str(e) for word in ("gloo", "NCCL", "Timed out", "Connection"))
        if rank:
            with suppress(Exception):  # the first rank has ended
                store.set(f"why {rank}", "" if lost else _describe_error(e))
            raise
        if lost and not isinstance(e, InputError):
            if device.type == "cpu":  # so that the others notice it, too; on a GPU, it may wait for the lost rank
                with suppress(Exception):  # perhaps it never began
                    dist.destroy_process_group()
            raise RankLost(_explain_loss(store, count)) from e
        raise
    else:
        _leave_together(store, rank, count)
        dist.destroy_process_group()
    finally:
        Group.store = None


def _leave_together(store: Store, rank: int, count: int) -> None:
    """Keep the store, which ends with the first rank, until the others need it no more."""
    with suppress(Exception):  # one that was lost meanwhile needs nothing
        if rank:
            store.set(f"leaves {rank}", "")
        else:
            store.wait([f"leaves {other}" for other in range(1, count)], LEAVING)


def try_all_reduce(store: Store, rank: int, count: int, device: str, is_local: bool = True) -> str:
    """Sum a number over ranks. is_local: whether all are on this machine. Return what went wrong, or ""."""
    try:
        with join(store, rank, count, torch.device(device), is_local):
            total = torch.ones((), device=device)
            dist.all_reduce(total)
            return "" if total == count else f"the sum of {count} ones is {float(total):g}"
    except (RuntimeError, InputError) as e:
        return str(e).splitlines()[0]


def _name_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _describe_error(e: Exception) -> str:
    return (f"{type(e).__name__}: {e}".splitlines())[0]


def wait_for_parts(store: Store, count: int) -> None:
    """Wait until all ranks but the first are done with what they compute alone. Raise RankLost if one ends before."""
    _wait_for_word(store, "done", range(1, count))


def _wait_for_word(store: Store, word: str, expected: range, seconds: float = math.inf) -> None:
    """Wait until each of these ranks has set a word. Raise RankLost if one ends instead, or does not within `seconds`."""
    until, count = time.monotonic() + seconds, expected.stop
    while late := [rank for rank in expected if not store.check([f"{word} {rank}"])]:
        for rank, end in ((rank, end) for rank in late for end in ("why", "end") if store.check([f"{end} {rank}"])):
            why = store.get(f"{end} {rank}").decode()
            before = "it could take part" if word == "rank" else "it was done"
            raise RankLost(f"rank {rank} of {count} failed before {before}: {why}; run it again")
        if time.monotonic() > until:
            names = ", ".join(map(str, late))
            raise RankLost(f"rank {names} of {count} did not start within {seconds / 60:g} minutes; run it again")
        time.sleep(0.1)


def _wait_for_ranks(store: Store, count: int) -> None:
    """Wait for all ranks, on the first one, and let them start. A rank that is slow is waited for, as on a shared disk.

    Raise RankLost if one ends instead, and InputError if they are on different kinds of device.
    """
    _wait_for_word(store, "rank", range(count), JOINING.total_seconds())
    kinds = {json.loads(store.get(f"rank {rank}"))["kind"]: rank for rank in range(count)}
    if len(kinds) > 1:
        raise InputError(f"ranks={count} are on different devices ({', '.join(kinds)}); ask for one kind, or set ranks=1")
    store.set("start", "")


def _explain_loss(store: Store, count: int) -> str:
    """Return which ranks were lost and where they were, or why one of them failed. Those that live say so within seconds."""
    others, until = set(range(1, count)), time.monotonic() + 5
    while others and time.monotonic() < until:
        for rank in [rank for rank in others if store.check([f"why {rank}"])]:
            others.remove(rank)
            if why := store.get(f"why {rank}").decode():
                return f"rank {rank} of {count} failed: {why}"
        time.sleep(0.1)
    places = []
    for rank in sorted(others) if store.check([f"rank {rank}" for rank in sorted(others)]) else ():
        where = json.loads(store.get(f"rank {rank}"))
        places.append(f"rank {rank} of {count} ({where['device']} of {where['host']})")
    what = " and ".join(places) or f"one of {count} ranks"
    return f"{what} ended or did not answer for {SILENCE.seconds} s; run it again, and it goes on from the last checkpoint"
