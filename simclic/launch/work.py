"""What one process does: everything that is missing of one Run."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from simclic import data, store
from simclic.claim import Busy
from simclic.plan import cost
from simclic.progress import shown
from simclic.spec import USUAL, Diverged, How, InputError, Protocol, Run, Tell
from simclic.store import DIVERGED

Work = tuple[Run, tuple[Protocol, ...]]


def work(
    run: Run, protocols: tuple[Protocol, ...], runs: Path, root: Path, device: str, tell: Tell, how: How = USUAL
) -> dict[str, float]:
    """Everything that is missing of one Run: its encoder, then each result. Returns the error under each protocol in percent.

    What exists is not done again. Raises InputError or Diverged, after recording the reason beside the Run.
    """
    import torch

    from simclic.data.images import Images
    from simclic.finetune import finetune
    from simclic.linear import probe
    from simclic.pretrain import described, pretrain

    stage, shares = "pretrain", _shares(run, protocols)
    try:
        dataset = data.load(run.dataset, run.split, root, run.image_size, run.difficult)
        where = torch.device(device)
        store.enter(runs, run, dataset.digest)
        store.forgive(runs, run)
        f = pretrain(run, dataset, runs, where, _part(tell, stage, shares), how)
        images, errors = Images(dataset, run.image_size, where), {}
        collapsed = (store.read_json(store.folder(runs, run) / "pretrain.json") or {}).get("collapsed", "")
        for protocol in protocols:
            stage = protocol.stage
            part = _part(tell, protocol.name, shares)
            if stage == "linear":
                scored = probe(protocol, f, dataset, images, part)  # type: ignore[arg-type]
            else:
                scored = finetune(protocol, f, dataset, images, run.seed, part)  # type: ignore[arg-type]
            measured = {"data": dataset.digest, "seed": run.seed, "collapsed": collapsed, **described(where)}
            store.write_result(runs, run, protocol, scored, **measured)
            errors[protocol.title.lower()] = scored[0]["error"]
        return errors
    except Busy:
        raise  # somebody else's work, and no failure of it
    except (InputError, Diverged) as e:
        with contextlib.suppress(OSError):
            store.fail(runs, run, stage, f"{DIVERGED} {e}" if isinstance(e, Diverged) else str(e))
        raise


def decoded(jobs: list[Work], runs: Path, root: Path, console: Console, failures: dict[str, str]) -> list[Work]:
    """The jobs whose data are whole; each data set is decoded here, on all cores, before many processes ask for it."""
    broken: dict[tuple[str, str, int], str] = {}
    for name, split, size in dict.fromkeys(_data(run) for run, _ in jobs):
        try:
            with shown(console) as tell:
                data.load(name, split, root, size, tell=tell)
        except InputError as e:
            first, *more = str(e).splitlines()
            broken[name, split, size] = first + (f" (and {len(more):,} more: simclic data check {name})" if more else "")
    for run, _ in jobs:
        if why := broken.get(_data(run)):
            failures[run.name] = why
            with contextlib.suppress(OSError):
                store.fail(runs, run, "data", why)
    return [job for job in jobs if _data(job[0]) not in broken]


def _data(run: Run) -> tuple[str, str, int]:
    return run.dataset, run.split, run.image_size


def _shares(run: Run, protocols: tuple[Protocol, ...]) -> dict[str, tuple[float, float]]:
    """Where in the whole work of a Run each stage begins and how much of it that is."""
    prices = {"pretrain": cost(run, ())} | {p.name: cost(run, (p,)) - cost(run, ()) for p in protocols}
    total, before, shares = sum(prices.values()) or 1.0, 0.0, {}
    for stage, price in prices.items():
        shares[stage] = (before / total, price / total)
        before += price
    return shares


def _part(tell: Tell, stage: str, shares: dict[str, tuple[float, float]]) -> Callable[[float, str], None]:
    """`tell`, for one stage of the work."""
    begin, length = shares[stage]
    return lambda share, note: tell(begin + share * length, note)
