"""`simclic plan EXHIBIT... --why CELL`: which job fills a cell, whether it is done, and if not, what is missing or changed."""

import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from simclic import data
from simclic.errors import InputError
from simclic.experiment import Protocol, Run, Suite
from simclic.experiment.baselines import not_imported
from simclic.experiment.run import is_file
from simclic.schedule.cell import Cell, find, plain
from simclic.schedule.digest import present
from simclic.schedule.near import Difference, Existing, Neighbour, differences, now_called, recorded, results
from simclic.schedule.plan import look
from simclic.store import results as store

STYLES = {"done": "green", "failed": "red", "broken": "red"}  # of a state; the others are yellow
OTHER = "the data have changed since"
SAID = {
    "changed": "under this name lies something else",
    "waiting": "its encoder is not there yet",
    "missing": "nobody ran it yet",
}


@dataclass
class Digests:
    """By which digests the data of a job go: in its run.json, in its result, and as they are now.

    unknown: why `now` is empty. elsewhere: what other runs of the data set and split carry, where they disagree.
    """

    run: str = ""
    result: str = ""
    now: str = ""
    unknown: str = ""
    elsewhere: dict[str, int] = field(default_factory=dict)

    @property
    def disagree(self) -> bool:
        """Do two of those that are known differ?"""
        return len({self.run, self.result, self.now} - {""}) > 1


@dataclass
class Answer:
    """What is known of one job. state: done, stale (done, on other data), failed, broken, changed (its folder holds another
    experiment, or encoder and data do not belong together), waiting (for its encoder) or missing.

    needs: what else must be there first. changed: fields of run.json or of the result that are not what is wanted. runs,
    protocols: what is nearest to it. moves: how to get used what lies under another name.
    """

    job: str
    path: str
    state: str
    reason: str = ""
    error: float | None = None
    node: str = ""
    commit: str = ""
    needs: list[str] = field(default_factory=list)
    changed: tuple[Difference, ...] = ()
    digests: Digests = field(default_factory=Digests)
    runs: list[Neighbour] = field(default_factory=list)
    protocols: list[Neighbour] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)
    looked_at: tuple[int, int] = (0, 0)  # run.json files that were read, and that were not


@dataclass
class Explained:
    """The cells that were asked for, with an answer for each of their jobs."""

    cells: list[tuple[Cell, list[Answer]]]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "cells": [
                {"places": cell.places, "exhibits": cell.paths, "jobs": [asdict(one) for one in answers]}
                for cell, answers in self.cells
            ]
        }

    def lines(self) -> list[Text]:
        """To print: a heading for each cell, the jobs below. What files say is text without markup."""
        told = []
        for cell, answers in self.cells:
            told += [Text(cell.places[0], style="bold"), *(Text(f"also {place}") for place in cell.places[1:])]
            for one in answers:
                told.append(
                    Text.assemble(f"  {plain(one.job)}: ", (one.state, STYLES.get(one.state, "yellow")), plain(_more(one)))
                )
                told += [Text(f"    {plain(line)}") for line in _details(one)]
            if any(one.state in ("failed", "waiting", "missing") for one in answers):
                told.append(Text(f"  to fill it: simclic run {plain(shlex.quote(cell.paths[0]))}"))
        return told


def explain(suites: Iterable[Suite], runs: Path, root: Path, cell: str) -> Explained:
    """Why the cells that the words of `cell` describe are as they are. runs, root: as for plan. Writes nothing.

    Raises InputError if there is no such cell or there are many, and for an unknown data set.
    """
    cells = find(suites, cell)
    existing = Existing.read(runs, (run for cell in cells for run, _ in cell.jobs))
    asked = _Asked(runs, root, existing)
    return Explained([(cell, [asked.answer(run, protocol) for run, protocol in cell.jobs]) for cell in cells])


