"""What may be deleted below runs/ and below data/prepared, why, and how much that frees. Without torch.

What is needed, at work, young or not known stays, and so does what lies behind a link.
"""

import os
import re
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from simclic.data import manifest
from simclic.experiment import Suite
from simclic.schedule.garbage import launches, prepared, runs
from simclic.schedule.garbage.entries import (
    CLAIM,
    DAY,
    FEATURES,
    KINDS,
    LEFT,
    RUNS,
    YOUNG,
    Entry,
    Garbage,
    entry,
    freed,
    listed,
    unfinished,
)
from simclic.schedule.garbage.needs import Needs
from simclic.store.claim import Busy, claimed

__all__ = ["DAY", "FEATURES", "KINDS", "RUNS", "YOUNG", "Entry", "Garbage", "Gone", "delete", "find", "freed"]


@dataclass
class Gone:
    """What was deleted; what stayed since it changed or somebody is at work, and what could not be deleted, a line each."""

    entries: list[Entry] = field(default_factory=list)
    stayed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find(suites: list[Suite], place: Path, root: Path) -> Garbage:
    """What may go below `place`, where runs lie, and of the data below `root`; the safest first.

    Without suites everything is taken to be needed: features, decoded data and runs stay. Raises InputError for an unknown data
    set, PermissionError for a folder that may not be read.
    """
    garbage, order = Garbage(), list(KINDS)
    needs = Needs(suites, place, root, garbage)
    places = [place / ".launches", *needs.folders, place / "imported", place, manifest.place(root), root]
    found = list[Entry]()
    for where in places:
        try:
            found += _look(where, needs, garbage)
        except FileNotFoundError:
            garbage.stays(where, "changes while it is looked at")
    garbage.entries = sorted(found, key=lambda one: order.index(one.kind))  # within a kind a folder after its content
    return garbage


def _look(where: Path, needs: Needs, garbage: Garbage) -> list[Entry]:
    """What may go in one place."""
    if where == needs.root:
        return prepared.fetched(where)
    if where == needs.place:
        return [entry(path, LEFT, where) for path in listed(where) if unfinished(path, re.compile("probe"))]
    if where.is_symlink():
        return garbage.stays(where, "a link: what lies behind it is left alone")
    if where == needs.place / ".launches":
        return launches.look(needs.place, garbage)
    if where == needs.place / "imported":
        return runs.imported(where, needs)
    return prepared.look(needs) if where == manifest.place(needs.root) else runs.look(where, needs, garbage)


def delete(chosen: list[Entry], suites: list[Suite], place: Path, root: Path) -> Gone:
    """Delete what was found, one place after another: each is claimed and looked at once more, and what changed stays."""
    gone, needs, by_place = Gone(), Needs(suites, place, root, Garbage()), dict[Path, list[Entry]]()
    for one in chosen:
        by_place.setdefault(one.place, []).append(one)
    for where, those in by_place.items():
        try:
            _delete(where, those, needs, gone)
        except Busy as e:
            gone.stayed.append(str(e))
        except FileNotFoundError:
            gone.stayed.append(f"{where}: was moved or deleted meanwhile")
        except OSError as e:
            gone.problems.append(f"{where}: cannot be written ({e.strerror})")
    return gone


def _delete(where: Path, those: list[Entry], needs: Needs, gone: Gone) -> None:
    """Delete in one place. Raises Busy if somebody is at work there, OSError if that cannot be claimed."""
    if where not in (needs.place, needs.root) and where.is_symlink():
        gone.stayed.append(f"{where}: is a link by now")
        return
    claims = [one for one in those if CLAIM.fullmatch(one.path.name) and one.kind == LEFT]
    for one in claims:
        if not one.path.parent.is_symlink():
            with claimed(one.path.parent, one.path.stem):  # the safe way: it takes over what is dead, and lets it go
                gone.entries.append(one)
    if len(claims) == len(those):
        return
    name = "submitting" if where == needs.place / ".launches" else "owner" if where in needs.folders else ""
    with claimed(where, name) if name else nullcontext():
        still = {one[:5] for one in _look(where, needs, Garbage())}  # not how many names: others of them may have gone
        files = [one for one in those if not one.folder and one not in claims]
        for one in sorted(files, key=lambda one: one.path.name != "pretrain.json"):  # without it all others wait for our claim
            if one[:5] in still:
                _unlink(one, gone)
            else:
                gone.stayed.append(f"{one.path}: changed since it was listed")
    for one in (one for one in those if one.folder):  # after our own claim, which lay in it
        with suppress(OSError):  # something is left in it
            os.rmdir(one.path)
            gone.entries.append(one)


def _unlink(one: Entry, gone: Gone) -> None:
    """Delete one file if it is as it was an instant ago."""
    try:
        if entry(one.path, one.kind, one.place, one.of)[:5] == one[:5]:
            os.unlink(one.path)
            gone.entries.append(one)
    except OSError as e:
        gone.problems.append(f"{one.path}: cannot be deleted ({e.strerror})")
