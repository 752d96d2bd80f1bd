"""What may go of the data: downloads that were not finished, and decoded images that nobody needs."""

import os
import re
from pathlib import Path

from simclic import data
from simclic.data import folder, manifest
from simclic.experiment import Finetune, Protocol, Run
from simclic.schedule.garbage.entries import DATA, DAY, HOUR, LEFT, Entry, entry, is_folder, listed, old, tree, unfinished
from simclic.schedule.garbage.needs import Needs

DECODED = re.compile(r"(.+)-(\d+)-[0-9a-f]{16}\.(npy|sha256)")
BEGUN = re.compile(r".+-(\d+|(files|[0-9a-f]{6})\.json|\d+-[0-9a-f]{16}\.sha256)")
FETCHING = re.compile(r"\.fetch-[a-z0-9_]{8}")


def look(needs: Needs) -> list[Entry]:
    """Decoded images of data sets and sizes that nobody needs, an hour after they were decoded; and what was never finished.

    What has a size that is needed and was decoded from other files stays: which is which only reading them all would tell.
    Raises InputError for an unknown data set.
    """
    place, wanted, found = manifest.place(needs.root), _wanted(needs), list[Entry]()
    for path in listed(place):
        made = DECODED.fullmatch(path.name)
        if unfinished(path, BEGUN, HOUR):
            found.append(entry(path, LEFT, place))
        if not made or is_folder(path) or path.lstat().st_uid != os.getuid() or not old(path, HOUR):
            continue  # what other users decoded they may need
        if not path.with_suffix(".npy").exists():
            found.append(entry(path, LEFT, place))
        elif wanted is not None and not {(made[1], made[2]), (made[1], "")} & wanted:
            found.append(entry(path, DATA, place))
    return found


def _wanted(needs: Needs) -> set[tuple[str, str]] | None:
    """Data set and size of what is needed, no size for all; None if everything is."""
    if needs.runs is None:
        return None
    return {one for run, protocols in needs.runs for one in _sizes(run, protocols)}


def _sizes(run: Run, protocols: list[Protocol] | None) -> set[tuple[str, str]]:
    """What one Run sees, as decoded files name it."""
    stem = manifest.stem(run.dataset)
    if protocols is None:
        return {(stem, "")}
    stored = None if folder.is_path(run.dataset) else data.facts(run.dataset).stored
    if stored:
        return {(stem, str(stored))}
    sides = [p.side(run.image_size) for p in protocols if isinstance(p, Finetune)]
    return {(stem, str(side)) for side in (run.image_size, *sides)}


def fetched(root: Path) -> list[Entry]:
    """Downloads that nobody went on with for a day."""
    left = [path for path in listed(root) if FETCHING.fullmatch(path.name) and is_folder(path) and old(path, DAY)]
    return [one for path in left for one in tree(path, lambda inside: True, LEFT, root)]
