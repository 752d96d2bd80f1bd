"""Suites: the exhibits that a file declares, which `load` reads."""

import runpy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from simclic.errors import InputError
from simclic.experiment.declared import ERRORS
from simclic.experiment.exhibit import Exhibit, Table
from simclic.experiment.job import Job


@dataclass(frozen=True)
class Suite:
    """The exhibits that one file declares.

    name: the folder of their report; "" if the file has the name of its only exhibit, else the file's stem.
    """

    name: str
    title: str
    exhibits: tuple[Exhibit, ...]
    path: str

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All results that the exhibits show, without repetition."""
        return tuple(dict.fromkeys(job for exhibit in self.exhibits for job in exhibit.jobs))


def load(path: str | Path) -> Suite:
    """Return the exhibits that a file declares as TABLE, FIGURE or EXHIBITS.

    Raise InputError if there is no such file, if Python cannot run it, if it declares no exhibit, or if a method of one's own is
    declared wrongly.
    """
    path = Path(path)
    if ERRORS:
        raise ERRORS[0]
    if not path.is_file():
        near = get_close_matches(path.stem, [p.stem for p in path.parent.glob("*.py")], 1)
        raise InputError(f"{path}: no such exhibit file" + (f"; did you mean {path.with_stem(near[0])}?" if near else ""))
    try:
        names = runpy.run_path(str(path))
    except SyntaxError as e:
        raise InputError(f"{e.filename}:{e.lineno}: {e.msg}") from e
    except Exception as e:
        if isinstance(e, TypeError) and "'number'" in str(e):
            raise InputError(
                f'{_error_location(e, path)}: number= no longer exists; use paper="table2", or name="my-table" for your own'
            ) from e
        raise InputError(f"{_error_location(e, path)}: {e if isinstance(e, InputError) else f'{type(e).__name__}: {e}'}") from e
    exhibits = [names[n] for n in ("TABLE", "FIGURE") if n in names]
    several = names.get("EXHIBITS", ())
    exhibits += several if isinstance(several, list | tuple) else [several]
    if not exhibits or not all(isinstance(e, Exhibit) for e in exhibits):
        raise InputError(f"{path}: declares no exhibit; it needs TABLE, FIGURE or a list EXHIBITS of them")
    for exhibit in (e for e in exhibits if not e.jobs and not (isinstance(e, Table) and isinstance(e.columns, tuple))):
        missing = "runs" if not exhibit.runs else "protocols" if not exhibit.protocols else "results: pixels cannot be fine-tuned"
        raise InputError(f"{path}: {exhibit.title} has no {missing}, so nothing is to be shown")
    if twice := {e.title for e in exhibits if [other.name for other in exhibits].count(e.name) > 1}:
        raise InputError(f"{path}: declares {' and '.join(sorted(twice))} twice; give each a name of its own")
    title = ((names.get("__doc__") or "").strip() or path.stem).splitlines()[0]
    return Suite("" if [path.stem] == [e.name for e in exhibits] else path.stem, title, tuple(exhibits), str(path))


def _error_location(error: BaseException, path: Path) -> str:
    """Return path:line of the statement in `path` that raised `error`."""
    line, tb = 0, error.__traceback__
    while tb:
        line = tb.tb_lineno if tb.tb_frame.f_code.co_filename == str(path) else line
        tb = tb.tb_next
    return f"{path}:{line}" if line else str(path)
