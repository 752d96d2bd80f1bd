"""Exhibits: the tables and figures of the paper, declared in files that `load` reads."""

import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any, Self

from simclic.spec.fields import InputError, check_names
from simclic.spec.protocol import PROTOCOLS, Finetune, Linear, Protocol
from simclic.spec.run import Run


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A table or a figure of the paper: which Runs it shows, under which protocols, and how they are laid out."""

    number: int
    caption: str
    runs: tuple[Run, ...]
    protocols: tuple[Protocol, ...] = (Linear(),)
    notes: tuple[str, ...] = ()  # what a reader must know to read the numbers; printed below the exhibit

    @property
    def name(self) -> str:
        """The stem that names this exhibit in benchmarks/, baselines/ and reports/out/."""
        return f"{type(self).__name__.lower()}{self.number}"

    @property
    def title(self) -> str:
        """As the paper calls it."""
        return f"{type(self).__name__} {self.number}"

    @property
    def jobs(self) -> tuple[tuple[Run, Protocol], ...]:
        """Every result that the exhibit shows. Pixels have no weights to fine-tune."""
        pairs = product(self.runs, self.protocols)
        return tuple((r, p) for r, p in pairs if not (r.backbone == "pixels" and isinstance(p, Finetune)))

    def moved(self, linear: Mapping[str, Any] | None = None, finetune: Mapping[str, Any] | None = None, **changes: Any) -> Self:
        """The same exhibit with its Runs (see Run.moved) and its protocols changed; equal Runs become one."""
        runs = tuple(dict.fromkeys(moved for run in self.runs for moved in run.moved(**changes)))
        edits: dict[str, Mapping[str, Any]] = {"linear": linear or {}, "finetune": finetune or {}}
        for stage, edit in edits.items():
            check_names(PROTOCOLS[stage], edit)
        return replace(self, runs=runs, protocols=tuple(replace(p, **edits[p.stage]) for p in self.protocols))

    def where(self, **kept: tuple[Any, ...]) -> Self:
        """The same exhibit with those Runs alone whose fields have one of the values named."""
        check_names(Run, kept)
        return replace(self, runs=tuple(r for r in self.runs if all(getattr(r, k) in values for k, values in kept.items())))


@dataclass(frozen=True, kw_only=True)
class Table(Exhibit):
    """Errors in cells: one block per protocol, one row per value of `rows`, one column per value of `columns`.

    With several names in `columns` the cells are those properties of the Runs themselves (Table 3).
    """

    rows: str = "method"
    columns: str | tuple[str, ...] = "dataset"
    labels: Mapping[Any, str] = field(default_factory=dict, hash=False)  # value of a row or column -> what is printed


@dataclass(frozen=True, kw_only=True)
class Figure(Exhibit):
    """Error against the field `x`, one line for each value of `lines`, one panel per protocol."""

    x: str
    lines: str = "dataset"
    xlabel: str = ""
    logx: bool = False


@dataclass(frozen=True)
class Suite:
    """The exhibits that one file declares. `name` is the folder of the report: the file's stem if it holds several."""

    name: str
    title: str
    exhibits: tuple[Exhibit, ...]
    path: str

    @property
    def jobs(self) -> tuple[tuple[Run, Protocol], ...]:
        """All results that the exhibits show, each once."""
        return tuple(dict.fromkeys(job for exhibit in self.exhibits for job in exhibit.jobs))


def load(path: str | Path) -> Suite:
    """The exhibits that a file under benchmarks/ declares: TABLE, FIGURE or EXHIBITS.

    Raises InputError if there is no such file, if Python cannot run it, or if it declares nothing.
    """
    path = Path(path)
    if not path.is_file():
        near = get_close_matches(path.stem, [p.stem for p in path.parent.glob("*.py")], 1)
        raise InputError(f"{path}: no such exhibit" + (f"; did you mean {path.with_stem(near[0])}?" if near else ""))
    try:
        names = runpy.run_path(str(path))
    except SyntaxError as e:
        raise InputError(f"{e.filename}:{e.lineno}: {e.msg}") from e
    except Exception as e:
        raise InputError(f"{_where(e, path)}: {e if isinstance(e, InputError) else f'{type(e).__name__}: {e}'}") from e
    found = [names[n] for n in ("TABLE", "FIGURE") if n in names]
    found += names.get("EXHIBITS", ())
    if not found or not all(isinstance(e, Exhibit) for e in found):
        raise InputError(f"{path}: declares no exhibit; it needs TABLE, FIGURE or a list EXHIBITS of them")
    title = (names.get("__doc__") or path.stem).strip().splitlines()[0]
    return Suite(path.stem if len(found) > 1 else "", title, tuple(found), str(path))


def _where(error: BaseException, path: Path) -> str:
    """path:line of the statement in `path` that raised `error`."""
    line, tb = 0, error.__traceback__
    while tb:
        line = tb.tb_lineno if tb.tb_frame.f_code.co_filename == str(path) else line
        tb = tb.tb_next
    return f"{path}:{line}" if line else str(path)