@dataclass
class _Asked:
    """Where things lie, and what was found out once for all jobs."""

    runs: Path
    root: Path
    existing: Existing
    known: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)  # data set, split -> digest or why none

    def answer(self, run: Run, protocol: Protocol) -> Answer:
        """Everything about one job."""
        path = store.result_path(self.runs, run, protocol)
        one = Answer(f"{run.name}/{protocol.name}", str(path), "")
        found = recorded(store.folder(self.runs, run) / "run.json")
        try:
            one.state, one.reason, record = look(self.runs, run, protocol)
        except InputError:
            one.state, record = "changed", {}
            one.changed = differences(found["run"], run.values)
            one.moves += self._move(run.name, now_called(found["run"]), "this version gives it another name; to keep it")
        if one.state == "done":
            one.error, one.node, one.commit = float(record["error"]), str(record.get("node", "")), record["commit"]
        if one.state == "broken":
            one.changed = _inside(path, run, protocol)
        one.needs = self._needs(run, one)
        if found and one.state != "changed":
            one.digests = self._digests(run, str(found.get("data")), str(record.get("data", "")))
        if one.digests.disagree and one.state in ("done", "missing", "waiting"):
            one.state = "stale" if one.state == "done" else "changed"
        if one.state not in ("done", "stale"):
            self._look_around(run, protocol, one)
        return one

    def _needs(self, run: Run, one: Answer) -> list[str]:
        """What must be there first: data, starting point, encoder. A missing job whose encoder is missing is waiting."""
        if one.state in ("done", "broken", "changed"):
            return []
        needs = [data.missing(run.dataset, self.root), not_imported(self.runs, run.init)]
        try:
            made = store.read_json(store.folder(self.runs, run) / "pretrain.json") is not None
        except store.Broken as e:
            return [need for need in (*needs, str(e)) if need]
        if not made:
            one.state = "waiting" if one.state == "missing" else one.state
            why = store.failure(self.runs, run, "pretrain")
            needs.append(f"its encoder failed: {why}" if why else "")
            if is_file(run.init) and not Path(run.init).expanduser().is_file():
                needs.append(f"init={run.init!r}: no such file")
        return [need for need in needs if need]

    def _digests(self, run: Run, recorded: str, measured: str) -> Digests:
        """What is recorded, and what the data have now."""
        key = (run.dataset, run.split)
        if key not in self.known:
            self.known[key] = present(*key, self.root)
        counts = {} if self.known[key][0] else self.existing.digests(run)
        return Digests(recorded, measured, *self.known[key], counts if len(counts) > 1 else {})

    def _look_around(self, run: Run, protocol: Protocol, one: Answer) -> None:
        """The nearest runs and results under other names; what is the same under another name can be moved."""
        near, others = self.existing.near(run, protocol), results(self.runs, run, protocol)
        one.runs, one.protocols = near, others
        one.looked_at = (len(self.existing.folders.keys() - {run.name}), self.existing.unread)
        for other in near:
            if not other.differ:
                one.moves += self._move(other.name, run.name, "the same run lies under another name; to use it")
        for other in others if one.state != "broken" else ():
            for end in (".json", ".npz") if not other.differ else ():
                paths = (f"{run.name}/{other.name}{end}", f"{run.name}/{protocol.name}{end}")
                one.moves += self._move(*paths, "this result lies under another name; to use it")

    def _move(self, old: str, new: str, why: str) -> list[str]:
        """How to give something under `runs` its name; nothing if it is not there or has none."""
        if not new or old == new or not (self.runs / old).exists():
            return []
        first = f"move {self.runs / new} away, then " if (self.runs / new).exists() else ""
        return [f"{why}: {first}mv {shlex.quote(str(self.runs / old))} {shlex.quote(str(self.runs / new))}"]


def _inside(path: Path, run: Run, protocol: Protocol) -> tuple[Difference, ...]:
    """In what the Run and the protocol that a result names are not those that were asked for."""
    found = recorded(path)
    theirs = [(found.get("run"), run.values), (found.get("protocol"), protocol.values)]
    return tuple(d for there, here in theirs if isinstance(there, dict) for d in differences(there, here))


def _more(one: Answer) -> str:
    """What stands behind the state, in the same line."""
    if one.error is not None:
        origin = ", ".join(p for p in (one.node and f"node {one.node}", f"commit {one.commit}") if p)
        return f", error {one.error:.2f} % ({origin})" + (f": {OTHER}" if one.state == "stale" else "")
    return f": {one.reason or (SAID[one.state] if one.changed or not one.digests.disagree else 'the data have changed since')}"


def _details(one: Answer) -> list[str]:
    """The lines below a job."""
    told = [f"first: {need}" for need in one.needs] + [f"changed: {d}" for d in one.changed]
    told += _of_data(one.digests, one.needs) + one.moves
    if one.state in ("changed", "stale"):
        told.append(f"nothing runs it again by itself: move {Path(one.path).parent} away, or use another --runs DIR")
    told += [f"nearest result of this run: {other}" for other in one.protocols if other.differ]
    told += [f"nearest run: {other}" for other in one.runs if other.differ]
    count, unread = one.looked_at
    if count and not one.runs and one.state != "changed":
        told.append(f"no other run is like it ({count:,} looked at)")
    return told + ([f"{unread:,} more runs were not looked at"] if unread else [])


def _of_data(digests: Digests, needs: list[str]) -> list[str]:
    """What there is to say of the data's digests: where they differ, or that nobody looked."""
    told = []
    if digests.disagree:
        pairs = (("run.json", digests.run), ("the result", digests.result), ("the data now", digests.now))
        told.append("data: " + ", ".join(f"{digest} in {where}" for where, digest in pairs if digest))
    if digests.unknown and digests.unknown not in needs:
        told.append(f"data: {digests.run} in run.json; {digests.unknown}")
    if digests.elsewhere:
        those = ", ".join(f"{digest} ({n})" for digest, n in digests.elsewhere.items())
        told.append(f"data: runs of this data set and split carry different digests: {those}")
    return told
