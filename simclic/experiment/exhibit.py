"""Exhibits: tables and figures, the paper's and your own."""

import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from types import UnionType
from typing import Any, Self, get_args, get_origin

from simclic.errors import InputError
from simclic.experiment.job import Job
from simclic.experiment.knob import check_names
from simclic.experiment.protocol import PROTOCOLS, Linear, Protocol
from simclic.experiment.run import PLOTTABLE, Run

# The exhibits that the paper has, and along what each of them lays out its numbers: columns of a table, x and lines of a figure.
PAPER_EXHIBITS: dict[str, Any] = {
    "table2": "dataset",
    "table3": ("epochs", "batch_size", "momentum_encoder", "memory_bank", "projection_head", "data_augmentation"),
    "table4": "predictor", "table5": "stop_gradient", "table6": "similarity",
    "figure4": ("tau", "dataset"), "figure5": ("p", "dataset"), "figure6": ("eps", "dataset"),
    "figure7": ("batch_size", "epochs"),
}  # fmt: skip
NOT_SEARCHED = ("dataset", "split", "difficult", "seed")  # of which errors on val do not compare, or are averaged
BEYOND = "beyond-figure7"  # as claims know figures of one's own, one a data set, with what the paper predicts beyond Figure 7
PAGES = ("index", "claims", "choices", "encoders", "tables", "runs")  # what a report has besides


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A table or a figure: which Runs it shows, under which protocols, and in which layout.

    paper: "table2" for the paper's Table 2, which is shown beside the printed numbers. name: for an exhibit of your own, in small
    letters, as "tau-on-pets"; it names pages and files. search: a field of which each cell or point shows the value with the
    lowest error on val, per protocol; "" if there is nothing to choose. All values are run.
    """

    name: str = ""
    paper: str = ""
    caption: str
    runs: tuple[Run, ...]
    protocols: tuple[Protocol, ...] = (Linear(),)
    search: str = ""
    notes: tuple[str, ...] = ()  # what a reader must know to read the numbers; printed below the exhibit

    def __post_init__(self) -> None:
        """Raise InputError for a wrong name, for a layout other than the paper's, for a field that cannot be searched, and if
        Runs that differ in more than their seed and the searched field would meet in one cell or point."""
        self._check_types()
        object.__setattr__(self, "name", self._checked_name())
        self._check_layout()
        protocols = ", ".join(f"{kind.__name__}()" for kind in PROTOCOLS.values())
        kinds = ((self.runs, Run, "(grid(...) or Run(...),)"), (self.protocols, Protocol, f"(Linear(),) or ({protocols})"))
        for values, kind, example in kinds:
            if not isinstance(values, tuple) or not all(isinstance(v, kind) for v in values):
                raise InputError(f"{self.title}: {reprlib.repr(values)} is not a tuple such as {example}")
        if len({p.title for p in self.plain_protocols}) < len(self.plain_protocols):
            raise InputError(f"{self.title}: two protocols of one kind; give each a table of its own")
        self._check_search()
        cells: dict[Any, Job] = {}
        for job in self.jobs:
            first = cells.setdefault(self.place(job), job)
            if first == job:
                continue
            free = ("seed", self.search)
            a, b = ({**each.run.values, "on": each.dataset} for each in (first, job))
            if differences := ", ".join(f"{n} {a[n]!r} and {b[n]!r}" for n in a if n not in free and a[n] != b[n]):
                raise InputError(f"{self.title}: runs with {differences} meet in one cell; only seeds are averaged")

    def _check_types(self) -> None:
        """Raise InputError for a value of another type than its field's; runs and protocols have a check of their own."""
        for f in fields(self):
            value = getattr(self, f.name)
            kinds = [get_origin(kind) or kind for kind in (get_args(f.type) if isinstance(f.type, UnionType) else (f.type,))]
            if f.name not in ("runs", "protocols") and not isinstance(value, tuple(kinds)):
                names = " or ".join(kind.__name__.lower() for kind in kinds)
                raise InputError(f"{f.name}={reprlib.repr(value)} is {type(value).__name__}, not {names}")

    def _check_layout(self) -> None:
        """Raise InputError if the numbers cannot be laid out as the exhibit says."""

    def cell(self, run: Run) -> Any:
        """Return the key of the cell or point in which an error is shown. run: Job.evaluated."""
        return run

    def place(self, job: Job) -> tuple[Any, Protocol]:
        """Return the cell of a job's error, and the protocol of the block or panel that this cell is in."""
        assert job.protocol  # an exhibit shows results
        return self.cell(job.evaluated), job.protocol.plain

    def group_by_place(self, jobs: Iterable[Job]) -> dict[tuple[Any, Protocol], list[Job]]:
        """Return jobs of the exhibit by their place: the seeds and the searched values of a cell together."""
        jobs_by_place: dict[tuple[Any, Protocol], list[Job]] = {}
        for job in jobs:
            jobs_by_place.setdefault(self.place(job), []).append(job)
        return jobs_by_place

    @property
    def plain_protocols(self) -> tuple[Protocol, ...]:
        """The protocols without the data sets that they evaluate on: one for each block of a table, each panel of a figure."""
        return tuple(dict.fromkeys(protocol.plain for protocol in self.protocols))

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets that are evaluated on, in the order of their declaration."""
        return tuple(dict.fromkeys(job.dataset for job in self.jobs))

    def _check_search(self) -> None:
        """Raise InputError if `search` is not a field whose values can be chosen between on val."""
        if not self.search:
            return
        check_names(Run, {self.search: None})
        if self.search in NOT_SEARCHED:
            raise InputError(f"{self.title}: search={self.search!r} cannot be chosen on val; search a field such as base_lr")
        if self.search in (axes := self.layout if isinstance(self.layout, tuple) else (self.layout,)):
            raise InputError(f"{self.title}: search={self.search!r} is laid out by {', '.join(axes)}, so nothing is to choose")

    def _checked_name(self) -> str:
        """Return the file stem of this exhibit in benchmarks/, baselines/ and reports/out/. Raise InputError for a wrong name."""
        kind = type(self).__name__
        if self.paper:
            known = [name for name in PAPER_EXHIBITS if name.startswith(kind.lower())]
            if self.paper not in known:
                raise InputError(f"paper={self.paper!r} is not one of {', '.join(known)}; your own {kind} has a name instead")
            if self.name not in ("", self.paper):
                raise InputError(f"name={self.name!r} has no effect with paper={self.paper!r}; remove one of them")
            if self.layout != PAPER_EXHIBITS[self.paper]:
                rule = f"the paper lays it out by {PAPER_EXHIBITS[self.paper]!r}, not by {self.layout!r}"
                raise InputError(f"paper={self.paper!r}: {rule}; your own {kind} has a name instead")
        elif self.name in PAPER_EXHIBITS:
            raise InputError(f"name={self.name!r} is an exhibit of the paper; say paper={self.name!r}, or take another name")
        elif self.name in PAGES or not re.fullmatch("[a-z0-9]+([-_][a-z0-9]+)*", self.name):
            raise InputError(
                f"name={self.name!r} cannot name a {kind.lower()}: small letters, digits and hyphens, as in name='tau-on-pets'; "
                f"or paper='{kind.lower()}...' for one of the paper"
            )
        return self.name or self.paper

    @property
    def claimed_name(self) -> str:
        """The name by which the paper's claims know the exhibit; "" if they read nothing of it."""
        return self.paper

    @property
    def layout(self) -> Any:
        """The fields along which the numbers are laid out, as in PAPER_EXHIBITS."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """The paper's name, as "Table 2", or the exhibit's own name in words."""
        return self.paper.capitalize().replace("e", "e ", 1) if self.paper else re.sub("[-_]", " ", self.name).capitalize()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every result that the exhibit shows."""
        pairs = product(self.runs, self.protocols)
        return tuple(dict.fromkeys(job for run, protocol in pairs if (job := Job(run, protocol)).is_possible))

    @property
    def judged(self) -> tuple[Job, ...]:
        """The results that claims are judged on: of several protocols of one stage, the first."""
        first = {protocol.stage: protocol for protocol in reversed(self.plain_protocols)}
        return tuple(job for job in self.jobs if job.protocol and job.protocol.plain == first[job.stage])

    def moved(self, **changes: Any) -> Self:
        """Return the exhibit with changed Runs (see Run.moved) and protocols (knn={"k": 20}); equal Runs become one."""
        edits: dict[str, Mapping[str, Any]] = {stage: changes.pop(stage, None) or {} for stage in PROTOCOLS}
        runs = tuple(dict.fromkeys(moved for run in self.runs for moved in run.moved(**changes)))
        for stage, edit in edits.items():
            check_names(PROTOCOLS[stage], edit)
        return replace(self, runs=runs, protocols=tuple(replace(p, **edits[p.stage]) for p in self.protocols))

    def where(self, **conditions: tuple[Any, ...]) -> Self:
        """Return the exhibit with only those Runs whose fields have one of the given values."""
        check_names(Run, conditions)
        return replace(self, runs=tuple(r for r in self.runs if all(getattr(r, k) in values for k, values in conditions.items())))


