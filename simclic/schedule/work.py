"""What one process does: everything that is missing of one Run."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from simclic import data, stop
from simclic.errors import Diverged, InputError
from simclic.experiment import USUAL, Finetune, How, Linear, Protocol, Run
from simclic.progress import Tell, shown
from simclic.schedule.cost import rough
from simclic.store.claim import Busy
from simclic.store.result_file import Scored
from simclic.store.run_folder import RunFolder

Work = tuple[Run, tuple[Protocol, ...]]


class Waits(InputError):
    """What this work builds on is not there: no failure of its own."""


def work(
    run: Run, protocols: tuple[Protocol, ...], runs: Path, root: Path, device: str, tell: Tell, how: How = USUAL,
    trains: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Everything that is missing of one Run: its encoder, then each result. Returns the error under each protocol in percent.

    What exists is not done again. trains: make the encoder if it is not there; otherwise Waits is raised, since that is the
    work of somebody else. Raises InputError or Diverged, after recording the reason beside the Run; Busy if another process
    is at work.
    """
    import torch

    from simclic.evaluate.finetune import Kept, Task, finetune
    from simclic.train.pretrain import described, prepared, pretrain

    shares, where = _shares(run, protocols, trains), torch.device(device)
    with _recorded(runs, run, "pretrain" if trains else protocols[0].stage):
        dataset = data.load(run.dataset, run.split, root, run.image_size, run.difficult)
        RunFolder(runs, run).create(dataset.digest)
        if not trains:
            _must_be_there(runs, run)
        f = pretrain(run, dataset, runs, where, _part(tell, "pretrain", shares), how)
    images, errors = prepared(run, dataset, runs, where), {}
    made = RunFolder(runs, run).encoder_record() or {}
    collapsed, of = made.get("collapsed", ""), f"{dataset.digest} {made.get('backbone_sha256')}"
    for protocol in protocols:
        stop.check()
        with _recorded(runs, run, protocol.stage), RunFolder(runs, run).claim(protocol) as still_ours:
            found = RunFolder(runs, run).read_result(protocol)  # somebody may have been faster
            if found is None:
                part = _part(tell, protocol.name, shares)
                if isinstance(protocol, Finetune):
                    seen = _seen(protocol, run, dataset, images, runs, root)
                    kept = Kept(runs, run, protocol, of, still_ours)
                    scored = finetune(Task(protocol, f, dataset, seen, run.seed, how), kept, part)
                else:
                    kept = None
                    scored = _probed(protocol, run, f, dataset, images, runs, part)
                measured = {"data": dataset.digest, "seed": run.seed, "collapsed": collapsed, **described(where)}
                still_ours()
                RunFolder(runs, run).write_result(protocol, scored, **measured)
                if kept is not None:
                    kept.drop()  # now that nothing can be lost; `simclic gc` finds what a kill in between leaves
                found = scored[0]
            errors[protocol.title.lower()] = found["error"]
    return errors


def _probed(protocol: Linear, run: Run, f: Any, dataset: data.Dataset, images: Any, runs: Path, tell: Tell) -> Scored:
    from simclic.evaluate.linear import features, probe

    x = features(protocol, run, f, images, runs, lambda share, note: tell(share / 2, note))
    return probe(protocol, x, dataset, lambda share, note: tell((1 + share) / 2, note))


def _seen(protocol: Finetune, run: Run, dataset: data.Dataset, images: Any, runs: Path, root: Path) -> Any:
    """Whole images as the protocol evaluates them: others than `images` if they are resized to something larger first."""
    from simclic.train.pretrain import prepared

    side = protocol.side(run.image_size)
    if side == run.image_size:
        return images
    if dataset.files:
        dataset = data.load(run.dataset, run.split, root, side, run.difficult)
    return prepared(run, dataset, runs, images.device, side)


@contextlib.contextmanager
def _recorded(runs: Path, run: Run, stage: str) -> Iterator[None]:
    """Forget that a stage failed before; if it fails now, leave the reason beside the Run for whoever asks."""
    RunFolder(runs, run).forget_failure(stage)
    try:
        yield
    except (Busy, Waits):
        raise  # somebody else's work, and no failure of it
    except (InputError, Diverged) as e:
        RunFolder(runs, run).record_failure(stage, e)
        raise


def _must_be_there(runs: Path, run: Run) -> None:
    """Raise Waits if the encoder is not made yet. That this work was started is no proof: Slurm forgets what jobs waited for."""
    folder = RunFolder(runs, run)
    if folder.encoder_record() is None:
        raise Waits(
            f"{run.name}: waits for its pre-training ({folder.why_no_encoder()}); run: simclic status --retry-failed EXHIBIT"
        )


def stage(runs: Path, run: Run, protocols: tuple[Protocol, ...]) -> str:
    """The first stage of some work that is not done."""
    folder = RunFolder(runs, run)
    if not folder.has_encoder():
        return "pretrain"
    left = [p.stage for p in protocols if not folder.has_result(p)]
    return left[0] if left else "pretrain"


def decoded(
    jobs: list[Work],
    runs: Path,
    root: Path,
    console: Console,
    failures: dict[str, str],
    asked: Callable[[], bool] = lambda: False,
) -> list[Work]:
    """The jobs whose data are whole; each data set is decoded here, on all cores, before many processes ask for it.

    Raises Stopped if that is asked for.
    """

    def look(share: float, note: str) -> None:
        if asked():
            raise stop.Stopped
        show(share, note)

    broken: dict[tuple[str, str, int], str] = {}
    for name, split, size in dict.fromkeys(one for job in jobs for one in _data(*job)):
        try:
            with shown(console) as show:
                data.load(name, split, root, size, tell=look)
        except InputError as e:
            first, *more = str(e).splitlines()
            broken[name, split, size] = first + (f" (and {len(more):,} more: simclic data check {name})" if more else "")
    for run, protocols in jobs:
        if why := next((broken[one] for one in _data(run, protocols) if one in broken), ""):
            failures[run.name] = why
            RunFolder(runs, run).record_failure(stage(runs, run, protocols), why)
    return [job for job in jobs if not any(one in broken for one in _data(*job))]


def _data(run: Run, protocols: tuple[Protocol, ...]) -> list[tuple[str, str, int]]:
    """Data set, split and size of what some work sees."""
    sizes = [run.image_size, *(p.side(run.image_size) for p in protocols if isinstance(p, Finetune))]
    return [(run.dataset, run.split, size) for size in dict.fromkeys(sizes)]


def _shares(run: Run, protocols: tuple[Protocol, ...], trains: bool) -> dict[str, tuple[float, float]]:
    """Where in the work of a Run each stage begins and how much of it that is."""
    prices = {"pretrain": rough(run, ()) if trains else 0.0} | {p.name: rough(run, (p,)) - rough(run, ()) for p in protocols}
    total, before, shares = sum(prices.values()) or 1.0, 0.0, {}
    for stage, price in prices.items():
        shares[stage] = (before / total, price / total)
        before += price
    return shares


def _part(tell: Tell, stage: str, shares: dict[str, tuple[float, float]]) -> Callable[[float, str], None]:
    """`tell`, for one stage of the work."""
    begin, length = shares[stage]
    return lambda share, note: tell(begin + share * length, note)
