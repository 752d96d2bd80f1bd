"""Parts of a grid that several processes train side by side, each on a device of its own: members are independent."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from simclic import ranks
from simclic.errors import InputError
from simclic.evaluate.finetune.grid_progress import GridProgress
from simclic.evaluate.finetune.member import Setting
from simclic.text import count_noun


@dataclass(frozen=True)
class Helpers:
    """Processes beside the one that leads. start: starts them, given the port of the store that they reach."""

    count: int
    start: Callable[[int], None]


@contextmanager
def share_settings(every: Sequence[Setting], progress: GridProgress, helpers: Helpers | None) -> Iterator[list[Setting]]:
    """Yield the settings that are for this process; on exit, wait for those of the others and add their rows to progress.

    every: all settings of the grid; those with a row in progress, or in the files that helpers left, are done. On exit, rows are
    in their order. Raise RankLost if one of the others ends before its part is done, InputError if its rows are lost.
    """
    progress.merge_parts(every)
    settings = progress.list_open(every)
    if helpers is None or len(settings) < 2:
        yield settings
    else:
        yield from _share_with_helpers(settings, progress, helpers)
        progress.merge_parts(every)
    progress.sort_rows(every)
    if lost := progress.list_open(every):
        what = f"{progress.name}: no result of {count_noun(len(lost), 'setting')}, since a file of another process is damaged"
        raise InputError(f"{what}; run it again")


def _share_with_helpers(settings: list[Setting], progress: GridProgress, helpers: Helpers) -> Iterator[list[Setting]]:
    """Yield the part of these settings that is for this process, then wait for those of the others."""
    count = helpers.count + 1
    cuts = [len(settings) * rank // count for rank in range(count + 1)]
    parts = [settings[begin:end] for begin, end in pairwise(cuts)]
    store = ranks.serve_store()
    for rank, part in enumerate(parts):
        store.set(f"part {rank}", json.dumps(part))
    helpers.start(store.port)
    yield parts[0]
    with progress.stop_clock():
        ranks.wait_for_parts(store, count)


@contextmanager
def read_part(place: tuple[int, str, int]) -> Iterator[list[Setting]]:
    """Yield the settings that are for this process. place: its number, and host and port of the store of the one that leads."""
    rank, host, port = place
    store = ranks.reach_store(host, port)
    with ranks.tell_failure(store, rank):
        yield [(lr, decay) for lr, decay in json.loads(store.get(f"part {rank}"))]
        store.set(f"done {rank}", "")