@dataclass(frozen=True, kw_only=True)
class Table(Exhibit):
    """Errors in cells, one block per protocol.

    columns: "dataset" gives a row per method and a column per data set (Table 2), another field a row per data set and a
    column per value of that field (Tables 4-6); with several names the cells are those properties of the Runs (Table 3).
    rows: "label" gives a row per method in place of a data set, where columns is another field. beside: "table2" for a table of
    your own with a column per data set that stands beside the 13 rows of Table 2 whose methods were pre-trained on ImageNet.
    """

    columns: str | tuple[str, ...] = "dataset"
    rows: str = "dataset"
    beside: str = ""
    labels: Mapping[Any, str] = field(default_factory=dict, hash=False)  # value or name of a column -> what is printed

    def _check_layout(self) -> None:
        """Raise InputError if a column is nothing that a Run has, and if rows is wrong or has no effect."""
        columns = self.columns if isinstance(self.columns, tuple) else (self.columns,)
        check_names(Run, {name: None for name in columns if not hasattr(Run, str(name))})
        if self.rows not in ("dataset", "label"):
            raise InputError(f"{self.title}: rows={self.rows!r} is not one of dataset, label")
        if self.rows == "label" and (self.columns == "dataset" or isinstance(self.columns, tuple)):
            raise InputError(f"{self.title}: rows='label' has no effect with columns={self.columns!r}; remove it")
        if self.labels and self.columns == "dataset":
            raise InputError(f"{self.title}: labels= has no effect with columns='dataset'; remove it")
        if self.beside and (self.beside != "table2" or self.paper or self.columns != "dataset"):
            raise InputError(f"{self.title}: beside={self.beside!r}: only 'table2', without paper=, with a column per data set")

    @property
    def layout(self) -> Any:
        """The columns; before them the rows, if they are not the usual ones."""
        return self.columns if self.rows == "dataset" else (self.rows, self.columns)

    def cell(self, run: Run) -> Any:
        """Return row and column."""
        if not isinstance(self.columns, str):
            return run
        if self.rows == "label":
            return (run.label, getattr(run, self.columns))  # of several data sets each needs a table of its own
        return (run.label if self.columns == "dataset" else "", run.dataset, getattr(run, self.columns))


