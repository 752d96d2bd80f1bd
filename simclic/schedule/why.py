"""`simclic plan EXHIBIT... --why CELL`: the jobs of a cell and, if they are not done, what is missing or changed."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rich.text import Text

from simclic import data
from simclic.errors import InputError
from simclic.experiment import Job, JobState, Linear, Protocol, Run, Suite
from simclic.experiment.baselines import not_imported
from simclic.experiment.names import is_file, split_part
from simclic.files import Broken, place_options, read_json
from simclic.schedule.cell_lookup import Cell, find_cells
from simclic.schedule.data_digest import current_digest
from simclic.schedule.state import Queue, State, job_state
from simclic.store.run_folder import RunFolder, run_folders
from simclic.text import terminal_safe

STYLES = {"done": "green", "failed": "red", "broken": "red"}  # of a state; the others are yellow
REASONS = {
    "changed": "a folder of this name holds another experiment",
    "waiting": "its encoder is missing",
    "missing": "it has not been run",
}
WEIGHTS = {"seed": 0.5, "dataset": 5.0, "on": 5.0}  # of a difference in a field; 1 for every other field
MAX_DISTANCE = 6.0  # of a neighbour that is shown
MAX_NEIGHBOURS = 3  # that are equally near


@dataclass(frozen=True)
class Difference:
    """A field's value in a file (`there`) and in the job (`here`). unknown: this version has no such field."""

    name: str
    there: Any
    here: Any
    unknown: bool = False

    def __str__(self) -> str:
        ours = "no such field" if self.unknown else _shorten_text(repr(self.here))
        return f"{self.name} {_shorten_text(repr(self.there))} there, {ours} here"


@dataclass(frozen=True)
class Neighbour:
    """A stored Run or result of another name and its differences. result: it has a result under the same protocol."""

    name: str
    differ: tuple[Difference, ...]
    result: bool = False

    def __str__(self) -> str:
        differ = "; ".join(map(str, self.differ)) or "the same in every field, under another name"
        return f"{self.name}: {differ}" + ("; it has this result" if self.result else "")

    @property
    def distance(self) -> float:
        """Return the sum of the weights of its differences."""
        return sum(WEIGHTS.get(d.name, 1.0) for d in self.differ)


@dataclass
class Digests:
    """Digests of a job's data in its run.json, in its result, and now. unknown: why `now` is empty."""

    run: str = ""
    result: str = ""
    now: str = ""
    unknown: str = ""

    @property
    def disagree(self) -> bool:
        """Return whether two of the known digests differ."""
        return len({self.run, self.result, self.now} - {""}) > 1


@dataclass
class Answer:
    """What is known of one job.

    state: of the job, or stale (done on other data) or changed (its folder holds another experiment or data). needs: what is
    missing first. changed: fields of run.json or of the result that differ from the job. trained: digests of the data that its
    encoder was pre-trained on, if the protocol evaluates on others. runs, protocols: its neighbours.
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
    trained: Digests = field(default_factory=Digests)
    runs: list[Neighbour] = field(default_factory=list)
    protocols: list[Neighbour] = field(default_factory=list)


@dataclass
class Explanation:
    """The requested cells, with an answer for each of their jobs."""

    cells: list[tuple[Cell, list[Answer]]]
    places: list[str] = field(default_factory=list)  # see place_options

    def as_json(self) -> dict[str, Any]:
        """Return everything for programs."""
        return {
            "cells": [
                {"places": cell.places, "exhibits": cell.paths, "jobs": [asdict(answer) for answer in answers]}
                for cell, answers in self.cells
            ]
        }

    def format_lines(self) -> list[Text]:
        """Return the lines to print: a heading for each cell, its jobs below."""
        lines = []
        for cell, answers in self.cells:
            lines += [Text(terminal_safe(cell.places[0]), style="bold")]
            lines += [Text(terminal_safe(f"also {place}")) for place in cell.places[1:]]
            for answer in answers:
                state = (answer.state, STYLES.get(answer.state, "yellow"))
                lines.append(Text.assemble(f"  {answer.job}: ", state, terminal_safe(_format_summary(answer))))
                lines += [Text(terminal_safe(f"    {detail}")) for detail in _format_details(answer)]
            if any(answer.state in ("failed", "waiting", "missing") for answer in answers):
                command = shlex.join(["simclic", "run", cell.paths[0], *self.places])
                lines.append(Text(terminal_safe(f"  to fill it: {command}")))
        return lines


def explain_cells(suites: Iterable[Suite], runs: Path, root: Path, cell: str) -> Explanation:
    """Return the states of the jobs of the cells with these coordinates. runs, root: as for plan.

    Raise InputError if there is no such cell or there are many, and for an unknown data set.
    """
    cells = find_cells(suites, cell)
    store = _StoredRuns(runs, root, [job for cell in cells for job in cell.jobs])
    answers = [(cell, [store.answer_job(job) for job in cell.jobs]) for cell in cells]
    return Explanation(answers, place_options(runs, root))


class _StoredRuns:
    """The Runs under `runs` and the data under `root`, each read once."""

    def __init__(self, runs: Path, root: Path, jobs: Iterable[Job]):
        self.runs, self.root = runs, root
        self.queue = Queue(runs, [each for job in jobs for each in (job, job.encoder)])
        self.stored = {folder: fields for folder in run_folders(runs) if (fields := folder.recorded_fields)}
        self.current_digest = cache(lambda dataset, split: current_digest(dataset, split, root))

    def answer_job(self, job: Job) -> Answer:
        """Return what is known of one job."""
        run, protocol, folder = job.run, job.protocol or Linear(), RunFolder(self.runs, job.run)
        answer, state = Answer(job.name, str(folder.result_path(protocol)), "changed"), State(job, JobState.MISSING)
        try:
            state = job_state(job, self.runs, self.queue)
            answer.state, answer.reason, answer.node = str(state.state), state.full_reason or state.note, state.node
        except InputError:
            answer.changed = _list_differences(run, folder.recorded_fields)
        record = state.record
        if answer.state == "done":
            answer.error, answer.node, answer.commit = float(record["error"]), str(record.get("node", "")), record["commit"]
        elif answer.state == "broken":
            result = _read_mapping(folder.result_path(protocol))
            answer.changed = _list_differences(run, result.get("run")) + _list_differences(protocol, result.get("protocol"))
        elif answer.state != "changed":
            answer.needs = self._list_needs(job, answer)
        if folder.recorded_fields and answer.state != "changed":
            trained = str((folder.run_record() or {}).get("data"))
            measured = str(record.get("data", ""))
            answer.digests = Digests("" if protocol.on else trained, measured, *self.current_digest(job.dataset, run.split))
            if protocol.on and run.epochs:
                answer.trained = Digests(trained, "", *self.current_digest(run.dataset, run.split))
        if (answer.digests.disagree or answer.trained.disagree) and answer.state in ("done", "missing", "waiting"):
            answer.state = "stale" if answer.state == "done" else "changed"
        if answer.error is None:
            answer.runs, answer.protocols = self._nearest_runs(run, protocol), _nearest_results(folder, protocol)
        return answer

    def _list_needs(self, job: Job, answer: Answer) -> list[str]:
        """Return what is missing first: data, initial weights, encoder. A missing job without encoder becomes waiting."""
        run, encoder = job.run, job_state(job.encoder, self.runs, self.queue)
        datasets = job.list_datasets(encoder.state == JobState.DONE)
        needs = [*(data.explain_missing(name, self.root) for name in datasets), not_imported(self.runs, run.init)]
        if encoder.state != JobState.DONE:
            answer.state = "waiting" if answer.state == "missing" else answer.state
            needs.append(f"its encoder {encoder.state}: {encoder.full_reason}" if encoder.reason else "")
            if is_file(run.init) and not Path(split_part(run.init)[0]).expanduser().is_file():
                needs.append(f"init={run.init!r}: no such file")
        return [need for need in needs if need]

    def _nearest_runs(self, run: Run, protocol: Protocol) -> list[Neighbour]:
        """Return the stored Runs that differ least from this one, those with the result first."""
        near = _keep_nearest(
            Neighbour(folder.name, _list_differences(run, fields), folder.has_result(protocol))
            for folder, fields in self.stored.items() if folder.name != run.name
        )  # fmt: skip
        return sorted(near, key=lambda other: not other.result)[:MAX_NEIGHBOURS]


def _nearest_results(folder: RunFolder, protocol: Protocol) -> list[Neighbour]:
    """Return the other results of a Run at the same stage whose protocols differ least."""
    others = ((path.stem, _read_mapping(path).get("protocol")) for path in folder.result_paths() if path.stem != protocol.name)
    same = ((name, values) for name, values in others if name.split("-")[0] == protocol.stage)
    return _keep_nearest(Neighbour(name, _list_differences(protocol, values)) for name, values in same)[:MAX_NEIGHBOURS]


def _keep_nearest(others: Iterable[Neighbour]) -> list[Neighbour]:
    """Return the nearest neighbours, if they are near at all."""
    near = [other for other in others if other.distance <= MAX_DISTANCE]
    return [other for other in near if other.distance == min(neighbour.distance for neighbour in near)]


def _read_mapping(path: Path) -> Mapping[str, Any]:
    """Return the values in a JSON file; none if it is missing or damaged."""
    try:
        return read_json(path) or {}
    except Broken:
        return {}


def _list_differences(wanted: Run | Protocol, stored: object) -> tuple[Difference, ...]:
    """Return the fields in which stored values differ. Fields that were added since have their defaults."""
    wanted_values, stored_values = wanted.values, wanted.with_defaults(stored) if isinstance(stored, Mapping) else {}
    names = [name for name, value in stored_values.items() if name not in wanted_values or value != wanted_values[name]]
    return tuple(Difference(name, stored_values[name], wanted_values.get(name), name not in wanted_values) for name in names)


def _shorten_text(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _format_summary(answer: Answer) -> str:
    """Return the text after the state, in the same line."""
    disagree = answer.digests.disagree or answer.trained.disagree
    if answer.error is not None:
        origin = ", ".join(p for p in (answer.node and f"node {answer.node}", f"commit {answer.commit}") if p)
        return f", error {answer.error:.2f} % ({origin})" + (": the data have changed since" * disagree)
    reason = "the data have changed since" if disagree and not answer.changed else REASONS.get(answer.state, "")
    node = f" (node {answer.node})" if answer.node else ""
    return f"{node}: {answer.reason or reason}".rstrip(": ")


def _format_details(answer: Answer) -> list[str]:
    """Return the lines below a job."""
    lines = [f"first: {need}" for need in answer.needs] + [f"changed: {d}" for d in answer.changed]
    digests = answer.digests
    if digests.disagree:
        pairs = ((digests.run, "in run.json"), (digests.result, "in the result"), (digests.now, "in the data now"))
        lines.append("data: " + ", ".join(f"{digest} {where}" for digest, where in pairs if digest))
    if answer.trained.disagree:
        lines.append(f"pre-trained on: {answer.trained.run} in run.json, {answer.trained.now} in the data now")
    if digests.unknown and digests.unknown not in answer.needs:
        lines.append(f"data: {f'{digests.run} in run.json; ' if digests.run else ''}{digests.unknown}")
    if answer.state in ("changed", "stale"):
        lines.append(f"it will not be run again: move {Path(answer.path).parent} away, or use another --runs DIR")
    lines += [f"nearest result of this run: {other}" for other in answer.protocols]
    lines += [f"nearest run: {other}" for other in answer.runs]
    return lines