@dataclass(frozen=True, kw_only=True)
class Figure(Exhibit):
    """Error against `x`, one line for each value of `lines`, one panel per protocol.

    x: a field that holds numbers, or one of simclic.experiment.run.PLOTTABLE. lines: a field, or "label": a line per row label.
    beyond: "figure7" for a figure of your own on which the report judges what the paper predicts beyond its Figure 7.
    """

    x: str
    lines: str = "dataset"
    xlabel: str = ""
    logx: bool = False
    beyond: str = ""

    def _check_layout(self) -> None:
        """Raise InputError if x does not hold numbers, or some that its axis cannot show, and if beyond does not fit."""
        check_names(Run, {n: None for n, known in ((self.x, PLOTTABLE), (self.lines, ("label",))) if n not in known})
        values = [getattr(run, self.x) for run in self.runs]
        if text := [v for v in values if isinstance(v, str | None)]:
            raise InputError(f"{self.title}: x={self.x!r} has the value {text[0]!r}; an axis needs numbers")
        if self.logx and min(values, default=1) <= 0:
            raise InputError(
                f"{self.title}: x={self.x!r} has the value {min(values)!r}, which logx=True cannot show; remove logx"
            )
        if self.beyond and (self.beyond, self.paper, self.layout) != ("figure7", "", ("batch_size", "lr_rule")):
            rule = "only 'figure7', without paper=, with x='batch_size' and lines='lr_rule'"
            raise InputError(f"{self.title}: beyond={self.beyond!r}: {rule}")

    @property
    def claimed_name(self) -> str:
        """The paper's name, or that of what it predicts beyond it."""
        return BEYOND if self.beyond else self.paper

    @property
    def layout(self) -> Any:
        """The fields of the x axis and of the lines."""
        return (self.x, self.lines)

    def cell(self, run: Run) -> Any:
        """Return line and x."""
        return (getattr(run, self.lines), getattr(run, self.x))
